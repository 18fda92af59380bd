"""Training over the live road: one long Spark job, and a server on the driver.

The Spark job is not a barrier job: Spark never retries a barrier stage that
lost an executor, but it does retry an ordinary task, and the aggregator knows
where its shard stands. What Spark itself gives up on (any lost process of a
`local` master, for one) is submitted again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kspark.cluster.bootstrap import ship
from kspark.cluster.failures import worker_error
from kspark.cluster.interrupts import interruptible
from kspark.cluster.spark_job import JobLostError, SparkJob
from kspark.errors import ClusterError
from kspark.job.collecting import ShardsMissing, checked, counted
from kspark.job.epochs import close_epoch, note_epoch, note_rest, open_epoch
from kspark.job.fit import Fit
from kspark.job.optimizer_state import states_of, take_state
from kspark.job.report import EpochFacts, worker_figures
from kspark.live.coordinator import Coordinator, EpochReport, ShardPlan
from kspark.live.run import LiveTask
from kspark.live.shared_memory import SharedWeights
from kspark.live.task import ATTEMPTS_PER_SUBMISSION, train_shards
from kspark.live.transport import AggregatorServer
from kspark.live.wire import SharedOffer
from kspark.optimizers import MergeContext, ScaledDelta
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")

POLL_SECONDS = 0.2

IMPORT_FACTOR = 5
"""How much longer a replica may take to connect when all of their tasks run."""


class LiveFit:
    """A live fit under way.

    Args:
        fit: `Fit`.
        coordinator: `Coordinator`.
        server: `AggregatorServer` that is listening.
        token: Bytes, the fit's secret.
    """

    def __init__(
        self, fit: Fit, coordinator: Coordinator, server: AggregatorServer, token: bytes
    ) -> None:
        self.fit = fit
        self.coordinator = coordinator
        self.server = server
        self.token = token
        self.submissions = 0
        self.failures = 0
        self.results: list[ShardResult] = []
        self.submitted = time.monotonic()

    def run_to(self, first: int, stop: int) -> tuple[int, bool]:
        """Train the epochs from `first` up to `stop`, in one job unless it is lost.

        Returns:
            Tuple: the epoch that comes next, and whether training is over.
        """
        done, over = first, False
        while done < stop:
            spark_job = self.submit(done, stop)
            try:
                while done < stop and not over:
                    report = self.wait(spark_job, done)
                    over = self.finish_epoch(done, report)
                    done += 1
                self.results = checked(spark_job.result())
                note_rest(self.fit, self.results)
                if over:
                    break
            except (ShardsMissing, JobLostError) as error:
                spark_job.cancel()
                if over or done >= stop:  # only the job's own results are lost
                    break
                self.lost(error)
            except BaseException:
                self.coordinator.close("the fit failed")
                spark_job.cancel()
                raise
        return done, over

    def submit(self, first: int, stop: int) -> SparkJob:
        """Start the Spark job that trains the epochs from `first` up to `stop`."""
        fit = self.fit
        self.coordinator.begin_job(self.submissions * ATTEMPTS_PER_SUBMISSION, stop)
        host, port = self.server.address
        task = LiveTask(
            fit.task(),
            stop,
            self.submissions,
            advertised_host(fit, host),
            port,
            self.token,
            fit.learning_rate(first),
            stop >= fit.plan.epochs,
        )
        self.submissions += 1
        self.submitted = time.monotonic()
        shipped = ship(train_shards, task, shared=(fit.shared_spec,))
        rdd = fit.train.handles.mapPartitionsWithIndex(shipped)
        return SparkJob(fit.spark, rdd, f"kspark: train to epoch {stop}").start()

    def wait(self, spark_job: SparkJob, epoch: int) -> EpochReport:
        """Wait until all shards are through with an epoch.

        Raises:
            WorkerError: If a replica failed.
            JobLostError: If Spark gave up on the job.
        """
        while True:
            with interruptible():
                report = self.coordinator.wait_for_epoch(epoch, POLL_SECONDS)
            if report is not None:
                return report
            if self.coordinator.failure is not None:
                raise worker_error(self.coordinator.failure)
            if self.coordinator.missing:  # the others would wait for that shard
                raise ShardsMissing
            if spark_job.finished.is_set():
                checked(spark_job.result())
                report = self.coordinator.wait_for_epoch(epoch, 0.0)
                if report is None:
                    raise JobLostError("The job ended before its epochs were trained.")
                return report
            self.check_started(spark_job)

    def check_started(self, spark_job: SparkJob) -> None:
        """All replicas must connect in time: they need each other.

        Once all of their tasks run, they are given more time: on a busy host, it takes a
        while to import Keras.

        Raises:
            ClusterError: If some did not.
        """
        waited = time.monotonic() - self.submitted
        limit = max(self.fit.plan.timeout, 60.0)
        never = self.coordinator.never_connected()
        if not never or waited <= limit:
            return
        total = len(self.coordinator.shards)
        if waited > IMPORT_FACTOR * limit or spark_job.active_tasks() < total:
            raise ClusterError(
                f"{total - len(never)} of {total} workers connected to the aggregator within "
                f"{waited:.0f} s. Another job may hold the task slots, executors may still be "
                f"starting (raise `timeout`), or {self.server.address} cannot be reached from them."
            )

    def finish_epoch(self, epoch: int, report: EpochReport) -> bool:
        """Logs, callbacks and validation of one epoch; then the replicas may go on.

        The next epoch's first callbacks come before the replicas hear of it, so that
        synchronous ones train it with the learning rate and weights those callbacks set.
        """
        fit = self.fit
        workers = tuple(worker_figures(s, facts) for s, facts in sorted(report.facts.items()))
        merges, staleness = self.coordinator.merges, tuple(report.staleness)
        facts = EpochFacts(epoch, merges, workers, staleness, fit.learning_rate(epoch))
        note_epoch(fit, facts)
        metrics = [report.metrics[s] for s in sorted(report.metrics)]
        over = close_epoch(fit, epoch, metrics, fit.num_examples)
        if not over:
            open_epoch(fit, epoch + 1)
        rate = fit.learning_rate(epoch + 1)
        self.coordinator.close_epoch(epoch, stop=over, learning_rate=rate)
        return over

    def lost(self, error: Exception) -> None:
        """Count a lost job; too many are the end.

        Raises:
            WorkerError: If it was lost too often.
        """
        self.failures = counted(self.failures, self.fit.plan.max_failures, error)
        if isinstance(error, ShardsMissing):
            self.fit.train.respool()


def train_live(fit: Fit) -> None:
    """Train in one job, or one per epoch whose validation or state needs the slots."""
    epoch, over = fit.plan.initial_epoch, False
    # Before the first epoch's weights are kept, in case it has to start again.
    open_epoch(fit, epoch)
    with live_fit(fit) as live:
        while epoch < fit.plan.epochs and not over:
            stop = segment_end(fit, epoch)
            epoch, over = live.run_to(epoch, stop)
        take_state(fit, states_of(fit, live.results), epoch - 1)


def segment_end(fit: Fit, epoch: int) -> int:
    """The end of the job that starts at `epoch`: after the next validation, or the last epoch.

    Optimizer state that callbacks need is fetched between jobs.
    """
    if fit.monitor.needs_optimizer_state:
        return epoch + 1
    if not fit.validates:
        return fit.plan.epochs
    ends = (e + 1 for e in range(epoch, fit.plan.epochs) if fit.plan.validates(e))
    return next(ends, fit.plan.epochs)


@contextmanager
def live_fit(fit: Fit) -> Iterator[LiveFit]:
    """Coordinator and server, for as long as the block lasts."""
    plan = fit.plan
    shards = {
        shard: ShardPlan(n, plan.exchanges(n)) for shard, n in sorted(fit.num_train.items()) if n
    }
    packing = plan.packing(fit.spec.weights)
    coordinator = Coordinator(
        fit.aggregator,
        shards,
        packing,
        first_epoch=plan.initial_epoch,
        merge_gradients=plan.merges_gradients,
        batch_size=plan.batch_size,
        max_staleness=plan.max_staleness,
        timeout=plan.timeout,
    )
    token = secrets.token_bytes(32)
    with shared_weights(fit, coordinator):
        server = AggregatorServer(
            coordinator,
            packing,
            token,
            host=bind_host(fit),
            port=plan.port,
            timeout=plan.timeout,
        )
        try:
            server.start()
            yield LiveFit(fit, coordinator, server, token)
        finally:
            coordinator.close()
            server.close()


@contextmanager
def shared_weights(fit: Fit, coordinator: Coordinator) -> Iterator[None]:
    """In hogwild mode, weights that replicas of the driver's host map into their memory."""
    shards = sorted(coordinator.shards)
    rule = fit.aggregator.optimizer
    if fit.plan.mode != "hogwild" or not isinstance(rule, ScaledDelta) or not rule.is_a_scale:
        yield
        return
    shared = SharedWeights.create(fit.aggregator.weights, fit.spec.weights, len(shards))
    own = fit.aggregator.weights
    fit.aggregator.weights = shared.vector
    for slot, shard in enumerate(shards):
        share = coordinator.shards[shard].num_examples / coordinator.total_examples
        scale = rule.scale(MergeContext("hogwild", share))
        coordinator.offers[shard] = SharedOffer(
            shared.path, shared.mark.hex(), len(shards), slot, share, scale
        )
    try:
        yield
    finally:
        own[:] = shared.vector
        fit.aggregator.weights = own
        shared.unlink()


def bind_host(fit: Fit) -> str:
    """Where the driver listens: Spark's own `spark.driver.bindAddress`."""
    conf = fit.spark.sparkContext.getConf()
    return str(conf.get("spark.driver.bindAddress") or conf.get("spark.driver.host") or "")


def advertised_host(fit: Fit, bound: Any) -> str:
    """Where executors find the driver: Spark's own `spark.driver.host`."""
    return str(fit.spark.sparkContext.getConf().get("spark.driver.host") or bound)
