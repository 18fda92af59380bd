"""The server's end of one connection, served in its own thread."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kspark.errors import FitEndedError, KSparkError, ProtocolError
from kspark.live.transport.channel import Channel, SilentHostError
from kspark.live.transport.handler import Handler
from kspark.live.transport.handshake import greet
from kspark.live.transport.refusal import describe
from kspark.live.wire import (
    UNPROVED_SERVER,
    Instructions,
    Kind,
    Message,
    reply_limits,
    request_limits,
)
from kspark.weights import PACKED, PackingScheme, Reference, completed

logger = logging.getLogger("kspark")

IDLE_TIMEOUT = 86_400.0
"""Seconds that a replica may be silent between two requests, while it trains an epoch.

TCP keepalive detects that its host is gone, and its guard (`kspark.cluster.watch`) that it hangs.
"""


@dataclass(frozen=True)
class Terms:
    """Settings of all connections of a server.

    Attributes:
        handler: `Handler`.
        packing: `PackingScheme` of deltas and gradients.
        token: Bytes, the secret of this fit.
        timeout: Float, the longest wait in seconds within a message.
        reference: `Reference` of the weights. Defaults to `None`: weights are always sent whole.
        broken_level: Integer, level at which to log that the connection of a replica broke.
            Defaults to `logging.WARNING`.
    """

    handler: Handler
    packing: PackingScheme
    token: bytes
    timeout: float
    reference: Reference | None = None
    broken_level: int = logging.WARNING


class Connection:
    """Serves one replica from the handshake to the end of the connection.

    Args:
        channel: `Channel` with the handshake's limits and timeout.
        peer: String, the address of the client.
        terms: `Terms`.

    Attributes:
        proved: Boolean, whether the client has proved that it belongs to this fit.
    """

    def __init__(self, channel: Channel, peer: str, terms: Terms) -> None:
        self.proved = False
        self._channel = channel
        self._peer = peer
        self._terms = terms
        self._handler = terms.handler
        self._replica: tuple[int, int] | None = None
        self._out = np.empty(0, terms.packing.spec.dtype)
        self._unpacked = self._out
        # The moment (see `Reference.note`) of the weights that the replica keeps.
        self._kept_moment: int | None = None
        self._answers: Mapping[Kind, Callable[[Message, tuple[int, int]], None]] = {
            Kind.PULL: self._pull,
            Kind.PUSH: self._push,
            Kind.REDUCE: self._reduce,
            Kind.REPORT: self._report,
            Kind.PUSH_PACKED: self._push,
            Kind.REDUCE_PACKED: self._reduce,
            Kind.REDUCE_CHANGED: self._reduce,
        }

    def run(self) -> None:
        """Serve until one side ends the connection. Raises only exceptions of `Handler.lost`."""
        reason, silent = "The replica closed the connection.", False
        try:
            self._serve()
        except KSparkError as error:
            reason, silent = str(error), isinstance(error, SilentHostError)
            # When the driver ends a fit, that is no news.
            level = self._terms.broken_level if self.proved else logging.WARNING
            level = logging.DEBUG if isinstance(error, FitEndedError) else level
            logger.log(level, "Closing the connection from %s: %s", self._peer, reason)
            self._refuse(error)
        except Exception as error:
            # Nobody would receive an exception that leaves this thread.
            reason = f"The aggregator failed: {error!r}"
            logger.exception("Closing the connection from %s", self._peer)
            self._refuse(KSparkError(reason))
        finally:
            self._channel.close()
            self._release()
        if self._replica is not None:
            self._handler.lost(*self._replica, reason, silent)

    def interrupt(self) -> None:
        """End the connection, from another thread."""
        self._channel.interrupt()

    def _serve(self) -> None:
        replica = self._admit()
        while message := self._channel.receive(IDLE_TIMEOUT):
            self._answers[message.kind](message, replica)

    def _admit(self) -> tuple[int, int]:
        self._channel.secure()
        greeting = greet(self._channel, self._terms.token, self._terms.packing.digest())
        self.proved = True
        replica = (greeting.shard, greeting.attempt)
        self._peer += f" (shard {greeting.shard}, attempt {greeting.attempt})"
        welcome = self._handler.hello(*replica)
        self._replica = replica
        self._prepare()
        fields = {"proof": greeting.proof, "meta": welcome.to_json()}
        self._channel.send(Kind.WELCOME, meta=fields, limits=UNPROVED_SERVER)
        return replica

    def _prepare(self) -> None:
        # Only after the handshake: until then a client gets no memory and a short timeout.
        packing, reference = self._terms.packing, self._terms.reference
        spec = packing.spec
        self._out = np.empty(spec.size, spec.dtype)
        self._unpacked = np.empty(packing.size, spec.dtype)
        if packing.lossless:
            self._channel.decoder.vector = np.empty(spec.size, spec.dtype)
        else:
            self._channel.decoder.vector = np.empty(packing.sizes[-1], PACKED)
        layout = None if reference is None else reference.layout
        self._channel.decoder.limits = request_limits(packing, layout)
        self._limits = reply_limits(packing, layout)
        self._channel.set_timeout(self._terms.timeout)

    def _release(self) -> None:
        # The server keeps this object until the next connection, but the vectors are freed now.
        self._out = self._unpacked = np.empty(0, self._terms.packing.spec.dtype)
        self._channel.decoder.vector = None

    def _pull(self, message: Message, replica: tuple[int, int]) -> None:
        version, instructions = self._handler.pull(*replica, self._out)
        self._send_weights(version, instructions)

    def _push(self, message: Message, replica: tuple[int, int]) -> None:
        sequence, base_version, num_examples = message.numbers
        (delta,) = self._vectors_in(message)
        version, instructions = self._handler.push(
            *replica, sequence, base_version, num_examples, delta, self._out
        )
        self._send_weights(version, instructions)

    def _reduce(self, message: Message, replica: tuple[int, int]) -> None:
        sequence, num_examples = message.numbers
        part = next(iter(self._vectors_in(message)), None)
        version, instructions, answer = self._handler.reduce(
            *replica, sequence, num_examples, part, self._out
        )
        if isinstance(answer, np.ndarray):
            kind = Kind.VECTOR_PACKED if answer.dtype == PACKED else Kind.VECTOR
            self._send_vector(kind, version, instructions, answer)
        elif answer == self._out.size:
            self._send_weights(version, instructions)
        else:
            self._send_vector(Kind.VECTOR, version, instructions, self._out[:answer])

    def _vectors_in(self, message: Message) -> tuple[np.ndarray, ...]:
        """Return the vector of a message as a tuple, which is empty without a vector.

        Raises:
            ProtocolError: If a payload does not fit the packing scheme.
        """
        if message.kind is Kind.REDUCE_CHANGED:
            return (self._completed(message.arrays[0]),)
        if message.kind not in (Kind.PUSH_PACKED, Kind.REDUCE_PACKED):
            return message.arrays
        # A compressed gradient of a model without trainable weights has no bytes.
        payload = message.arrays[0] if message.arrays else np.empty(0, PACKED)
        return (self._terms.packing.unpack(payload, self._unpacked),)

    def _completed(self, payload: np.ndarray) -> np.ndarray:
        """Return a replica's weights: those that it was sent last, with the changed blocks."""
        if self._terms.reference is None or self._kept_moment is None:
            raise ProtocolError(
                "The replica sent changed blocks before it had received the weights that they "
                "refer to."
            )
        return completed(self._terms.reference.layout, self._out, payload)

    def _report(self, message: Message, replica: tuple[int, int]) -> None:
        meta, arrays = self._handler.report(*replica, message.meta, list(message.arrays))
        self._channel.send(Kind.DOCUMENT, (), meta, arrays, limits=self._limits)

    def _send_weights(self, version: int, instructions: Instructions) -> None:
        """Answer with the weights in `_out`, or only with the blocks that the replica lacks."""
        reference, weights = self._terms.reference, self._out
        if reference is None:
            self._send_vector(Kind.VECTOR, version, instructions, weights)
            return
        self._kept_moment, changed = reference.note(weights, self._kept_moment)
        if changed is not None:
            payload = reference.layout.encode(weights, changed)
            self._send_vector(Kind.VECTOR_CHANGED, version, instructions, payload)
        elif reference.over:
            self._kept_moment = None
            self._send_vector(Kind.VECTOR, version, instructions, weights)
        else:
            self._send_vector(Kind.VECTOR_KEPT, version, instructions, weights)

    def _send_vector(
        self, kind: Kind, version: int, instructions: Instructions, vector: np.ndarray
    ) -> None:
        self._channel.send(kind, (version,), instructions.to_json(), (vector,), limits=self._limits)

    def _refuse(self, error: KSparkError) -> None:
        with contextlib.suppress(KSparkError):
            self._channel.send(Kind.REFUSED, meta=describe(error), limits=UNPROVED_SERVER)
