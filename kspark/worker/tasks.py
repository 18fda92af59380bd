"""What goes into a task and what comes back: plain data, and exceptions as plain data."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.cluster.failures import NonFiniteLossError, failure_of
from kspark.errors import EnvironmentMismatchError, Failure, IncompatibleDeltaError, KSparkError
from kspark.optimizers import ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.shards import (
    ShardFacts,
    ShardHandle,
    SpoolMissingError,
    StoredArray,
    Usage,
    Window,
)

if TYPE_CHECKING:
    from kspark.replica import Replica

State = tuple[list[np.ndarray], list[np.ndarray]]
"""What a replica keeps beside its merged weights: optimizer state and fixed weights."""

FINAL = (EnvironmentMismatchError, IncompatibleDeltaError)
"""Errors of kspark's own that come again at every try. All others fail the task: Spark retries."""


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


@dataclass(frozen=True)
class ShardResult:
    """What work on one shard brought: a round, a live job, an evaluation, or fetching its state.

    Attributes:
        shard: Integer.
        num_examples: Integer, examples that the work was on.
        delta: Vector, new minus old, or its payload (see `TrainingPlan.packing`); `None`
            when the shard has no examples, and of all but a round.
        metrics: List of arrays, the metric state of an epoch in rounds or of an evaluation.
        facts: `ShardFacts` of a round; `None` of all other results.
        rest: `Usage` of a live run since its last report; `None` of all other results.
        state: `State`, if asked for.
        y: What the labels look like, from an evaluation; as in a `ShardHandle`.
    """

    shard: int
    num_examples: int
    delta: np.ndarray | None = None
    metrics: list[np.ndarray] = field(default_factory=list)
    facts: ShardFacts | None = None
    rest: Usage | None = None
    state: State | None = None
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


Result = ShardResult | MissingShard | Failure


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


def facts_of(batches: int, num_examples: int, state_kept: bool, usage: Usage) -> ShardFacts:
    """Figures of one shard's epoch, which this process has trained."""
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


def weighted(window: Window, plan: TrainingPlan) -> Window:
    """The window with class weights turned into sample weights."""
    if plan.class_weight is None:
        return window
    return window.with_class_weight(plan.class_weight)


def check_finite(replica: Replica, plan: TrainingPlan, epoch: int) -> None:
    """Stop at a loss that is NaN or infinite.

    Raises:
        NonFiniteLossError: If it is and the plan says to raise.
    """
    if plan.on_nonfinite == "raise" and not replica.loss_is_finite():
        raise NonFiniteLossError(f"The loss is NaN or infinite in epoch {epoch + 1}.")
