"""Every error kspark raises on its own account, and the one sentence they share.

```
KSparkError(RuntimeError)
 ├── ClusterError                  the cluster cannot run this job as asked
 │    ├── NotEnoughSlotsError      fewer task slots than workers that need each other
 │    └── EnvironmentMismatchError another Python, a missing or different library on a worker
 ├── WorkerError                   a replica raised; carries the original traceback
 │    └── NonFiniteError           a loss became NaN or infinite
 ├── AggregationError              what arrived cannot be merged
 │    └── IncompatibleDeltaError   wrong shape, size or dtype
 ├── ProtocolError                 bytes on the wire that are no message of ours
 └── ConnectionLostError           the other side went away, or answered too late
```

User mistakes are `ValueError` or `TypeError`, raised on the driver before a
job starts, worded by `invalid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class KSparkError(RuntimeError):
    """Base class of the failures that happen while a job runs."""


class ClusterError(KSparkError):
    """The cluster cannot run this job as asked."""


class NotEnoughSlotsError(ClusterError):
    """Fewer task slots than workers that have to run at the same time."""


class EnvironmentMismatchError(ClusterError):
    """A worker's Python or libraries do not match the driver's."""


class AggregationError(KSparkError):
    """What the replicas sent cannot be merged."""


class IncompatibleDeltaError(AggregationError):
    """A delta does not have the size or dtype of the global weights."""


class ProtocolError(KSparkError):
    """Received bytes are not a message of kspark's protocol."""


class ConnectionLostError(KSparkError):
    """The peer closed the connection, or a wait ran into its timeout."""


@dataclass(frozen=True)
class Failure:
    """An exception as plain data, the way it travels from a task to the driver.

    Attributes:
        shard: Integer, index of the partition that was worked on.
        host: String, host name of the executor.
        attempt: Integer, Spark's attempt number of the task.
        kind: String, qualified name of the exception's class.
        message: String, `str(exception)`.
        traceback: String, the formatted traceback on the worker.
    """

    shard: int
    host: str
    attempt: int
    kind: str
    message: str
    traceback: str


class WorkerError(KSparkError):
    """A replica raised, or its process died. The message holds the original traceback.

    Args:
        failure: `Failure`. What happened, and where.
        hint: String or `None`. One line of advice for a usual cause.
    """

    def __init__(self, failure: Failure, hint: str | None = None) -> None:
        self.failure = failure
        self.hint = hint
        text = (
            f"Shard {failure.shard} failed on host {failure.host} "
            f"(attempt {failure.attempt}): {failure.kind}: {failure.message}"
        )
        if hint:
            text += f"\nHint: {hint}"
        if failure.traceback:
            text += f"\n\nTraceback of the worker:\n{failure.traceback.rstrip()}"
        super().__init__(text)

    def __reduce__(self) -> tuple[type[WorkerError], tuple[Failure, str | None]]:
        # By default an exception is rebuilt from its text, which is no `Failure`.
        return type(self), (self.failure, self.hint)


class NonFiniteError(WorkerError):
    """A loss became NaN or infinite on a worker."""


def invalid(name: str, rule: str, value: object) -> ValueError:
    """The one sentence for a wrong argument.

    Args:
        name: String, the argument's name.
        rule: String, what it must be, as in "an integer >= 1".
        value: What was received.

    Returns:
        A `ValueError` for the caller to raise.
    """
    return ValueError(sentence(name, rule, value))


def invalid_type(name: str, rule: str, value: object) -> TypeError:
    """As `invalid`, for an argument of a wrong type."""
    return TypeError(sentence(name, rule, value))


def sentence(name: str, rule: str, value: object) -> str:
    """The text of `invalid`, with the value cut to 200 characters."""
    shown = repr(value)
    if len(shown) > 200:
        shown = shown[:197] + "..."
    return f"`{name}` must be {rule}. Received: {name}={shown}"


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Say of errors in a block that they are about parts of one argument.

    Args:
        name: String, the argument's name.

    Raises:
        ValueError: As the block did, with "In `name`: " in front.
        TypeError: Likewise.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In `{name}`: {error}") from error
