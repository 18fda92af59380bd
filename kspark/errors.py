"""The exceptions of kspark, and the text of errors about arguments.

```
KSparkError(RuntimeError)
 ├── ClusterError                  the cluster cannot run the job
 │    ├── NotEnoughSlotsError      fewer task slots than workers that must run at once
 │    └── EnvironmentMismatchError a worker has another Python, or lacks a library
 ├── WorkerError                   a replica raised; has the original traceback
 │    └── NonFiniteError           a loss or a weight became NaN or infinite
 ├── AggregationError              deltas cannot be merged
 │    └── IncompatibleDeltaError   wrong shape, size or dtype
 ├── ProtocolError                 received bytes are not a message of kspark
 └── ConnectionLostError           the peer closed the connection, or a wait timed out
      └── FitEndedError            the driver ended the fit while a replica was connected
```

A wrong argument is a `ValueError` or a `TypeError`, raised on the driver before a job
starts. `invalid`, `invalid_type` and `unknown_argument` make them. `import kspark` raises
`BackendError`, an `ImportError`, if Keras has no backend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class KSparkError(RuntimeError):
    """Base class of failures while a job runs."""


class ClusterError(KSparkError):
    """The cluster cannot run the job."""


class NotEnoughSlotsError(ClusterError):
    """The cluster has fewer task slots than workers that must run at the same time."""


class EnvironmentMismatchError(ClusterError):
    """The Python or the libraries of a worker do not match those of the driver."""


class BackendError(ImportError):
    """The backend of Keras is not installed, or is none that kspark trains on."""


class AggregationError(KSparkError):
    """The deltas of the replicas cannot be merged."""


class IncompatibleDeltaError(AggregationError):
    """A delta has another size or dtype than the global weights."""


class ProtocolError(KSparkError):
    """Received bytes are not a valid message of kspark's protocol."""


class ConnectionLostError(KSparkError):
    """The peer closed the connection, or a wait timed out."""


class FitEndedError(ConnectionLostError):
    """The driver ended the fit. Its own error, if there is one, says why."""


NO_SHARD = -1
"""The `shard` of a failure that is not known to be that of a shard."""


@dataclass(frozen=True)
class Failure:
    """An exception as plain data, which a task sends to the driver.

    Attributes:
        shard: Integer, index of the partition, or `NO_SHARD`.
        host: String, host name of the executor.
        attempt: Integer, Spark's attempt number of the task.
        kind: String, qualified name of the exception's class.
        message: String, `str(exception)`.
        traceback: String, the formatted traceback on the worker.
        source: String, what has failed, if it is not the training of the shard. Defaults to `""`.
    """

    shard: int
    host: str
    attempt: int
    kind: str
    message: str
    traceback: str
    source: str = ""

    @property
    def headline(self) -> str:
        """A sentence that says what has failed, where and why."""
        reason = f"{self.kind}: {self.message}" if self.message else self.kind
        if self.shard == NO_SHARD:
            return f"{self.source} raised {reason}" if self.source else self.message
        source = self.source or f"Shard {self.shard}"
        return f"{source} failed on host {self.host} (attempt {self.attempt}): {reason}"


class WorkerError(KSparkError):
    """A replica raised an exception, or its process died. The message has the original traceback.

    Args:
        failure: `Failure`.
        hint: String, one line of advice for a common cause. Defaults to `None`.
    """

    def __init__(self, failure: Failure, hint: str | None = None) -> None:
        self.failure = failure
        self.hint = hint
        text = failure.headline
        if hint:
            text += f"\nHint: {hint}"
        if failure.traceback:
            text += f"\n\nTraceback of the worker:\n{failure.traceback.rstrip()}"
        super().__init__(text)

    def __reduce__(self) -> tuple[type[WorkerError], tuple[Failure, str | None]]:
        # The default rebuilds an exception from its text, but `__init__` takes a `Failure`.
        return type(self), (self.failure, self.hint)


class NonFiniteError(WorkerError):
    """A loss became NaN or infinite on a worker, or a merged weight did."""


class Described(str):
    """A description of what was received, which an error shows without quotation marks."""

    __slots__ = ()


def invalid(name: str, rule: str, value: object) -> ValueError:
    """Make the error for an argument with a wrong value.

    Args:
        name: String, name of the argument.
        rule: String, the requirement, as in "an integer >= 1".
        value: The value that was received, or a description of it as `Described`.

    Returns:
        A `ValueError` for the caller to raise.
    """
    return ValueError(sentence(name, rule, value))


def invalid_type(name: str, rule: str, value: object) -> TypeError:
    """Make the error for an argument of a wrong type; see `invalid`. Returns a `TypeError`."""
    return TypeError(sentence(name, rule, value))


def sentence(name: str, rule: str, value: object) -> str:
    """Return the text of `invalid`. A value is cut to 200 characters."""
    if isinstance(value, Described):
        return f"`{name}` must be {rule}. Received: {value}"
    return f"`{name}` must be {rule}. Received: {name}={shortened(repr(value))}"


def shortened(text: str) -> str:
    """Return a text, cut to 200 characters."""
    return text if len(text) <= 200 else f"{text[:197]}..."


def unknown_argument(name: str, names: Iterable[str]) -> TypeError:
    """Make the error for an argument that does not exist, with a suggestion if a name is similar.

    Args:
        name: String, the name that was received.
        names: Iterable of strings, the names that exist.

    Returns:
        A `TypeError` for the caller to raise.
    """
    meant = nearest(name, names)
    hint = "" if meant is None else f" Did you mean {meant!r}?"
    return TypeError(f"Argument not recognized: {name!r}.{hint}")


def nearest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the one of `names` that is most similar to a name, or `None` if none is similar.

    Args:
        name: String.
        names: Iterable of strings.
        cutoff: Float, how similar they must be, from 0 to 1. Defaults to `0.5`.
    """
    by_form = {without_case(known): known for known in names}
    near = difflib.get_close_matches(without_case(name), by_form, n=1, cutoff=cutoff)
    return by_form[near[0]] if near else None


def without_case(name: str) -> str:
    """Reduce a name to the letters that `batch_size`, `batchSize` and `BatchSize` share."""
    return name.replace("_", "").lower()


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Add the name of an argument to errors about its parts.

    Args:
        name: String, name of the argument.

    Raises:
        ValueError: If the block raises one; with the prefix "In `name`: ".
        TypeError: If the block raises one; with the same prefix.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In `{name}`: {error}") from error
