"""Arguments and results of tasks as plain data, including exceptions."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.cluster.failures import NonFiniteLossError, failure_of
from kspark.errors import EnvironmentMismatchError, Failure, IncompatibleDeltaError, KSparkError
from kspark.optimizers import ServerOptimizer
from kspark.plan import Steps, TrainingPlan, shard_steps
from kspark.shards import (
    ShardFacts,
    ShardHandle,
    SpoolMissingError,
    StoredArray,
    Usage,
    is_here,
)
from kspark.worker.names import with_own_names

if TYPE_CHECKING:
    from kspark.adapters.factories import FactoryRows
    from kspark.replica import Replica

State = tuple[list[np.ndarray], list[np.ndarray]]
"""A replica's variables that are not merged: optimizer state and fixed weights."""

FINAL = (EnvironmentMismatchError, IncompatibleDeltaError)
"""Errors of kspark that would occur at every try. Spark retries tasks that fail with others."""


@dataclass(frozen=True)
class FitTask:
    """The settings of a fit that its tasks need.

    Attributes:
        fit_id: String, name of the fit, the key of replicas and state files.
        plan: `TrainingPlan`.
        num_train: Mapping from shard to its number of training rows. The rest validates.
        threads: Integer, threads that a replica may use.
        rule: `ServerOptimizer` whose replicas keep their own weights. Defaults to `None`.
        resumed: Boolean, whether the fit goes on from a checkpoint. Defaults to `False`.
        reports: Boolean, whether tasks that are connected to the driver report their progress
            within an epoch. Defaults to `False`.
        stream: `FactoryRows` that the shards train on. Defaults to `None`: their rows are on disk.
        travels: Boolean, whether results bring what the shards keep, see `KeptStates`. Defaults to
            `False`.
        kept: Mapping from shard to the epoch after which the driver has kept its state. Its task
            must find this state, or a later one. Defaults to none.
        trained: Mapping from shard to the last epoch that it has trained, if shards may skip
            epochs. Defaults to none.
    """

    fit_id: str
    plan: TrainingPlan
    num_train: dict[int, int]
    threads: int
    rule: ServerOptimizer | None = None
    resumed: bool = False
    reports: bool = False
    stream: FactoryRows | None = None
    travels: bool = False
    kept: Mapping[int, int] = field(default_factory=dict)
    trained: Mapping[int, int] = field(default_factory=dict)

    def oldest_state(self, shard: int, epoch: int) -> int:
        """Return the epoch of the oldest state from which a shard may begin an epoch.

        In a live fit, a process may have died at the end of an epoch before it saved the state.
        """
        if self.plan.straggler_timeout is not None:
            return self.trained.get(shard, self.plan.initial_epoch - 1)
        return epoch - (1 if self.plan.in_rounds else 2)

    @property
    def limited(self) -> bool:
        """Whether an epoch has a fixed number of batches."""
        return self.plan.steps_per_epoch is not None

    @property
    def alone(self) -> bool:
        """Whether a single shard trains, so that there are no metrics of others to add."""
        return len(self.workers) == 1

    @property
    def workers(self) -> list[int]:
        """The shards that train, sorted."""
        return sorted(shard for shard, rows in self.num_train.items() if rows)

    @property
    def batches_per_report(self) -> int | None:
        """Number of batches after which a shard reports; `None` to report by time.

        Together, the shards then train at most about `callbacks_every` batches between two reports.
        """
        every = self.plan.callbacks_every
        return None if every is None else -(-every // len(self.workers))

    def steps(self, shard: int) -> Steps:
        """Return which batches a shard trains in each epoch."""
        return shard_steps(self.plan, self.num_train)[shard]

    def share(self, num_examples: int) -> float:
        """Return `num_examples` as a fraction of all training examples."""
        return num_examples / sum(self.num_train.values())


@dataclass(frozen=True)
class ShardResult:
    """The result of a task for one shard: a round, a live job, an evaluation or a state.

    Attributes:
        shard: Integer.
        num_examples: Integer, number of examples that were used.
        delta: Vector, new minus old weights, or its payload (see `TrainingPlan.packing`), of a
            round. Defaults to `None`, also for a shard without examples.
        metrics: List of arrays, the metric state of a round or an evaluation. Defaults to `[]`.
        facts: `ShardFacts` of a round. Defaults to `None`.
        rest: `Usage` of a live run after its last report. Defaults to `None`.
        state: `State`, if requested. Defaults to `None`.
        counters: Tuple of integers, the `counters` of the replica after a round. Defaults to `()`.
        y: Tuple of `StoredArray`, the labels of an evaluation, as in a `ShardHandle`. Defaults to
            `()`.
        files: Dictionary of what the shard keeps for a checkpoint: the bytes of each file, by its
            kind. Defaults to `{}`.
    """

    shard: int
    num_examples: int
    delta: np.ndarray | None = None
    metrics: list[np.ndarray] = field(default_factory=list)
    facts: ShardFacts | None = None
    rest: Usage | None = None
    state: State | None = None
    counters: tuple[int, ...] = ()
    y: tuple[StoredArray, ...] = ()
    files: dict[str, np.ndarray] = field(default_factory=dict)


AWAY, GONE, STATELESS = "away", "gone", "stateless"
"""What a task lacks: it runs on another executor than the one with the shard's disk; it has the
disk, but files of the rows are gone; it has the rows, but not the state that the driver has kept.
"""


@dataclass(frozen=True)
class MissingShard:
    """The result of a task that did not find the shard's files.

    Attributes:
        shard: Integer.
        host: String, host on which the task ran.
        home: String, host on which the files were written.
        lack: String, `AWAY`, `GONE` or `STATELESS`. Defaults to `AWAY`.
    """

    shard: int
    host: str
    home: str
    lack: str = AWAY

    @property
    def strayed(self) -> bool:
        """Whether the task ran on another executor, so that the files may still exist."""
        return self.lack == AWAY

    @classmethod
    def of(cls, handle: ShardHandle, lack: str | None = None) -> MissingShard:
        """Return the result of a task here; without `lack`, the mark of the shard's disk tells."""
        lack = lack or (GONE if is_here(handle) else AWAY)
        return cls(handle.index, platform.node(), handle.host, lack)


Result = ShardResult | MissingShard | Failure


def task_number() -> int:
    """Return a number that is unique to each attempt of a task and increases; 0 without Spark.

    Spark's attempt numbers are not unique: they start again at 0 when a stage runs again, while
    tasks of its first run may still be running.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.taskAttemptId() if context is not None else 0


def guarded(shard: int, work: Callable[[], Any], handle: ShardHandle | None = None) -> Any:
    """Run a shard's work. Exceptions that would occur again are returned as values.

    Args:
        shard: Integer.
        work: Function without arguments.
        handle: `ShardHandle` that the work reads. Defaults to `None`: it reads no shard.

    Returns:
        The result of `work`, a `MissingShard`, or a `Failure`.

    Raises:
        KSparkError: If another attempt may succeed.
    """
    try:
        return work()
    except SpoolMissingError:
        return MissingShard(shard, "", "", GONE) if handle is None else MissingShard.of(handle)
    except FINAL as error:
        return with_own_names(failure_of(shard, error), error)
    except KSparkError:
        raise
    except Exception as error:  # noqa: BLE001 - Any other error is the model's.
        return with_own_names(failure_of(shard, error), error)


def facts_of(batches: int, num_examples: int, state_kept: bool, usage: Usage) -> ShardFacts:
    """Return the figures of a shard's epoch that this process trained."""
    return ShardFacts(
        socket.gethostname(),
        os.getpid(),
        batches,
        usage.seconds,
        num_examples,
        state_kept,
        usage.waiting,
        usage.bytes_sent,
        usage.bytes_received,
    )


def state_of(replica: Replica) -> State:
    """Return a replica's variables that are not merged."""
    return replica.get_optimizer_state(), replica.get_fixed()


def widened(array: np.ndarray) -> np.ndarray:
    """Return a bfloat16 or float8 array as float32, and others unchanged.

    NumPy knows these dtypes as bytes only. Keras casts float32 back to them without loss.
    """
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def training_rows(fit: FitTask, handle: ShardHandle) -> int:
    """Return the number of rows at the start of a shard that train.

    Raises:
        ValueError: If the shard has fewer rows, because it was read again and its input changed.
    """
    wanted = fit.num_train.get(handle.index, 0)
    check_unchanged(handle, wanted)
    return wanted


def check_unchanged(handle: ShardHandle, wanted: int) -> None:
    """Check that a shard has at least the rows that it had at the beginning of the fit.

    Raises:
        ValueError: If it has fewer, because it was read again and its input changed.
    """
    if handle.is_streamed:
        return
    if handle.num_examples < wanted:
        raise ValueError(
            f"Partition {handle.index} was read again after its executor was lost, and has "
            f"{handle.num_examples} rows now, but had {wanted} rows before. The input must "
            "give the same rows each time. Persist it, or write it to a file before `fit`."
        )


def read_to_end(rows: Iterator[Any]) -> None:
    """Read the remaining rows, because Spark reuses a Python worker only after that."""
    try:
        for _ in rows:
            pass
    except (ValueError, TypeError):
        return  # These rows have been refused before.


def check_finite(replica: Replica, plan: TrainingPlan, epoch: int) -> None:
    """Check that the loss is finite, if the plan has `on_nonfinite="raise"`.

    Raises:
        NonFiniteLossError: If the loss is NaN or infinite.
    """
    if plan.on_nonfinite == "raise" and not replica.loss_is_finite():
        raise NonFiniteLossError(f"The loss is NaN or infinite in epoch {epoch + 1}.")
