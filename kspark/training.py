"""One `fit` of a `SparkModel`: from arguments that are checked to weights that are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Outcome:
    """What a fit leaves beside the trained model.

    Attributes:
        history: `keras.callbacks.History`.
        report: `FitReport`.
        server_state: Mapping, the state of the server optimizer.
    """

    history: keras.callbacks.History
    report: FitReport
    server_state: dict[str, np.ndarray]


def train(
    source: Source,
    plan: TrainingPlan,
    spec: ReplicaSpec,
    data: TrainingData,
    optimizer: ServerOptimizer,
    server_state: Mapping[str, np.ndarray],
    callbacks: list[keras.callbacks.Callback],
    verbose: str | int,
) -> Outcome:
    """Train the source's model; afterwards it holds the merged weights.

    Args:
        source: `Source` of the examples.
        plan: `TrainingPlan`.
        spec: `ReplicaSpec` of the model.
        data: `TrainingData`.
        optimizer: `ServerOptimizer`; a clone of it works.
        server_state: Mapping, what the state of an earlier fit's rule was.
        callbacks: List of `keras.callbacks.Callback`.
        verbose: As in `keras.Model.fit`.
    """
    replica, rule = source.replica, optimizer.clone()
    job.check_cluster_once(source.spark, spec.backend)
    aggregator = Aggregator(replica.spec, replica.get_vector(), rule, plan.mode)
    if server_state:
        rule.set_state(server_state)
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
        job.fit(task)
        server_state = rule.get_state()
    return Outcome(monitor.history, task.report, dict(server_state))
