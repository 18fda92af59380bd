"""One `fit` of a `SparkModel`: from arguments that are checked to weights that are merged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from kspark.aggregator import Aggregator
from kspark.cluster.check import check_cluster_once
from kspark.job.callbacks import FitMonitor
from kspark.job.fit import Fit
from kspark.job.preparing import prepared
from kspark.job.report import FitReport
from kspark.live.driver import train_live
from kspark.optimizers import ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.rounds.driver import train_rounds
from kspark.rounds.stragglers import train_rounds_with_timeout
from kspark.spark_model.inputs import Source, TrainingData

logger = logging.getLogger("kspark")


@dataclass
class Outcome:
    """What the fits so far have left beside the trained model, the last one also if it failed.

    Attributes:
        server_state: Dictionary, the state of the server optimizer.
        report: `FitReport` of the last fit, or `None`.
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
) -> keras.callbacks.History:
    """Train the source's model; afterwards it holds the merged weights.

    Args:
        source: `Source` of the examples.
        plan: `TrainingPlan`.
        spec: `ReplicaSpec` of the model.
        data: `TrainingData`.
        optimizer: `ServerOptimizer`; a clone of it works.
        outcome: `Outcome` of earlier fits, which this one goes on from and changes.
        callbacks: List of `keras.callbacks.Callback`.
        verbose: As in `keras.Model.fit`.
    """
    outcome.report = FitReport(plan.mode, plan.frequency)
    replica, rule = source.replica, optimizer.clone()
    check_cluster_once(source.spark, spec.backend)
    aggregator = Aggregator(replica.spec, replica.get_vector(), rule, plan.mode)
    take_over(rule, outcome.server_state)
    monitor = FitMonitor(replica, callbacks, verbose, plan.epochs, plan.initial_epoch)
    fit = Fit(
        source.spark,
        spec,
        plan,
        data.examples,
        data.held_out,
        data.validation_split,
        aggregator,
        monitor,
    )
    if plan.initial_epoch < plan.epochs:
        try:
            run(fit)
            fit.rule_state = aggregator.rule_state()
        finally:
            outcome.report = fit.report
            if fit.rule_state is not None:
                outcome.server_state = dict(fit.rule_state)
    monitor.history.history.update(outcome.report.exchanges())
    return monitor.history


def take_over(rule: ServerOptimizer, state: Mapping[str, np.ndarray]) -> None:
    """Let a rule go on from the state of an earlier fit, if the model's weights are the same."""
    if not state:
        return
    try:
        rule.set_state(state)
    except ValueError as error:
        logger.warning(
            "The server optimizer starts anew: its state of an earlier fit goes with another "
            "rule, or with other trainable weights than the model has now. %s",
            error,
        )


def run(fit: Fit) -> None:
    """Train; afterwards the aggregator and the monitor's model hold the merged weights.

    Raises:
        WorkerError: If a replica failed.
        ClusterError: If the cluster cannot run the plan.
        ValueError: If the data does not fit the model or the plan.
    """
    with prepared(fit):
        begin(fit)
        if fit.plan.initial_epoch < fit.plan.epochs:
            road_of(fit.plan)(fit)
        fit.monitor.end()


def begin(fit: Fit) -> None:
    """Run the first callbacks: a fit starts from the model and the epoch that they leave."""
    changed = fit.monitor.begin()
    if changed is not None:
        fit.aggregator.replace(changed)
    if fit.monitor.restored:
        fit.share(fit.spec.renewed(fit.monitor.replica.model))
    fit.plan = replace(fit.plan, initial_epoch=fit.monitor.initial_epoch)


def road_of(plan: TrainingPlan) -> Callable[[Fit], None]:
    """Decide how a fit trains: in rounds, one Spark job per epoch, or live, with a server."""
    if not plan.in_rounds:
        return train_live
    return train_rounds if plan.straggler_timeout is None else train_rounds_with_timeout
