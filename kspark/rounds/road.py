"""Decide how a round is run: in a Spark job of its own, or by the tasks of a long job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from kspark.cluster.engine import engine_of
from kspark.cluster.slot_wait import slots_for
from kspark.cluster.slots import task_slots
from kspark.errors import ClusterError
from kspark.job.fit import Fit
from kspark.job.groups import delta_grouping_of
from kspark.job.lost_hosts import leave_lost_hosts
from kspark.live.wire import Order
from kspark.rounds.long_job import LongJob, Lost, Obstacle, Stateless, Unreachable
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")

MAX_IDLE_ENDS = 3
"""How often the tasks of a fit may end because callbacks took long, before each epoch is a job."""

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
        self._trained = False
        self._idle_ends = 0
        reason = reason_for_jobs(fit)
        if reason is None:
            fit.take_road("live", "All workers run at the same time.")
        elif fit.plan.connection_setting:
            raise ClusterError(f"{fit.plan.connection_setting} is not possible. {reason}")
        else:
            fit.take_road("rounds", reason)

    def train(self, order: Order) -> list[ShardResult] | None:
        """Let the tasks of the long job train an epoch.

        Returns:
            List of the results of the shards with training examples, by shard. `None` if the
            epoch has to be trained in a job of its own.

        Raises:
            WorkerError: If a replica failed.
            ClusterError: If the first epoch cannot be trained live, and the plan says that it must.
        """
        if self._fit.road != "live":
            return None
        try:
            results = self._ready_job().train(order)
        except Obstacle as obstacle:
            self._give_up(obstacle, f"Epoch {order.epoch + 1}")
            return None
        self._trained = True
        return results

    def evaluate(self, weights: np.ndarray) -> list[ShardResult] | None:
        """Let the tasks of the long job evaluate the validation examples.

        Args:
            weights: Vector, the weights to evaluate.

        Returns:
            As `train`.
        """
        return self._between_epochs("Validation", lambda job: job.evaluate(weights))

    def keep(self, epoch: int) -> list[ShardResult] | None:
        """Let the tasks of the long job return the files that their shards keep.

        Args:
            epoch: Integer, the epoch that was trained last.

        Returns:
            As `train`.
        """
        return self._between_epochs("A checkpoint", lambda job: job.keep(epoch))

    def _between_epochs(
        self, where: str, work: Callable[[LongJob], list[ShardResult]]
    ) -> list[ShardResult] | None:
        if self._job is None or not self._job.ready:
            return None
        try:
            return work(self._job)
        except Obstacle as obstacle:
            self._give_up(obstacle, where)
            return None

    def finish(self) -> None:
        """Let the tasks end, and raise the errors of their last worker callbacks; see `LongJob`."""
        if self._job is not None:
            self._job.finish()

    def close(self) -> None:
        """End the long job at once. Its worker callbacks may not end."""
        if self._job is not None:
            job, self._job = self._job, None
            job.close()

    def end(self) -> None:
        """Let the tasks end, as `finish` does, so that their slots are free.

        Raises:
            WorkerError: If a worker callback failed at the end of its task.
        """
        try:
            self.finish()
        finally:
            self.close()

    def _ready_job(self) -> LongJob:
        """Return a long job whose tasks take an order.

        Raises:
            Obstacle: If there must not be one any more.
        """
        if self._job is not None:
            self._job.make_room()
            if not self._job.ready:
                self._replace(self._job)
        if self._job is None:
            self._job = LongJob.start(self._fit)
        return self._job

    def _replace(self, job: LongJob) -> None:
        """End a job that has another model, or whose tasks have ended because it was idle."""
        ending = job.dispatcher.ending
        self._idle_ends += job.dispatcher.idled
        # Jobs could not tell callbacks within an epoch how far they have come.
        often = self._idle_ends >= MAX_IDLE_ENDS and self._fit.plan.callbacks_every is None
        if ending is not None and (often or not job.dispatcher.idled):
            raise (Lost if job.dispatcher.obstacle else Obstacle)(ending)
        self.end()

    def _give_up(self, obstacle: Obstacle, where: str) -> None:
        silent = frozenset() if self._job is None else frozenset(self._job.dispatcher.silent)
        self.end()
        reason = f"{where}: {obstacle}"
        if isinstance(obstacle, Stateless):  # only once, as that job writes the state
            logger.info("%s The epoch is trained in a job of its own.", reason)
            return
        setting = self._fit.plan.connection_setting
        if setting and not self._trained:
            raise ClusterError(f"{setting} is not possible. {reason}")
        if isinstance(obstacle, Unreachable):
            _unreachable.add(engine_of(self._fit.spark).application)
        self._fit.take_road("rounds", reason)
        if silent:  # Spark still gives tasks to executors that will not answer.
            leave_lost_hosts(self._fit, silent)
        every = self._fit.plan.callbacks_every is not None
        if every or isinstance(obstacle, Unreachable | Lost):
            hooks = " Hooks of batches then run once per epoch." if every else ""
            logger.warning("Training goes on with one Spark job per epoch.%s %s", hooks, reason)


@contextmanager
def long_jobs(fit: Fit) -> Iterator[LongJobs]:
    """Run rounds in long jobs inside the block.

    Raises:
        ClusterError: If the plan has a `connection_setting` and that is not possible.
        WorkerError: If a worker callback failed when the tasks ended.
    """
    jobs = LongJobs(fit)
    fit.evaluate_live, fit.keep_live = jobs.evaluate, jobs.keep
    try:
        yield jobs
        jobs.finish()
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
    tasks = sum(1 for h in fit.train.infos if h.num_examples)
    slots = slots_for(fit.spark, tasks) if plan.connection_setting else task_slots(fit.spark)
    if tasks > slots:
        return f"There are {tasks} shards and {slots} task slots."
    if delta_grouping_of(fit) is not None:
        return "Executors average the deltas of this many shards before the driver gets them."
    if plan.connection_setting:
        return None
    if engine.application in _unreachable:
        return "Executors could not connect to the driver in an earlier fit."
    alone = plan.epochs - plan.initial_epoch == 1 and not fit.validates
    if alone and not fit.progress.display.moves:  # Tasks of such a job report nothing.
        return "One epoch is one job."
    return None
