"""What an `AggregatorServer` asks of the object behind it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kspark.live.wire import Instructions, Welcome


class Handler(Protocol):
    """Gives requests their meaning.

    Called from one thread per replica, several at a time. `shard` and `attempt`
    have been proved; sizes and dtypes have been checked against the `WeightSpec`.

    A `KSparkError` raised by any method but `lost` and `close` is told to the
    replica, and ends its connection. Arrays that come in (but those of `report`)
    and `out` belong to the connection: they are valid until the method returns. `out` begins
    as the last weights that this replica was sent, and stays them unless it is the answer.
    """

    def hello(self, shard: int, attempt: int) -> Welcome:
        """A replica has connected. Returns the welcome, below 64 KiB as JSON."""

    def pull(self, shard: int, attempt: int, out: np.ndarray) -> tuple[int, Instructions]:
        """Write the weights into `out` (`spec.size` elements).

        May block, as `push` and `reduce` may, but must return or raise within the
        server's timeout.

        Returns:
            The version, and instructions for the replica.
        """

    def push(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        base_version: int,
        num_examples: int,
        delta: np.ndarray,
        out: np.ndarray,
    ) -> tuple[int, Instructions]:
        """Take a delta, and write the weights after it into `out`. Returns as `pull`."""

    def reduce(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        num_examples: int,
        vector: np.ndarray | None,
        out: np.ndarray,
    ) -> tuple[int, Instructions, int | np.ndarray]:
        """Take a part of a mean, wait for the others, and write the result into `out`.

        May block, but must return or raise within the server's timeout.

        Returns:
            The version, instructions, and the answer: how many elements of `out` to
            send, or (which spares a copy per replica) a vector that all of them share
            and that nobody changes any more. 0, `spec.trainable_size` or `spec.size`
            elements, which are the weights if it is a number; a payload is uint8.
        """

    def report(
        self, shard: int, attempt: int, meta: dict[str, Any], arrays: list[np.ndarray]
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Take anything else; `arrays` may be kept. Returns the answer."""

    def lost(self, shard: int, attempt: int, reason: str) -> None:
        """The connection of this replica has ended, for whatever reason.

        Called exactly once for every `hello` that returned, as the last call for it.
        """

    def close(self) -> None:
        """The server closes: every call that blocks, now or later, must raise `KSparkError`.

        May be called more than once.
        """
