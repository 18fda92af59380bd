"""One fit from spooled examples to merged weights, over either road."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.aggregator import Aggregator
from kspark.bootstrap import Shipped, ship
from kspark.callbacks import FitMonitor
from kspark.errors import NotEnoughSlotsError, inside, invalid
from kspark.job.engine import Shared, engine_of
from kspark.job.optimizer_state import take_state
from kspark.job.sent_weights import SentWeights
from kspark.job.shard_results import collect_shards, never
from kspark.job.slots import task_slots, threads_per_task
from kspark.job.spooling import SpooledExamples
from kspark.labels import check_labels
from kspark.plan import TrainingPlan, divide_validation
from kspark.replica import ReplicaSpec
from kspark.report import EpochFacts, FitReport, Workload
from kspark.worker import inference as inference_worker
from kspark.worker.inference import InferenceTask
from kspark.worker.results import FitTask, RoundResult

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
        num_workers: Integer or `None`.
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
    num_workers: int | None = None
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

    def collect(self, spooled: SpooledExamples, task: Shipped, what: str) -> list[RoundResult]:
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


@contextmanager
def prepared(job: Fit) -> Iterator[None]:
    """Spool the examples and share the model; everything is gone afterwards."""
    with ExitStack() as stack:
        job.train = stack.enter_context(
            SpooledExamples(job.spark, placed(job, job.examples), job.fit_id)
        )
        if job.validation is not None:
            spooled = SpooledExamples(job.spark, job.validation, f"{job.fit_id}-validation")
            with inside("validation_data"):
                job.held_out = stack.enter_context(spooled)
        divide(job)
        job.share(job.spec)
        stack.callback(job.unshare)
        job.sent_weights = SentWeights(engine_of(job.spark), job.spec.weights)
        stack.callback(job.sent_weights.close)
        job.monitor.replica.prepare_metrics(job.train.infos)
        yield


def placed(job: Fit, examples: Examples) -> Examples:
    """The examples in as many partitions as there shall be workers.

    Raises:
        NotEnoughSlotsError: If workers that need each other cannot all run at once.
    """
    wanted = job.num_workers
    if job.plan.at_the_same_time:
        slots = task_slots(job.spark)
        if wanted is None:
            wanted = min(slots, max(examples.num_partitions, 1))
        if wanted > slots:
            raise NotEnoughSlotsError(
                f"{cause(job.plan)} runs all workers at the same time: `num_workers` is {wanted}, "
                f"but the cluster has {slots} free task slots. Use fewer workers, or raise "
                "spark.executor.instances or "
                'spark.executor.cores; mode="synchronous" with frequency="epoch" runs with any '
                "number of slots, without a `straggler_timeout`."
            )
    if wanted is None or wanted == examples.num_partitions:
        return examples
    return examples.repartition(wanted)


def cause(plan: TrainingPlan) -> str:
    """What makes all workers run at the same time, for a message."""
    if plan.straggler_timeout is not None:
        return f"straggler_timeout={plan.straggler_timeout:g}"
    return f'mode="{plan.mode}" with frequency={plan.frequency!r}'


def divide(job: Fit) -> None:
    """Which rows train and which validate; and whether the labels fit the model.

    Raises:
        ValueError: If there is nothing to train on, or nothing to validate on.
    """
    counts = job.train.counts
    total = sum(counts.values())
    if not total:
        raise invalid("x", "a data set with at least one example", f"{total} examples")
    job.num_train = divide_validation(counts, job.validation_split)
    if not job.num_examples or (job.validation_split and job.num_examples == total):
        rule = f"a fraction that leaves rows on both sides of {total} examples"
        raise invalid("validation_split", rule, job.validation_split)
    if job.held_out is not None and not job.held_out.num_examples:
        raise invalid("validation_data", "a data set with at least one example", "0 examples")
    check_labels(job.monitor.replica.model, job.train.infos)
    if job.held_out is not None:
        with inside("validation_data"):
            check_labels(job.monitor.replica.model, job.held_out.infos)
    log_plan(job)


def log_plan(job: Fit) -> None:
    """Tell how the work is divided, once per fit."""
    counts, plan = [n for n in job.num_train.values() if n], job.plan
    logger.info("Training on %s; mode %s, frequency %s.", job.workload, plan.mode, plan.frequency)
    if plan.scaling is not None:
        logger.info(
            "Learning rate times %.4g (%s), after %g epochs of warm-up.",
            plan.scaling.full_factor(len(counts)),
            plan.scaling.rule,
            plan.scaling.warmup_epochs,
        )
    if plan.straggler_timeout is not None and (
        len(counts) < 3 or job.last_epoch(plan.initial_epoch)
    ):
        logger.warning(
            "straggler_timeout has nothing to do: no more than half of the shards can be late, "
            "and the last round waits for all; there are %d shards and %d epochs to train.",
            len(counts),
            plan.epochs - plan.initial_epoch,
        )
    if min(counts) * 2 < max(counts):
        logger.warning(
            "The shards are uneven: from %d to %d examples. Repartition the data, or set "
            "`num_workers`, for even work.",
            min(counts),
            max(counts),
        )


def validate(job: Fit, epoch: int) -> dict[str, float]:
    """Metrics of the merged model on the validation rows, or nothing if it is not their turn."""
    if not job.validates or not job.plan.validates(epoch):
        return {}
    held_out, skip = job.train, job.num_train
    if job.held_out is not None:
        held_out, skip = job.held_out, {}
    task = InferenceTask(job.fit_id, job.plan.batch_size, threads_per_task(job.spark), skip)
    weights = job.monitor.begin_validation(job.aggregator.weights)
    with job.sent_weights.share(weights) as (vector, _):
        shipped = ship(inference_worker.evaluate_shards, task, shared=(job.shared_spec, vector))
        results = job.collect(held_out, shipped, f"kspark: validate epoch {epoch + 1}")
    return job.monitor.end_validation([r.metrics for r in results])


def open_epoch(job: Fit, epoch: int) -> None:
    """Callbacks of an epoch that is about to begin; it starts from the weights they leave."""
    changed = job.monitor.begin_epoch(epoch)
    if changed is not None:
        job.aggregator.replace(changed)


def note_epoch(job: Fit, facts: EpochFacts) -> None:
    """Keep an epoch's figures, and tell of optimizer state that is lost."""
    job.epochs.append(facts)
    anew = [worker["shard"] for worker in facts.workers if not worker.get("state_kept", True)]
    if anew:
        logger.warning(
            "Epoch %d: the hosts that kept the optimizer state of shards %s are gone. These "
            "shards went on from the merged weights, with the optimizer state of the fit's start.",
            facts.epoch + 1,
            anew,
        )


def note_rest(job: Fit, results: Sequence[RoundResult]) -> None:
    """Add what the workers of a live job did after their last report to its last epoch."""
    job.epochs[-1] = job.epochs[-1].with_rest({r.shard: r.facts for r in results})


def close_epoch(
    job: Fit, epoch: int, metrics: Sequence[list[np.ndarray]], num_examples: int
) -> bool:
    """Logs, validation and callbacks of an epoch whose weights are merged.

    Args:
        job: `Fit`.
        epoch: Integer.
        metrics: Sequence of the metric states of the shards that were merged.
        num_examples: Integer, examples that these trained on.

    Returns:
        Boolean, whether training shall stop.
    """
    logs = job.monitor.logs_of(metrics)
    if job.monitor.needs_optimizer_state:
        take_state(job, [], epoch)
    job.rule_state = job.aggregator.rule_state()
    logs |= validate(job, epoch)
    changed = job.monitor.end_epoch(epoch, job.aggregator.weights, logs, num_examples)
    if changed is not None:
        job.aggregator.replace(changed)
    return job.monitor.stopped or job.last_epoch(epoch)
