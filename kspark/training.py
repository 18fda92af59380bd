"""One `fit` of a `SparkModel`: from arguments that are checked to weights that are merged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kspark import job
from kspark.adapters import Examples
from kspark.aggregator import Aggregator
from kspark.callbacks import FitMonitor
from kspark.optimizers import ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.report import FitReport
from kspark.source import Source

logger = logging.getLogger("kspark")


@dataclass(frozen=True)
class TrainingData:
    """Examples to train on and to validate on.

    Attributes:
        examples: `Examples` to train on.
        held_out: `Examples` to validate on, or `None`.
        validation_split: Float, part of every shard that validates instead of training.
    """

    examples: Examples
    held_out: Examples | None
    validation_split: float

    @classmethod
    def of(
        cls,
        source: Source,
        data: tuple[Any, Any, Any],
        validation_split: float,
        validation_data: Any,
    ) -> TrainingData:
        """What `fit` was given: `data` is `x`, `y` and `sample_weight`."""
        examples, held_out = source.training(*data, validation_split)
        if validation_data is not None:
            held_out = source.validation(validation_data)
        return cls(examples, held_out, validation_split if held_out is None else 0.0)


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
    job.check_cluster_once(source.spark, spec.backend)
    aggregator = Aggregator(replica.spec, replica.get_vector(), rule, plan.mode)
    take_over(rule, outcome.server_state)
    monitor = FitMonitor(replica, callbacks, verbose, plan.epochs, plan.initial_epoch)
    task = job.Fit(
        source.spark,
        spec,
        plan,
        data.examples,
        data.held_out,
        data.validation_split,
        aggregator,
        monitor,
        source.num_workers,
    )
    if plan.initial_epoch < plan.epochs:
        try:
            job.fit(task)
            task.rule_state = aggregator.rule_state()
        finally:
            outcome.report = task.report
            if task.rule_state is not None:
                outcome.server_state = dict(task.rule_state)
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
