"""Run one `fit` of a `SparkModel`, from checked arguments to merged weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from kspark.aggregator import Aggregator
from kspark.cluster.check import check_cluster_once, warn_of_settings
from kspark.job.callback_state import names_of_stateful
from kspark.job.callbacks import FitMonitor
from kspark.job.checkpoint_settings import settings_of
from kspark.job.checkpoints import go_on, go_on_with_callbacks, last_checkpoint
from kspark.job.fit import Fit
from kspark.job.optimizer_state import settled_model, take_state
from kspark.job.preparing import prepared
from kspark.job.progress import Phases
from kspark.job.report import FitReport
from kspark.job.vocabularies import Vocabularies
from kspark.live.driver import train_live
from kspark.optimizers import Average, ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.rounds.driver import train_rounds
from kspark.rounds.stragglers import train_rounds_with_timeout
from kspark.saving.checkpoint_folder import CheckpointFolder
from kspark.spark_model.checkpointing import Checkpointing
from kspark.spark_model.inputs import Source, TrainingData

logger = logging.getLogger("kspark")


@dataclass
class Outcome:
    """The results of earlier fits that are not in the Keras model.

    Attributes:
        server_state: Dictionary from name to array, the state of the server optimizer that
            belongs to the weights of the model.
        report: `FitReport` of the last fit, also of a failed one; `None` before the first.
    """

    server_state: dict[str, np.ndarray] = field(default_factory=dict)
    report: FitReport | None = None


def train(
    source: Source,
    plan: TrainingPlan,
    spec: ReplicaSpec,
    data: TrainingData,
    optimizer: ServerOptimizer,
    outcome: Outcome,
    callbacks: list[keras.callbacks.Callback],
    verbose: str | int,
    checkpointing: Checkpointing,
) -> keras.callbacks.History:
    """Train a model in place.

    Args:
        source: `Source` of the model and the examples.
        plan: `TrainingPlan`.
        spec: `ReplicaSpec` of the model.
        data: `TrainingData`.
        optimizer: `ServerOptimizer`. A clone of it is used.
        outcome: `Outcome` of earlier fits, from which this fit continues. It is updated, also
            if this fit fails.
        callbacks: List of `keras.callbacks.Callback`.
        verbose: As in `keras.Model.fit`.
        checkpointing: `Checkpointing`.

    Returns:
        A `keras.callbacks.History`.

    Raises:
        WorkerError: If a replica failed.
        ClusterError: If the cluster cannot run the plan.
        ValueError: If the data does not fit the model or the plan.
        OSError: If a checkpoint cannot be written or read.
    """
    outcome.report = FitReport(plan.mode, plan.frequency, server_optimizer=optimizer.name)
    replica, rule = source.replica, optimizer.clone()
    with Phases(verbose) as starting:
        starting.run_on(source.spark)
        starting.phase("Starting the workers")
        check_cluster_once(source.spark, spec.backend, starting.watch)
    warn_of_settings(source.spark, spec.backend, replica.model, once=True)
    if plan.worker_callbacks is not None:
        # They may change the replicas, which no other fit must take over then.
        spec = replace(spec, values=None)
    aggregator = Aggregator(replica.spec, replica.get_vector(), rule, plan.mode)
    take_over(rule, outcome.server_state)
    monitor = FitMonitor(replica, callbacks, verbose, plan.epochs, plan.initial_epoch)
    monitor.progress.run_on(source.spark)
    fit = Fit(
        source.spark,
        spec,
        plan,
        data.examples,
        data.held_out,
        data.validation_split,
        aggregator,
        monitor,
        monitor.progress,
    )
    fit.vocabularies = Vocabularies(replica.model)
    if checkpointing.path is not None:
        fit.checkpoints = CheckpointFolder(checkpointing.path, checkpointing.kept, source.spark)
        names = names_of_stateful(callbacks)
        fit.settings = settings_of(replica.model, spec, plan, rule, checkpointing.seed, names)
    with monitor.progress:
        if plan.initial_epoch < plan.epochs:
            try:
                run(fit, checkpointing.resume)
                fit.rule_state = aggregator.rule_state()
            finally:
                outcome.report = fit.report
                if fit.rule_state is not None:
                    outcome.server_state = dict(fit.rule_state)
        else:
            monitor.begin(steps=0)
            monitor.end()
    return monitor.history


def take_over(rule: ServerOptimizer, state: Mapping[str, np.ndarray]) -> None:
    """Give a rule the state of an earlier fit, or warn if that state does not fit."""
    if not state:
        return
    try:
        rule.set_state(state)
    except ValueError as error:
        logger.warning(
            "The server optimizer starts without state: the state of the earlier fit belongs to "
            "another rule, or to other trainable weights than the model has now. %s",
            error,
        )


def run(fit: Fit, resume: bool) -> None:
    """Train until the aggregator and the monitor's model have the weights of the last epoch.

    Args:
        fit: `Fit`.
        resume: Boolean, whether to go on from the last checkpoint.

    Raises:
        WorkerError: If a replica failed.
        ClusterError: If the cluster cannot run the plan.
        ValueError: If the data does not fit the model or the plan.
    """
    with last_checkpoint(fit, resume) as saved, prepared(fit):
        if saved is not None and fit.checkpoints is not None:
            go_on(fit, fit.checkpoints, saved)
        begin(fit)
        if saved is not None:
            go_on_with_callbacks(fit, saved)
        over = saved is not None and saved.content["stopped"]
        if fit.plan.initial_epoch < fit.plan.epochs and not over:
            with settled_model(fit):
                road_of(fit.plan)(fit)
        elif saved is not None:  # The fit was over when it wrote this checkpoint.
            take_state(fit, (), fit.plan.initial_epoch - 1)
        fit.monitor.end()


def begin(fit: Fit) -> None:
    """Run the callbacks for the start of a fit, and apply their changes of weights and epoch."""
    fit.shown_counters = fit.monitor.replica.counters
    changed = fit.monitor.begin(fit.steps, fit.validation_steps)
    if changed is not None:
        fit.aggregator.replace(changed)
    if fit.monitor.restored:
        fit.share(fit.spec.renewed(fit.monitor.replica.model))
        fit.shown_counters = fit.monitor.replica.counters
    origin = fit.plan.origin
    fit.plan = replace(fit.plan, initial_epoch=fit.monitor.initial_epoch, first_epoch=origin)
    keep_constraints(fit)


def keep_constraints(fit: Fit) -> None:
    """Apply the model's constraints after each merge, unless merges change nothing.

    The average of one worker is its own weights, to which Keras has applied the constraints. To
    apply them again would change the result if they move weights only a part of the way, as
    `MinMaxNorm(rate=0.5)` does.
    """
    project = fit.monitor.replica.projection
    alone = fit.workload.num_workers == 1 and fit.plan.compression is None
    if project is not None and not (alone and type(fit.aggregator.optimizer) is Average):
        fit.aggregator.keep_constraints(project)


def road_of(plan: TrainingPlan) -> Callable[[Fit], None]:
    """Return the function that trains: in rounds (one Spark job per epoch), or live (a server)."""
    if not plan.in_rounds:
        return train_live
    return train_rounds if plan.straggler_timeout is None else train_rounds_with_timeout
