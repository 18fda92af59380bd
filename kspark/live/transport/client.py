"""A replica's end of the connection to the aggregator."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kspark.cluster.activity import WAITING, doing
from kspark.errors import ClusterError, ConnectionLostError, ProtocolError, invalid
from kspark.live.transport.channel import Channel
from kspark.live.transport.handshake import introduce
from kspark.live.transport.kept import Kept
from kspark.live.transport.refusal import restore
from kspark.live.wire import (
    UNPROVED_SERVER,
    Instructions,
    Kind,
    Message,
    Welcome,
    reply_limits,
    request_limits,
)
from kspark.weights import PACKED, Layout, PackingScheme

VECTORS = (Kind.VECTOR, Kind.VECTOR_PACKED, Kind.VECTOR_KEPT, Kind.VECTOR_CHANGED)
"""Possible answers to a pull, a push and a reduce."""

CONNECT_TIMEOUT = 15.0
"""Seconds for each step of the handshake, which needs no work on the driver."""

OPEN_TIMEOUT = 10.0
"""Seconds to open a TCP connection. Linux asks after 0, 1, 3 and 7 of them."""

REPLY_TIMEOUT = 86_400.0
"""Seconds until a reply begins. It waits for the slowest replica, whose epoch may take hours.

TCP keepalive detects that the driver's host is gone.
"""


class UnreachableError(ClusterError):
    """No TCP connection to the aggregator can be opened."""


@dataclass(frozen=True)
class Reply:
    """The aggregator's answer to `pull`, `push` and `reduce`.

    Attributes:
        version: Integer, version of the aggregator's weights.
        instructions: `Instructions` of the driver.
        filled: Integer, number of elements at the start of `out` that were written; 0 for an
            answer without a vector.
    """

    version: int
    instructions: Instructions
    filled: int


class AggregatorClient:
    """One persistent connection to an `AggregatorServer`, for use by one thread.

    Every method may raise `ConnectionLostError` (the server is gone, or answers too late),
    `ProtocolError` (the server sent an invalid message), or the `KSparkError` with which the
    server refused. Close the connection then: it cannot be used any more, and the content of
    `out` is undefined.

    Args:
        host: String, the address at which executors reach the driver.
        port: Integer.
        token: Bytes, the secret of this fit.
        packing: `PackingScheme` of deltas and gradients. It must equal the server's.
        shard: Integer, the shard that this replica trains.
        attempt: Integer. Shard and attempt identify a replica.
        timeout: Float, the longest wait in seconds for the server within a message.
        ssl_context: Client-side `ssl.SSLContext`. Defaults to `None`, no TLS.
        connect_timeout: Float, seconds to wait for each step of the handshake. Defaults to
            `CONNECT_TIMEOUT`.

    Attributes:
        shard: As given.
        attempt: As given.
        seconds_waiting: Float, seconds spent in requests so far.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: bytes,
        packing: PackingScheme,
        shard: int,
        attempt: int,
        timeout: float,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self.seconds_waiting = 0.0
        self._address = (host, port)
        self._token = token
        self._packing, self._spec = packing, packing.spec
        self.shard, self.attempt = shard, attempt
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._connect_timeout = connect_timeout
        self._channel: Channel | None = None
        self._kept = Kept(Layout.of(packing.spec))
        self._requests = request_limits(packing, self._kept.layout)
        self._replies = reply_limits(packing, self._kept.layout)

    def __enter__(self) -> AggregatorClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def bytes_sent(self) -> int:
        """Bytes sent on the connection, headers included."""
        return self._channel.bytes_sent if self._channel else 0

    @property
    def bytes_received(self) -> int:
        """Bytes received on the connection, headers included."""
        return self._channel.bytes_received if self._channel else 0

    def connect(self) -> Welcome:
        """Connect, and authenticate both sides with the token.

        Returns:
            The handler's `Welcome`.

        Raises:
            UnreachableError: If no TCP connection can be opened.
            ClusterError: If there is no aggregator of this fit at the address.
            KSparkError: If the aggregator refuses. The error has the class that it names.
        """
        try:
            return Welcome.from_json(self._introduce().meta["meta"])
        except BaseException:
            self.close()
            raise

    def _introduce(self) -> Message:
        channel = Channel(self._open(), UNPROVED_SERVER, self._connect_timeout)
        self._channel = channel
        try:
            digest = self._packing.digest()
            answer = introduce(channel, self._token, digest, self.shard, self.attempt)
        except (ProtocolError, ConnectionLostError) as error:
            raise ClusterError(
                f"The server at {self._where} is not the aggregator of this fit: {error}"
            ) from error
        if answer.kind is Kind.REFUSED:
            raise restore(answer.meta, self._where)
        channel.decoder.limits = self._replies
        channel.set_timeout(self._timeout)
        # The driver may be suspended, or run code that lets no other thread run.
        channel.bear_unread(self._timeout)
        return answer

    @property
    def _where(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    def _open(self) -> socket.socket:
        try:
            timeout = min(self._connect_timeout, OPEN_TIMEOUT)
            sock = socket.create_connection(self._address, timeout)
        except OSError as error:
            raise UnreachableError(
                f"The aggregator on the driver cannot be reached at {self._where} from "
                f"{socket.gethostname()}: {error}. Executors must be able to open a TCP "
                "connection to the driver. Check `spark.driver.host`, and set `port` to a "
                "port, or a pair (first, last) of ports, that the firewall allows."
            ) from error
        sock.settimeout(self._connect_timeout)
        return sock if self._ssl_context is None else self._secured(sock, self._ssl_context)

    def _secured(self, sock: socket.socket, context: ssl.SSLContext) -> socket.socket:
        try:
            return context.wrap_socket(sock, server_hostname=self._address[0])
        except OSError as error:
            sock.close()
            raise ClusterError(
                f"The TLS handshake with the aggregator at {self._where} failed: {error}"
            ) from error

    def pull(self, out: np.ndarray) -> Reply:
        """Fetch the weights.

        Args:
            out: Vector of `spec.size` elements to receive into.
        """
        return self._exchange(Kind.PULL, (), (), out, weights=True)

    def push(
        self,
        delta: np.ndarray,
        *,
        sequence: int,
        base_version: int,
        num_examples: int,
        out: np.ndarray,
    ) -> Reply:
        """Send a delta, and receive the weights after it, in one round trip.

        Args:
            delta: Vector of `spec.size` elements, new minus old weights; or its payload.
            sequence: Integer, number of this delta. The aggregator applies each number once.
            base_version: Integer, version of the weights that the delta starts from.
            num_examples: Integer, number of examples that the delta was trained on.
            out: Vector to receive into. It may be `delta`.
        """
        kind = Kind.PUSH_PACKED if delta.dtype == PACKED else Kind.PUSH
        if kind is Kind.PUSH:
            self._spec.check(delta, "delta")
        numbers = (sequence, base_version, num_examples)
        return self._exchange(kind, numbers, (delta,), out, weights=True)

    def reduce(
        self,
        vector: np.ndarray | None,
        *,
        sequence: int,
        num_examples: int,
        out: np.ndarray,
        weights: bool = False,
    ) -> Reply:
        """Send a part of a weighted mean, wait for all other replicas, and receive the result.

        Args:
            vector: Vector of `spec.size` or `spec.trainable_size` elements, or its payload, or
                `None` to take part without a vector.
            sequence: Integer, number of the mean.
            num_examples: Integer, the weight of `vector`.
            out: Vector to receive into. It may be `vector`.
            weights: Boolean, whether `vector` contains weights that were trained from those of
                the last `pull`. Then only their changed blocks are sent. Defaults to `False`.
        """
        if weights and vector is not None:
            vector = self._kept.less(vector)
        arrays = () if vector is None else (vector,)
        packed = vector is not None and vector.dtype == PACKED
        kind = (Kind.REDUCE_CHANGED if weights else Kind.REDUCE_PACKED) if packed else Kind.REDUCE
        return self._exchange(kind, (sequence, num_examples), arrays, out, weights=weights)

    def _exchange(
        self,
        kind: Kind,
        numbers: Sequence[int],
        arrays: Sequence[np.ndarray],
        out: np.ndarray,
        *,
        weights: bool,
    ) -> Reply:
        """Send a request and receive the answer. `weights` says whether the answer is weights."""
        if out.ndim != 1 or out.dtype != self._spec.dtype or not out.flags.c_contiguous:
            raise invalid("out", f"a contiguous vector of {self._spec.dtype}", out)
        self._connected().decoder.vector = out
        message = self._ask(VECTORS, kind, numbers, None, arrays)
        filled = self._filled(message, out)
        if weights and message.kind is Kind.VECTOR and filled:
            self._kept.forget()
        return Reply(message.numbers[0], Instructions.from_json(message.meta), filled)

    def _filled(self, message: Message, out: np.ndarray) -> int:
        """Write the vector of a message into `out`. Returns the number of elements written."""
        filled = self._size_of(message)
        if filled > out.size:
            raise ProtocolError(f"The answer has {filled} elements, but `out` has {out.size}.")
        if message.kind is Kind.VECTOR_PACKED:
            # The payload was received into `out`. Copy it, because `out` also takes the result.
            payload = [array.copy() for array in message.arrays] or [np.empty(0, PACKED)]
            self._packing.unpack(payload[0], out)
        elif message.kind is not Kind.VECTOR:
            self._kept.take(message, out[:filled])
        return filled

    def _size_of(self, message: Message) -> int:
        """Return the number of elements of a message's vector after unpacking."""
        if message.kind is Kind.VECTOR_PACKED:
            return self._packing.size
        if message.kind is Kind.VECTOR_CHANGED:
            return self._spec.size
        return sum(array.size for array in message.arrays)

    def report(
        self, meta: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Send any other report.

        Args:
            meta: Mapping of JSON values, below 1 MiB.
            arrays: Sequence of arrays, together below 64 MiB or 8 times the size of the
                weights, whichever is larger. Defaults to `()`.

        Returns:
            Tuple of a dictionary and a list of arrays, from the handler.
        """
        message = self._ask((Kind.DOCUMENT,), Kind.REPORT, (), meta, arrays)
        return message.meta, list(message.arrays)

    def _ask(
        self,
        answers: Sequence[Kind],
        kind: Kind,
        numbers: Sequence[int],
        meta: Mapping[str, Any] | None,
        arrays: Sequence[np.ndarray],
    ) -> Message:
        begin = time.perf_counter()
        channel = self._connected()
        with doing(WAITING):
            channel.send(kind, numbers, meta, arrays, limits=self._requests)
            message = channel.receive(REPLY_TIMEOUT)
        self.seconds_waiting += time.perf_counter() - begin
        if message is None:
            raise ConnectionLostError(f"The aggregator at {self._where} closed the connection.")
        if message.kind is Kind.REFUSED:
            raise restore(message.meta, self._where)
        if message.kind not in answers:
            raise ProtocolError(f"Got {message.kind.name}, expected {answers[0].name}.")
        return message

    def _connected(self) -> Channel:
        if self._channel is None:
            raise ConnectionLostError("The client is not connected. Call `connect` first.")
        return self._channel

    def close(self) -> None:
        """Close the connection. It may be called more than once."""
        if self._channel is not None:
            self._channel.close()
