"""`Fit`: the state of one fit on the driver, for both roads."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.adapters.factories import FactoryRows
from kspark.aggregator import Aggregator
from kspark.cluster.bootstrap import Shipped
from kspark.cluster.engine import Shared, engine_of
from kspark.cluster.slots import threads_per_task
from kspark.cluster.spark_job import Watch
from kspark.job.callbacks import FitMonitor
from kspark.job.collecting import collect_shards, not_busy
from kspark.job.kept_states import KeptStates
from kspark.job.progress import Progress
from kspark.job.report import EpochFacts, FitReport, Workload
from kspark.job.sent_weights import SentWeights
from kspark.job.spooling import ShardsOnDisk, SpooledExamples, Unmixed
from kspark.job.vocabularies import Vocabularies
from kspark.optimizers import OneShot
from kspark.plan import TrainingPlan, shard_steps
from kspark.replica import ReplicaSpec
from kspark.saving.checkpoint_folder import CheckpointFolder
from kspark.shards import LearningRate, num_batches
from kspark.worker.inference import InferenceTask
from kspark.worker.tasks import FitTask, ShardResult

logger = logging.getLogger("kspark")


@dataclass
class Fit:
    """The state of one fit.

    Attributes:
        spark: `SparkSession`.
        spec: `ReplicaSpec`, the model as plain data.
        plan: `TrainingPlan`.
        examples: `Examples` to train on.
        validation: `Examples` to validate on, or `None`.
        validation_split: Float, fraction of the examples that is held out for validation.
        aggregator: `Aggregator` that holds the global weights.
        monitor: `FitMonitor` of the driver's model.
        progress: `Progress` that shows it. Defaults to a silent one.
        fit_id: String that names the fit's files and the state of its replicas.
        epochs: List of `EpochFacts`, one per trained epoch.
        rule_state: Mapping, the state of the server optimizer at the end of the last closed
            epoch, which belongs to the weights of the driver's model. `None` before the first.
        train: `ShardsOnDisk` to train on: `SpooledExamples`, or the mixed shards of a period.
        unmixed: `Unmixed`, the examples from which rows are mixed; `None` if they stay in their
            shards.
        stream: `FactoryRows` that the shards train on; `None` if their rows are on disk.
        held_out: `SpooledExamples` of `validation`, or `None`.
        num_train: Dictionary from shard to its number of training examples.
        states: `KeptStates`, the states of shards that move or whose executor goes.
        shared_spec: `Shared`, the broadcast `spec`; `None` while it is not shared.
        vocabularies: `Vocabularies` that the workers have; `None` to ignore changes.
        sent_weights: `SentWeights`, which shares the weights with the jobs.
        state_counters: Tuple of integers, the `counters` of the optimizer state that the driver's
            model has. `None` before training begins.
        shown_counters: Tuple of integers, the `counters` that callbacks saw last. Empty before
            training begins.
        new_counters: Tuple of integers, the `counters` that a callback has set for the epoch that
            begins, or `None`.
        busy: Function that returns whether late shards occupy task slots.
        late_shards: Function that returns the shards that still train an earlier epoch.
        road: String, `"rounds"` or `"live"`, see `FitReport`. Empty before that is decided.
        road_reason: String, a sentence that says why.
        checkpoints: `CheckpointFolder`, or `None` to write no checkpoints.
        settings: Dictionary of JSON data, what a checkpoint and the fit that goes on from it must
            have in common.
        resumed: Boolean, whether the fit goes on from a checkpoint.
        reply_residual: Vector, what the compression of mean gradients has left over on the driver,
            or `None`.
        keep_live: Function of an epoch that fetches the files of all shards from tasks that run
            already, see `evaluate_live`.
        evaluate_live: Function of a vector of weights that evaluates the validation examples in
            tasks that run already, and returns the results by shard; or `None` if there are no
            such tasks.
    """

    spark: SparkSession
    spec: ReplicaSpec
    plan: TrainingPlan
    examples: Examples
    validation: Examples | None
    validation_split: float
    aggregator: Aggregator
    monitor: FitMonitor
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0))
    fit_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    epochs: list[EpochFacts] = field(default_factory=list)

    rule_state: Mapping[str, np.ndarray] | None = field(init=False, default=None)
    state_counters: tuple[int, ...] | None = field(init=False, default=None)
    shown_counters: tuple[int, ...] = field(init=False, default=())
    new_counters: tuple[int, ...] | None = field(init=False, default=None)
    train: ShardsOnDisk = field(init=False)
    unmixed: Unmixed | None = field(init=False, default=None)
    stream: FactoryRows | None = field(init=False, default=None)
    held_out: SpooledExamples | None = field(init=False, default=None)
    num_train: dict[int, int] = field(init=False, default_factory=dict)
    states: KeptStates = field(init=False)
    shared_spec: Shared | None = field(init=False, default=None)
    vocabularies: Vocabularies | None = field(init=False, default=None)
    sent_weights: SentWeights = field(init=False)
    busy: Callable[[], bool] = field(init=False, default_factory=lambda: not_busy)
    late_shards: Callable[[], frozenset[int]] = field(init=False, default_factory=lambda: frozenset)
    road: str = field(init=False, default="")
    road_reason: str = field(init=False, default="")
    checkpoints: CheckpointFolder | None = field(init=False, default=None)
    settings: dict[str, Any] = field(init=False, default_factory=dict)
    resumed: bool = field(init=False, default=False)
    reply_residual: np.ndarray | None = field(init=False, default=None)
    keep_live: Callable[[int], list[ShardResult] | None] = field(
        init=False, default_factory=lambda: no_live_tasks
    )
    evaluate_live: Callable[[np.ndarray], list[ShardResult] | None] = field(
        init=False, default_factory=lambda: no_live_tasks
    )

    def __post_init__(self) -> None:
        in_step = self.plan.mode == "synchronous"
        self.states = KeptStates(self.spark, self.fit_id, in_step)

    def task(self) -> FitTask:
        """Return what the tasks need of the fit."""
        rule = self.aggregator.optimizer
        own = rule.clone() if rule.keeps_replica_weights else None
        threads, reports = threads_per_task(self.spark), self.progress.display.moves
        return FitTask(
            self.fit_id,
            self.plan,
            self.num_train,
            threads,
            own,
            self.resumed,
            reports,
            self.stream,
            self.states.travels,
            dict(self.states.epochs),
            dict(self.states.trained),
        )

    def validation_task(self) -> InferenceTask:
        """Return what the tasks need to evaluate the validation examples.

        Without examples of their own, these are the last examples of each shard as it was spooled.
        """
        skipped = {} if self.held_out is not None else self.divided
        rows, size = self.validation_rows(), self.plan.validation_batch_size
        threads, alone = threads_per_task(self.spark), sum(map(bool, rows.values())) == 1
        return InferenceTask(self.fit_id, size, threads, skipped, rows, alone)

    def validation_rows(self) -> dict[int, int]:
        """Return the number of rows of each shard to validate on."""
        skipped = {} if self.held_out is not None else self.divided
        counts = sorted(self.validating.counts.items())
        rows = {shard: n - skipped.get(shard, 0) for shard, n in counts}
        count = self.plan.validation_rows
        return rows if count is None else first_rows(rows, count)

    @property
    def validating(self) -> ShardsOnDisk:
        """The shards whose last rows validate; all rows, if the user gave them for it."""
        if self.held_out is not None:
            return self.held_out
        return self.train if self.unmixed is None else self.unmixed.shards

    @property
    def divided(self) -> dict[int, int]:
        """Dictionary from shard, as spooled, to the number of rows at its start that train."""
        return self.num_train if self.unmixed is None else self.unmixed.num_train

    def examples_of(self, epoch: int) -> int:
        """Return the number of examples that all shards together train in an epoch.

        0 if the rows come from a function of the user and nobody knows their number.
        """
        steps, number = shard_steps(self.plan, self.num_train), epoch - self.plan.origin
        return sum(one.num_examples(number) for one in steps.values())

    @property
    def num_examples(self) -> int:
        """Number of training examples in all shards."""
        return sum(self.num_train.values())

    @property
    def validates(self) -> bool:
        """Whether there are validation examples."""
        return self.held_out is not None or self.validating.num_examples > self.num_examples

    @property
    def steps(self) -> int:
        """Number of steps of an epoch: `steps_per_epoch`, or batches of the largest shard.

        With `callbacks_every`, these are the batches of all shards. If nobody knows the number
        before, it is that of the last epoch, and 0 in the first one.
        """
        if self.plan.streams and not self.plan.steps_per_epoch:
            return max((worker["batches"] for worker in self.last_workers), default=0)
        if self.plan.callbacks_every is not None:
            return sum(one.batches for one in shard_steps(self.plan, self.num_train).values())
        return self.plan.steps_per_epoch or self.plan.batches(max(self.num_train.values()))

    @property
    def validation_steps(self) -> int:
        """Number of batches of the largest shard in a validation; 0 without one."""
        largest = max(self.validation_rows().values(), default=0)
        return num_batches(largest, self.plan.validation_batch_size)

    @property
    def last_workers(self) -> Sequence[Mapping[str, Any]]:
        """The figures of the workers in the last epoch; none before."""
        return self.epochs[-1].workers if self.epochs else ()

    def weight_of(self, result: ShardResult) -> int:
        """Return the number of examples that a shard has trained in the epoch of a result."""
        if self.stream is None:
            return self.num_train[result.shard]
        if result.facts is not None:
            return result.num_examples
        trained = {worker["shard"]: worker["num_examples"] for worker in self.last_workers}
        return int(trained.get(result.shard, 1))

    @property
    def report(self) -> FitReport:
        """The report on the epochs so far."""
        work = self.workload if any(self.num_train.values()) else None
        plan, rule, epochs = self.plan, self.aggregator.optimizer.name, tuple(self.epochs)
        road = (self.road, self.road_reason)
        return FitReport(plan.mode, plan.frequency, epochs, work, *road, server_optimizer=rule)

    def take_road(self, road: str, reason: str) -> None:
        """Note which road the fit takes, and why.

        Args:
            road: String, `"rounds"` or `"live"`.
            reason: String, a sentence.
        """
        self.road, self.road_reason = road, reason
        logger.info("Road: %s. %s", road, reason)

    @property
    def workload(self) -> Workload:
        """Examples, workers and updates of an epoch; of the last one if they were not known."""
        plan, steps = self.plan, shard_steps(self.plan, self.num_train).values()
        batches, examples = [one.batches for one in steps], [one.num_examples(0) for one in steps]
        by_worker: tuple[int, ...] = ()
        if plan.streams and (self.last_workers or plan.steps_per_epoch is None):
            batches = [worker["batches"] for worker in self.last_workers] or [0]
            by_worker = tuple(worker["num_examples"] for worker in self.last_workers)
            examples = list(by_worker)
        updates = plan.updates(batches)
        if isinstance(self.aggregator.optimizer, OneShot):
            updates = 0
        return Workload(sum(examples), len(steps), plan.batch_size, updates, by_worker)

    def learning_rate(self, epoch: int) -> LearningRate:
        """Return the learning rate that the workers use in an epoch, scaled if `fit` asks for it.

        The driver's model, its callbacks and the files that they save keep the unscaled rate,
        so that no rate is scaled twice.

        Returns:
            `LearningRate`. Schedules are not scaled; see `check_schedule`.
        """
        rate, scaling = self.monitor.learning_rate, self.plan.scaling
        if rate is None or scaling is None:
            return rate
        factor = scaling.factor(self.workload.num_workers, epoch)
        if isinstance(rate, tuple):
            return tuple(None if one is None else one * factor for one in rate)
        return rate * factor

    def collect(
        self, spooled: ShardsOnDisk, task: Shipped, description: str, watch: Watch
    ) -> list[ShardResult]:
        """Run a task on all shards of `spooled`; see `collect_shards`."""
        failures = self.plan.max_failures
        return collect_shards(
            self.spark, spooled, task, description, failures, self.busy, watch=watch
        )

    def share(self, spec: ReplicaSpec) -> None:
        """Broadcast the model, instead of an earlier one."""
        self.unshare()
        self.spec, self.shared_spec = spec, engine_of(self.spark).share(spec)

    def unshare(self) -> None:
        """Remove the broadcast model from the executors."""
        if self.shared_spec is not None:
            self.shared_spec.destroy()
            self.shared_spec = None

    def last_epoch(self, epoch: int) -> bool:
        """Whether an epoch is the last one of the plan."""
        return epoch + 1 >= self.plan.epochs


def first_rows(rows: Mapping[int, int], count: int) -> dict[int, int]:
    """Return how many rows of each shard are among the first `count` rows of all shards."""
    found = {}
    for shard, n in rows.items():
        found[shard] = min(n, count)
        count -= found[shard]
    return found


def no_live_tasks(work: Any) -> list[ShardResult] | None:
    """The default of `Fit.evaluate_live` and `keep_live`: no task runs between two jobs."""
    return None
