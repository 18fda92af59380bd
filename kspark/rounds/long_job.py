"""Train rounds in one long Spark job, instead of in a job per epoch. On the driver.

```
driver                                          task of shard k, in the long job
LongJob.train(epoch)  → Dispatcher ← server ←── asks for an order        (`long_task.py`)
                                            ──→ the order and the weights
                                            ←── the delta and the metrics of the shard
```

The tasks do the same as those of a job per epoch, from the same states, so the weights are the same
bytes. What falls away is what lies between two jobs: scheduling, the transfer of the weights
through the JVM, and the start of the tasks. That is worth it where all tasks run at the same time
and reach the driver.

At the first obstacle, such as a lost process, `LongJob` raises an `Obstacle`. The epoch then starts
again in a job of its own: the state of each shard is on its host's disk after each epoch.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kspark.cluster.addresses import advertised_host, bind_host
from kspark.cluster.bootstrap import ship
from kspark.cluster.failures import worker_error
from kspark.cluster.interrupts import interruptible
from kspark.cluster.spark_job import JobLostError, SparkJob
from kspark.errors import Failure, KSparkError
from kspark.job.collecting import shard_results
from kspark.job.epochs import run_batch_hooks, show_moment
from kspark.job.fit import Fit
from kspark.job.stored import disk_of
from kspark.live.transport import AggregatorServer
from kspark.live.wire import Order
from kspark.rounds.dispatcher import Dispatcher
from kspark.rounds.long_task import LongTask, carry_out_orders
from kspark.shards import ShardHandle
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")

POLL_SECONDS = 0.2
"""Seconds between two checks of the Spark job while the driver waits for results."""

END_SECONDS = 5.0
"""Seconds that idle tasks have to end before their job is cancelled."""


class Obstacle(Exception):
    """A long job cannot go on. The message is a sentence that says why."""


class Lost(Obstacle):
    """A task was lost, or could not carry out an order."""


class Stateless(Obstacle):
    """A shard is not where its state is. The driver has it, and an epoch's own job brings it."""


class Unreachable(Obstacle):
    """Executors cannot open a connection to the driver."""


@dataclass
class LongJob:
    """One long Spark job of a fit, and the server that its tasks talk to.

    Create it with `start`, and call `close` in any case.

    Attributes:
        fit: `Fit`.
        digest: String, the digest of the model that the tasks have.
        held_out: See `LongTask`.
        dispatcher: `Dispatcher`.
        server: `AggregatorServer` that is listening.
        token: Bytes, the secret of this job.
        spark_job: `SparkJob`; `None` before the first order.
    """

    fit: Fit
    digest: str
    held_out: Mapping[int, tuple[bytes, ...]] | None
    dispatcher: Dispatcher
    server: AggregatorServer
    token: bytes
    spark_job: SparkJob | None = None

    @classmethod
    def start(cls, fit: Fit) -> LongJob:
        """Start the server. The Spark job starts with the first order.

        Raises:
            Obstacle: If no port is free, or a host has validation examples only.
        """
        held_out = validation_handles(fit)
        shards = [handle.index for handle in fit.train.infos if handle.num_examples]
        dispatcher = Dispatcher(shards, fit.plan.timeout, marks=fit.plan.callbacks_every)
        token = secrets.token_bytes(32)
        server = AggregatorServer(
            dispatcher,
            fit.plan.packing(fit.spec.weights),
            token,
            host=bind_host(fit.spark),
            port=fit.plan.port,
            timeout=fit.plan.timeout,
            broken_level=logging.DEBUG,  # `LongJobs` logs what it means for the fit.
        )
        try:
            server.start()
        except KSparkError as error:
            raise Obstacle(str(error)) from error
        return cls(fit, fit.spec.digest, held_out, dispatcher, server, token)

    @property
    def ready(self) -> bool:
        """Whether the tasks have the current model, and take an order."""
        return self.digest == self.fit.spec.digest and self.dispatcher.ending is None

    def make_room(self) -> None:
        """Let the tasks end if there are other jobs in the session, which may wait for slots."""
        if self.spark_job is not None and self.spark_job.has_company():
            self.dispatcher.end("Another Spark job of the session is running.")

    def train(self, order: Order) -> list[ShardResult]:
        """Let the tasks train an epoch from the global weights.

        Returns:
            List of the results of the shards with training examples, by shard.

        Raises:
            WorkerError: If a replica failed.
            Obstacle: If the job cannot go on.
        """
        return self._carry_out(order, self.fit.aggregator.weights)

    def evaluate(self, weights: np.ndarray) -> list[ShardResult]:
        """Let the tasks evaluate the validation examples. Returns and raises the same as `train`.

        Args:
            weights: Vector, the weights to evaluate.
        """
        return self._carry_out(Order(0, "evaluate"), weights)

    def keep(self, epoch: int) -> list[ShardResult]:
        """Let the tasks return the files that their shards keep. Returns and raises as `train`.

        Args:
            epoch: Integer, the epoch that was trained last.
        """
        return self._carry_out(Order(0, "keep", epoch), self.fit.aggregator.weights)

    def _carry_out(self, order: Order, weights: np.ndarray) -> list[ShardResult]:
        if not self.dispatcher.post(order, weights):
            raise Obstacle(str(self.dispatcher.ending))
        if self.spark_job is None:
            self.spark_job = self._submit(f"kspark: train from epoch {order.epoch + 1} on")
        while (results := self._wait(POLL_SECONDS)) is None:
            ended = self.spark_job.finished.is_set()
            if ended and (results := self._wait(0.0)) is not None:
                break  # The last task sent its result, and the job ended, since the last look.
            self._check(self.spark_job)
            self._show(order)
        if order.work == "train":
            run_batch_hooks(self.fit, order.epoch, self.dispatcher.running)
        return [result for result in shard_results(results) if result.num_examples]

    def _show(self, order: Order) -> None:
        """Show how far the tasks have come, and run the hooks of batches."""
        progress, running = self.fit.progress, self.dispatcher.running
        moment = running.at(order.epoch)
        if order.work == "train" and moment.num_examples:
            run_batch_hooks(self.fit, order.epoch, running)
            show_moment(self.fit, order.epoch, moment)
            return
        wanted, started = len(self.dispatcher.shards), self.dispatcher.num_started
        progress.wait("" if started == wanted else f"{started}/{wanted} workers started")

    def _wait(self, seconds: float) -> list[ShardResult | Failure] | None:
        with interruptible():
            return self.dispatcher.wait(seconds)

    def _submit(self, description: str) -> SparkJob:
        fit = self.fit
        host, port = self.server.address
        task = LongTask(
            fit.task(),
            fit.validation_task(),
            self.held_out,
            advertised_host(fit.spark, host),
            port,
            self.token,
        )
        shipped = ship(carry_out_orders, task, shared=(fit.shared_spec,))
        results = fit.train.handles.mapPartitionsWithIndex(shipped)
        return SparkJob(fit.spark, results, description).start()

    def _check(self, spark_job: SparkJob) -> None:
        """Check that the order can end, and let tasks end that keep others from starting.

        Raises:
            Obstacle: If it cannot.
        """
        if self.dispatcher.obstacle is not None:
            kind = Stateless if self.dispatcher.lacks_state else Lost
            raise kind(self.dispatcher.obstacle)
        if spark_job.finished.is_set():
            raise obstacle_of(spark_job)
        missing = self.dispatcher.waiting_for_tasks()
        if missing and spark_job.active_tasks() < len(self.dispatcher.shards):
            self.dispatcher.end(f"{missing} of the tasks have no task slot.")

    def finish(self) -> None:
        """Let idle tasks end, and wait for their worker callbacks, if there are any.

        Raises:
            WorkerError: If a worker callback failed at the end of its task.
        """
        job = self.spark_job
        if job is None or self.fit.plan.worker_callbacks is None or not self.dispatcher.idle:
            return
        self.dispatcher.end("The fit is over.")
        while not job.finished.is_set():
            with interruptible():
                job.finished.wait(POLL_SECONDS)
        try:
            ends = job.result()
        except JobLostError as error:  # All that they have trained is here.
            logger.warning("Worker callbacks may not have seen the end of training. %s", error)
            return
        for failure in (end.failure for end in ends if end.failure is not None):
            raise worker_error(failure)

    def close(self) -> None:
        """End the tasks, the job and the server. It may be called more than once."""
        try:
            if self.spark_job is not None and self.dispatcher.idle:
                self.dispatcher.end("The fit is over.")
                self.spark_job.finished.wait(END_SECONDS)
        finally:
            try:
                self.server.close()
            finally:
                if self.spark_job is not None:
                    self.spark_job.cancel()


def obstacle_of(spark_job: SparkJob) -> Obstacle:
    """Return why a job ended before its time."""
    try:
        ends = [end for end in spark_job.result() if end.reason]
    except KSparkError as error:
        return Lost(str(error))
    for end in ends:
        return Lost(end.reason) if end.connected else Unreachable(end.reason)
    return Lost("The tasks ended.")


def validation_handles(fit: Fit) -> Mapping[int, tuple[bytes, ...]] | None:
    """Divide the validation shards among the tasks of the training shards on the same host.

    Several hosts may have the same name, so shards on the same disk come first.

    Returns:
        Mapping from training shard to handles as JSON. `None` if each task evaluates the last rows
        of its own shard, or nothing.

    Raises:
        Obstacle: If a validation shard is on a host without a training shard.
    """
    if fit.validating is fit.train or not fit.validates:
        return None
    given: dict[int, list[ShardHandle]] = {h.index: [] for h in fit.train.infos if h.num_examples}
    disks = {handle.index: disk_of(handle) for handle in fit.train.infos}
    for handle in fit.validating.infos:
        same = [shard for shard in given if disks[shard] == disk_of(handle)]
        near = same or [shard for shard in given if disks[shard][0] == handle.host]
        if not near:
            raise Obstacle(f"Host {handle.host} has validation examples only.")
        least = min(near, key=lambda shard: (sum(h.num_examples for h in given[shard]), shard))
        given[least].append(handle)
    return {shard: tuple(h.to_json() for h in found) for shard, found in given.items()}
