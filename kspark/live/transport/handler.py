"""The interface of the object that answers the requests of an `AggregatorServer`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kspark.live.wire import Instructions, Welcome


class Handler(Protocol):
    """Answers the requests of replicas.

    The server calls the methods from one thread per replica, several of them at the same time.
    `shard` and `attempt` are authenticated. Sizes and dtypes are checked against the
    `WeightSpec`.

    If any method except `lost` and `close` raises a `KSparkError`, the server sends it to the
    replica and closes the connection. `out` and the arrays that are passed to a method, except
    those of `report`, are valid until the method returns. Before a call, `out` contains the last
    weights that were sent to this replica. Change it only if it is the answer.
    """

    def hello(self, shard: int, attempt: int) -> Welcome:
        """Admit a replica. Returns its welcome, which must be below 64 KiB as JSON."""

    def pull(self, shard: int, attempt: int, out: np.ndarray) -> tuple[int, Instructions]:
        """Write the weights into `out` (`spec.size` elements).

        The method may block. So may `push` and `reduce`.

        Returns:
            Tuple of the weights' version, and the instructions for the replica.
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
        """Apply a delta, and write the weights after it into `out`. Returns the same as `pull`."""

    def reduce(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        num_examples: int,
        vector: np.ndarray | None,
        out: np.ndarray,
    ) -> tuple[int, Instructions, int | np.ndarray]:
        """Take a part of a mean, wait for all other parts, and answer with the mean.

        Returns:
            Tuple of the weights' version, the instructions, and the answer. The answer is the
            number of elements of `out` to send (0, `spec.trainable_size` or `spec.size`; the last
            one means the weights). Or it is a vector of these sizes or a uint8 payload, which all
            replicas share without a copy each, and which must not change any more.
        """

    def report(
        self, shard: int, attempt: int, meta: dict[str, Any], arrays: list[np.ndarray]
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Take any other report. The handler may keep `arrays`. Returns the answer."""

    def lost(self, shard: int, attempt: int, reason: str, silent: bool = False) -> None:
        """Note that the connection of this replica has ended.

        The server calls this exactly once for every `hello` that returned, as the last call.

        Args:
            shard: Integer.
            attempt: Integer.
            reason: String, a sentence.
            silent: Boolean, whether the host of the replica does not answer. Defaults to `False`.
        """

    def close(self) -> None:
        """Make every blocking call, current or later, raise `KSparkError`: the server closes.

        It may be called more than once.
        """
