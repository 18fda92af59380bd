"""One fit from spooled examples to merged weights, over either road."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.aggregator import Aggregator
from kspark.cluster.bootstrap import Shipped
from kspark.cluster.engine import Shared, engine_of
from kspark.cluster.slots import threads_per_task
from kspark.job.callbacks import FitMonitor
from kspark.job.collecting import collect_shards, never
from kspark.job.report import EpochFacts, FitReport, Workload
from kspark.job.sent_weights import SentWeights
from kspark.job.spooling import SpooledExamples
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.worker.tasks import FitTask, ShardResult

logger = logging.getLogger("kspark")


@dataclass
class Fit:
    """What one fit works with.

    Attributes:
        spark: `SparkSession`.
        spec: `ReplicaSpec`, the model as plain data.
        plan: `TrainingPlan`.
        examples: `Examples` to train on.
        validation: `Examples` to validate on, or `None`.
        validation_split: Float, part of every shard that validates instead of training.
        aggregator: `Aggregator` that holds the global weights.
        monitor: `FitMonitor`.
        busy: Function, whether late shards of an earlier round are at work.
        under_way: Function, the shards that have not brought what they last began.
        epochs: List of `EpochFacts`, one per epoch that is trained.
        rule_state: Mapping, the server optimizer's state that goes with the model's weights, those
            of the last epoch that was closed; `None` before the first.
    """

    spark: SparkSession
    spec: ReplicaSpec
    plan: TrainingPlan
    examples: Examples
    validation: Examples | None
    validation_split: float
    aggregator: Aggregator
    monitor: FitMonitor
    fit_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    epochs: list[EpochFacts] = field(default_factory=list)

    rule_state: Mapping[str, np.ndarray] | None = field(init=False, default=None)
    train: SpooledExamples = field(init=False)
    held_out: SpooledExamples | None = field(init=False, default=None)
    num_train: dict[int, int] = field(init=False, default_factory=dict)
    shared_spec: Shared | None = field(init=False, default=None)
    sent_weights: SentWeights = field(init=False)
    busy: Callable[[], bool] = field(init=False, default_factory=lambda: never)
    under_way: Callable[[], frozenset[int]] = field(init=False, default_factory=lambda: frozenset)

    def task(self) -> FitTask:
        """The fit as its tasks see it."""
        rule = self.aggregator.optimizer
        own = rule.clone() if rule.keeps_replica_weights else None
        threads = threads_per_task(self.spark)
        return FitTask(self.fit_id, self.plan, self.num_train, threads, own)

    @property
    def num_examples(self) -> int:
        """Training examples of all shards."""
        return sum(self.num_train.values())

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate on."""
        return self.held_out is not None or self.train.num_examples > self.num_examples

    @property
    def report(self) -> FitReport:
        """What there is to tell of the epochs so far."""
        work = self.workload if any(self.num_train.values()) else None
        return FitReport(self.plan.mode, self.plan.frequency, tuple(self.epochs), work)

    @property
    def workload(self) -> Workload:
        """How much work there is in an epoch, and for how many workers."""
        plan, counts = self.plan, [n for n in self.num_train.values() if n]
        exchanges = [plan.exchanges(n) for n in counts]
        updates = max(exchanges) if plan.mode == "synchronous" else sum(exchanges)
        return Workload(sum(counts), len(counts), plan.batch_size, updates)

    def learning_rate(self, epoch: int) -> float | None:
        """What an epoch is trained with: the model's own learning rate, scaled if it shall be.

        Only workers know of the scaled one. The driver's model, its callbacks and what they
        save keep the one for a single worker, so that nothing is ever scaled twice.

        Returns:
            Float, or `None` if a schedule decides.
        """
        rate, scaling = self.monitor.learning_rate, self.plan.scaling
        if rate is None or scaling is None:
            return rate
        return rate * scaling.factor(self.workload.num_workers, epoch)

    def collect(self, spooled: SpooledExamples, task: Shipped, what: str) -> list[ShardResult]:
        """Results of a task on all shards of `spooled`; see `collect_shards`."""
        failures = self.plan.max_failures
        return collect_shards(self.spark, spooled, task, what, failures, self.busy)

    def share(self, spec: ReplicaSpec) -> None:
        """Broadcast the model, in the place of an earlier one."""
        self.unshare()
        self.spec, self.shared_spec = spec, engine_of(self.spark).share(spec)

    def unshare(self) -> None:
        """Take the broadcast model back."""
        if self.shared_spec is not None:
            self.shared_spec.destroy()
            self.shared_spec = None

    def last_epoch(self, epoch: int) -> bool:
        """Whether no epoch follows by plan."""
        return epoch + 1 >= self.plan.epochs
