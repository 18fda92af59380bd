"""Decide how a round is run: in a Spark job of its own, or by the tasks of a long job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from kspark.cluster.engine import engine_of
from kspark.cluster.slots import task_slots
from kspark.errors import ClusterError
from kspark.job.fit import Fit
from kspark.job.groups import grouping_of
from kspark.live.wire import Order
from kspark.rounds.long_job import LongJob, Obstacle, Unreachable
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")

_unreachable: set[str] = set()
"""Applications whose executors could not connect to the driver."""


class LongJobs:
    """Runs the rounds of a fit in long jobs as long as that is possible.

    Args:
        fit: `Fit`, whose `road` is kept up to date.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._job: LongJob | None = None
        reason = reason_for_jobs(fit)
        if reason is None:
            fit.take_road("live", "All workers run at the same time.")
        elif fit.plan.road == "live":
            raise ClusterError(f'road="live" is not possible. {reason}')
        else:
            fit.take_road("rounds", reason)

    def train(self, order: Order) -> list[ShardResult] | None:
        """Let the tasks of the long job train an epoch.

        Returns:
            List of the results of the shards with training examples, by shard. `None` if the
            epoch has to be trained in a job of its own.

        Raises:
            WorkerError: If a replica failed.
        """
        if self._fit.road != "live":
            return None
        try:
            return self._ready_job().train(order)
        except Obstacle as obstacle:
            if isinstance(obstacle, Unreachable):
                _unreachable.add(engine_of(self._fit.spark).application)
            self._give_up(f"Epoch {order.epoch + 1}: {obstacle}")
            return None

    def evaluate(self, weights: np.ndarray) -> list[ShardResult] | None:
        """Let the tasks of the long job evaluate the validation examples.

        Args:
            weights: Vector, the weights to evaluate.

        Returns:
            As `train`.
        """
        if self._job is None or not self._job.ready:
            return None
        try:
            return self._job.evaluate(weights)
        except Obstacle as obstacle:
            self._give_up(f"Validation: {obstacle}")
            return None

    def close(self) -> None:
        """End the long job, so that its task slots are free."""
        if self._job is not None:
            job, self._job = self._job, None
            job.close()

    def _ready_job(self) -> LongJob:
        if self._job is not None and not self._job.ready:
            if self._job.digest == self._fit.spec.digest:
                raise Obstacle(str(self._job.dispatcher.ending))
            self.close()  # Callbacks have changed the model: its tasks need the new one.
        if self._job is None:
            self._job = LongJob.start(self._fit)
        return self._job

    def _give_up(self, obstacle: str) -> None:
        self.close()
        self._fit.take_road("rounds", obstacle)


@contextmanager
def long_jobs(fit: Fit) -> Iterator[LongJobs]:
    """Run rounds in long jobs inside the block.

    Raises:
        ClusterError: If the plan has `road="live"` and that is not possible.
    """
    jobs = LongJobs(fit)
    fit.evaluate_live = jobs.evaluate
    try:
        yield jobs
    finally:
        jobs.close()


def reason_for_jobs(fit: Fit) -> str | None:
    """Return why each epoch needs a Spark job of its own, as a sentence.

    Returns:
        String; `None` if the tasks of one long job can train all epochs.
    """
    plan, engine = fit.plan, engine_of(fit.spark)
    if plan.road == "rounds":
        return 'The setting is road="rounds".'
    if not engine.reaches_driver:
        return "Workers of Spark Connect cannot reach a server in this process."
    if not fit.spec.weights.size:
        return "The model has no weights."
    if fit.spark.sparkContext.getConf().get("spark.speculation", "false") == "true":
        return "spark.speculation is on: Spark would start second tasks beside long ones."
    tasks, slots = sum(1 for h in fit.train.infos if h.num_examples), task_slots(fit.spark)
    if tasks > slots:
        return f"There are {tasks} shards and {slots} task slots."
    if plan.road == "live":
        return None
    if engine.application in _unreachable:
        return "Executors could not connect to the driver in an earlier fit."
    if grouping_of(fit) is not None:
        return "Executors average the deltas of this many shards before the driver gets them."
    if plan.epochs - plan.initial_epoch == 1 and not fit.validates:
        return "One epoch is one job."
    return None
