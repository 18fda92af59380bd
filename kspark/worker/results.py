"""What goes into a task and what comes back: plain data, and exceptions as plain data."""

from __future__ import annotations

import json
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import (
    EnvironmentMismatchError,
    Failure,
    IncompatibleDeltaError,
    KSparkError,
)
from kspark.optimizers import ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.shards import ShardHandle, SpoolMissingError, StoredArray

if TYPE_CHECKING:
    from kspark.replica import Replica

NON_FINITE = "NonFiniteLoss"
WORKER_LOST = "WorkerLost"
UNFIT_LABELS = "UnfitLabels"

FINAL = (EnvironmentMismatchError, IncompatibleDeltaError)
"""Errors of kspark's own that come again at every try. All others fail the task: Spark retries."""

MAX_MESSAGE = 20_000
MAX_TRACEBACK = 100_000
"""Characters; TensorFlow tells whole graphs. A failure has to fit into one report."""


@dataclass(frozen=True)
class FitTask:
    """One fit as its tasks see it.

    Attributes:
        fit_id: String, names the fit; replicas and state files are keyed by it.
        plan: `TrainingPlan`.
        num_train: Mapping from shard to its training examples; the rest validates.
        threads: Integer, threads a replica may use.
        rule: `ServerOptimizer` whose replicas keep weights of their own, else `None`.
    """

    fit_id: str
    plan: TrainingPlan
    num_train: dict[int, int]
    threads: int
    rule: ServerOptimizer | None = None

    def share(self, num_examples: int) -> float:
        """The part of all training examples that so many are."""
        return num_examples / sum(self.num_train.values())


@dataclass
class RoundResult:
    """What one shard's training brought.

    Attributes:
        shard: Integer.
        num_examples: Integer, examples trained on.
        delta: Vector, new minus old, or its payload (see `TrainingPlan.packing`); `None`
            when the shard has no examples.
        metrics: List of arrays, the metric state of the epoch.
        facts: Figures of the run: seconds, host, process, batches; of a live run, seconds and
            bytes since its last report.
        state: `(optimizer state, fixed weights)`, if asked for.
        y: What the labels look like, from an evaluation; as in a `ShardHandle`.
    """

    shard: int
    num_examples: int
    delta: np.ndarray | None = None
    metrics: list[np.ndarray] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    state: tuple[list[np.ndarray], list[np.ndarray]] | None = None
    y: tuple[StoredArray, ...] = ()


@dataclass(frozen=True)
class MissingShard:
    """The task ran on a host that does not have the shard's files.

    Attributes:
        shard: Integer.
        host: String, where the task ran.
        home: String, where the files were written.
    """

    shard: int
    host: str
    home: str

    @property
    def strayed(self) -> bool:
        """Whether the files may be where they were: only the task is not."""
        return self.host != self.home


Result = RoundResult | MissingShard | Failure


class UnfitLabelsError(ValueError):
    """The labels of rows that are read once do not fit the model's loss."""


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite."""


def task_attempt() -> int:
    """Spark's attempt number of the running task; 0 outside of Spark."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.attemptNumber() if context is not None else 0


def task_number() -> int:
    """A number that no other attempt of any task has, and that goes up; 0 outside of Spark.

    Attempt numbers do not: a stage that is run again counts them anew, while tasks of
    its first run may still be at work.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.taskAttemptId() if context is not None else 0


def guarded(shard: int, work: Callable[[], Any], home: str = "") -> Any:
    """Run a shard's work; exceptions that would only come again come back as values.

    Args:
        shard: Integer.
        work: Called without arguments.
        home: String, the host that the shard's files were written on.

    Raises:
        KSparkError: If another attempt may go better.
    """
    try:
        return work()
    except SpoolMissingError:
        return MissingShard(shard, platform.node(), home)
    except FINAL as error:
        return failure_of(shard, error)
    except KSparkError:
        raise
    except Exception as error:  # noqa: BLE001 - a task's outermost frame: the rest is the model's
        return failure_of(shard, error)


def failure_of(shard: int, error: BaseException) -> Failure:
    """An exception as plain data."""
    told_as: dict[type[BaseException], str] = {
        NonFiniteLossError: NON_FINITE,
        UnfitLabelsError: UNFIT_LABELS,
    }
    kind = told_as.get(type(error), type(error).__qualname__)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    told = "".join(lines[-40:])[-MAX_TRACEBACK:]
    message = str(error)[:MAX_MESSAGE]
    return Failure(shard, socket.gethostname(), task_attempt(), kind, message, told)


def failure_json(shard: int, error: BaseException) -> bytes:
    """A failure where a shard handle is expected; `ShardHandle.from_json` is not for it."""
    return json.dumps({"failure": asdict(failure_of(shard, error))}).encode()


def lost_too_often(shard: int, tries: int) -> Failure:
    """The failure for a shard whose process keeps dying."""
    message = (
        f"The Python worker process ended {tries} times before this shard was trained: it was "
        "killed (for memory, or because another worker failed), or the model's code ended it."
    )
    return Failure(shard, socket.gethostname(), task_attempt(), WORKER_LOST, message, "")


def facts_of(started: float, batches: int, **more: Any) -> dict[str, Any]:
    """Figures of one shard's epoch."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "batches": batches,
        "seconds": time.perf_counter() - started,
        **more,
    }


def state_of(replica: Replica) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a replica keeps beside its merged weights."""
    return replica.get_optimizer_state(), replica.get_fixed()


def training_rows(fit: FitTask, handle: ShardHandle) -> int:
    """How many rows of a shard train, the first ones.

    Raises:
        ValueError: If the shard has fewer: it was read again, and other rows came.
    """
    wanted = fit.num_train.get(handle.index, 0)
    if handle.num_examples < wanted:
        raise ValueError(
            f"Partition {handle.index} was read again after its executor was lost, and has "
            f"{handle.num_examples} rows now; it trained on {wanted} before. The same input must "
            "give the same rows each time: persist it, or write it to a file before `fit`."
        )
    return wanted


def read_to_end(rows: Iterator[Any]) -> None:
    """Read what is left, whatever it is: Spark reuses a Python worker only after that."""
    try:
        for _ in rows:
            pass
    except (ValueError, TypeError):
        return  # the same rows were refused already
