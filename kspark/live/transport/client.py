"""A replica's end of the live road."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
"""What a pull, a push and a reduce may be answered with."""

# For each step of the handshake. It is a reachability check: the answer is due at once.
CONNECT_TIMEOUT = 20.0
# How long a reply may take, in timeouts. The aggregator waits for slow replicas up to ten
# timeouts and then says whom it waited for: who gives up earlier does not hear that.
_PATIENCE = 11


@dataclass(frozen=True)
class Reply:
    """The aggregator's answer to `pull`, `push` and `reduce`.

    Attributes:
        version: Integer, the aggregator's version.
        instructions: `Instructions` of the driver.
        filled: Integer, how many elements of `out` now hold fresh values, from the
            first one on. 0 if the answer was without a vector.
    """

    version: int
    instructions: Instructions
    filled: int


class AggregatorClient:
    """One persistent connection to an `AggregatorServer`. For one thread.

    Every method may raise `ConnectionLostError` (the server is gone, or answers too
    late), `ProtocolError` (it sent something unacceptable), or the `KSparkError`
    with which it refused. The connection is of no use then: close it. `out` is
    in an unknown state.

    Args:
        host: String, the driver's address as the executors see it.
        port: Integer.
        token: Bytes, the secret of this fit.
        packing: `PackingScheme` of deltas and gradients; the server's must be equal.
        shard: Integer, the partition this replica works on.
        attempt: Integer; with `shard` it names this replica.
        timeout: Float, seconds. The longest wait for the server within a message.
        patience: Float, seconds that a reply may take to begin, which includes the time
            that other replicas take to come to a `reduce`. Defaults to 11 times
            `timeout`. (A dead server is noticed earlier.)
        ssl_context: Optional client-side `ssl.SSLContext`.

    Attributes:
        shard: As given.
        attempt: As given.
        seconds_waiting: Float, time spent in requests so far.
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
        patience: float | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.seconds_waiting = 0.0
        self._address = (host, port)
        self._token = token
        self._packing, self._spec = packing, packing.spec
        self.shard, self.attempt = shard, attempt
        self._timeout = timeout
        self._patience = patience or _PATIENCE * timeout
        self._ssl_context = ssl_context
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
        """Connect, and prove each other to be of the same fit.

        Returns:
            `Welcome`, from the handler.

        Raises:
            ClusterError: If there is no aggregator at that address.
            KSparkError: If it refuses; of the class it names.
        """
        try:
            return Welcome.from_json(self._introduce().meta["meta"])
        except BaseException:
            self.close()
            raise

    def _introduce(self) -> Message:
        channel = Channel(self._open(), UNPROVED_SERVER, CONNECT_TIMEOUT)
        self._channel = channel
        try:
            digest = self._packing.digest()
            answer = introduce(channel, self._token, digest, self.shard, self.attempt)
        except (ProtocolError, ConnectionLostError) as error:
            raise ClusterError(
                f"What answers at {self._where} is not the aggregator of this fit: {error}"
            ) from error
        if answer.kind is Kind.REFUSED:
            raise restore(answer.meta, self._where)
        channel.decoder.limits = self._replies
        channel.set_timeout(self._timeout)
        return answer

    @property
    def _where(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    def _open(self) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, CONNECT_TIMEOUT)
        except OSError as error:
            raise ClusterError(
                f"The aggregator on the driver cannot be reached at {self._where} from "
                f"{socket.gethostname()}: {error}. Executors must be able to open a TCP "
                "connection to the driver: check `spark.driver.host`, and set `port` to a "
                "port or a range that the firewall lets through."
            ) from error
        return sock if self._ssl_context is None else self._secured(sock, self._ssl_context)

    def _secured(self, sock: socket.socket, context: ssl.SSLContext) -> socket.socket:
        try:
            return context.wrap_socket(sock, server_hostname=self._address[0])
        except OSError as error:
            sock.close()
            raise ClusterError(f"No TLS with the aggregator at {self._where}: {error}") from error

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
        """Hand in a delta and fetch the weights after it, in one round trip.

        Args:
            delta: Vector of `spec.size` elements, new minus old; or its payload.
            sequence: Integer, counts this replica's deltas. A repeated one is not
                applied again.
            base_version: Integer, version of the weights the delta starts from.
            num_examples: Integer, examples behind it.
            out: Vector to receive into; may be `delta`.
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
        """Hand in a part of a weighted mean, and wait until all replicas did.

        Args:
            vector: Vector of `spec.size` or `spec.trainable_size` elements, or its packed
                bytes, or `None` to take part with nothing.
            sequence: Integer, which mean this is.
            num_examples: Integer, the weight of `vector`.
            out: Vector to receive into; may be `vector`.
            weights: Boolean, whether `vector` is weights, which began as those of the last
                `pull`: what has not changed of them is not sent.
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
        """Ask, and receive the answer; `weights` says whether it is nothing but weights."""
        if out.ndim != 1 or out.dtype != self._spec.dtype or not out.flags.c_contiguous:
            raise invalid("out", f"a contiguous vector of {self._spec.dtype}", out)
        self._connected().decoder.vector = out
        message = self._ask(VECTORS, kind, numbers, None, arrays)
        filled = self._filled(message, out)
        if weights and message.kind is Kind.VECTOR and filled:
            self._kept.forget()
        return Reply(message.numbers[0], Instructions.from_json(message.meta), filled)

    def _filled(self, message: Message, out: np.ndarray) -> int:
        """How many elements of `out` hold what a message brought."""
        filled = self._size_of(message)
        if filled > out.size:
            raise ProtocolError(f"The answer has {filled} elements, `out` has {out.size}.")
        if message.kind is Kind.VECTOR_PACKED:
            # It was received into `out`, where it is to be unpacked.
            payload = [array.copy() for array in message.arrays] or [np.empty(0, PACKED)]
            self._packing.unpack(payload[0], out)
        elif message.kind is not Kind.VECTOR:
            self._kept.take(message, out[:filled])
        return filled

    def _size_of(self, message: Message) -> int:
        """Elements of the vector that a message stands for."""
        if message.kind is Kind.VECTOR_PACKED:
            return self._packing.size
        if message.kind is Kind.VECTOR_CHANGED:
            return self._spec.size
        return sum(array.size for array in message.arrays)

    def report(
        self, meta: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Tell the aggregator anything else.

        Args:
            meta: Mapping, JSON only, below 1 MiB.
            arrays: Sequence of arrays; together below 64 MiB or 8 times the weights,
                whichever is more.

        Returns:
            A dictionary and a list of arrays, from the handler.
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
        channel.send(kind, numbers, meta, arrays, limits=self._requests)
        message = channel.receive(self._patience)
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
            raise ConnectionLostError("`connect` must be called first.")
        return self._channel

    def close(self) -> None:
        """Close the connection. May be called again."""
        if self._channel is not None:
            self._channel.close()
