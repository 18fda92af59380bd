"""Training on the live road, on the driver: one long Spark job and a server.

`train_live` is the entry. It opens the server and the coordinator (`live_fit`), and then runs
one Spark job per segment of epochs (`LiveFit.run_to`).

The Spark job is not a barrier job, because Spark never retries a barrier stage that lost an
executor. It retries an ordinary task, and the aggregator knows how far its shard has come. If
Spark gives up on the job itself, as with any lost process of a `local` master, the job is
submitted again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kspark.cluster.addresses import advertised_host, bind_host
from kspark.cluster.bootstrap import ship
from kspark.cluster.failures import worker_error
from kspark.cluster.interrupts import interruptible
from kspark.cluster.records import in_records
from kspark.cluster.slots import locality_seconds
from kspark.cluster.spark_job import JobLostError, SparkJob
from kspark.cluster.unreached import Unreached
from kspark.errors import ClusterError
from kspark.job.collecting import ShardsMissing, checked, counted
from kspark.job.epochs import (
    close_epoch,
    note_epoch,
    note_rest,
    open_epoch,
    run_batch_hooks,
    show_moment,
)
from kspark.job.fit import Fit
from kspark.job.mixing import mix_rows
from kspark.job.optimizer_state import states_of, take_state
from kspark.job.placement import Placement
from kspark.job.report import EpochFacts, worker_figures
from kspark.live.coordinator import Coordinator, EpochReport, ShardPlan
from kspark.live.reaching import lost, not_connected, unreachable
from kspark.live.run import LiveTask
from kspark.live.segments import segment_end
from kspark.live.sharing import shared_memory
from kspark.live.task import ATTEMPTS_PER_SUBMISSION, train_shards
from kspark.live.transport import AggregatorServer
from kspark.plan import UNKNOWN, Steps, TrainingPlan, shard_steps
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")

POLL_SECONDS = 0.2
"""Seconds between two checks of the Spark job while the driver waits for an epoch."""

MIN_START_SECONDS = 60.0
"""The least seconds that replicas have to connect, also if `timeout` is shorter."""

MAX_SPREADS = 3
"""How often an epoch spools the shards again because tasks run on executors without their files."""

IMPORT_FACTOR = 5
"""How many times as long replicas may take to connect if all their tasks are running."""


def train_live(fit: Fit) -> None:
    """Train all epochs, in one Spark job per segment (see `segments.py`)."""
    epoch, over = fit.plan.initial_epoch, False
    fit.take_road("live", "Replicas exchange within an epoch.")
    # Callbacks may set weights. The coordinator copies them, to restart the first epoch from them.
    open_epoch(fit, epoch)
    placement = Placement(fit)
    with live_fit(fit) as live:
        while epoch < fit.plan.epochs and not over:
            placement.spread()
            mix_rows(fit, epoch)
            epoch, over = live.run_to(epoch, segment_end(fit, epoch))
        take_state(fit, states_of(fit, live.results), epoch - 1)


@contextmanager
def live_fit(fit: Fit) -> Iterator[LiveFit]:
    """Run a coordinator and a server while the block runs."""
    plan = fit.plan
    steps_of = sorted(shard_steps(plan, fit.num_train).items())
    shards = {shard: planned(plan, steps) for shard, steps in steps_of}
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
        marks=plan.callbacks_every,
    )
    if coordinator.rendezvous is not None:
        coordinator.rendezvous.residual = fit.reply_residual
    token = secrets.token_bytes(32)
    with shared_memory(fit, coordinator, packing):
        server = AggregatorServer(
            coordinator,
            packing,
            token,
            host=bind_host(fit.spark),
            port=plan.port,
            timeout=plan.timeout,
        )
        try:
            server.start()
            yield LiveFit(fit, coordinator, server, token)
        finally:
            coordinator.close()
            server.close()


def planned(plan: TrainingPlan, steps: Steps) -> ShardPlan:
    """Return the work of a shard in an epoch, as far as it is known before."""
    if steps.batches == UNKNOWN:
        return ShardPlan(steps.rows, 1 if plan.frequency == "epoch" else 0)
    batches = steps.batches
    return ShardPlan(steps.rows, plan.exchanges(batches), batches, plan.local_batches(batches))


class LiveFit:
    """A fit on the live road while it runs.

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
        self.submissions = self.failures = self.spreads = 0
        self.results: list[ShardResult] = []
        self.submitted = time.monotonic()
        self.unreached: Unreached | None = None

    def run_to(self, first: int, stop: int) -> tuple[int, bool]:
        """Train the epochs from `first` up to `stop`. Submit the job again if Spark loses it.

        Returns:
            Tuple of the next epoch, and whether training is over.
        """
        done, over = first, False
        while done < stop and not over:
            spark_job = self.submit(done, stop)
            try:
                while done < stop and not over:
                    report = self.wait(spark_job, done)
                    over = self.finish_epoch(done, report)
                    done += 1
                self.results = checked(spark_job.result())
                note_rest(self.fit, self.results)
            except (ShardsMissing, JobLostError) as error:
                spark_job.cancel()
                if done < stop and not over:  # Otherwise only the job's own results are lost.
                    self.lost(error)
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                self.coordinator.close(f"the fit {'was interrupted' if interrupted else 'failed'}")
                spark_job.cancel()
                raise
        return done, over

    def submit(self, first: int, stop: int) -> SparkJob:
        """Start the Spark job that trains the epochs from `first` up to `stop`."""
        fit = self.fit
        self.unreached = self.unreached or Unreached.of(fit.spark)
        oldest = self.submissions * ATTEMPTS_PER_SUBMISSION
        self.coordinator.begin_job(oldest, stop, together=True)
        task = LiveTask(
            fit.task(),
            stop,
            self.submissions,
            *self.address,
            self.token,
            fit.learning_rate(first),
            stop >= fit.plan.epochs,
            self.unreached,
        )
        self.submissions += 1
        self.submitted = time.monotonic()
        shipped = ship(train_shards, task, shared=(fit.shared_spec,))
        rdd = fit.train.handles.mapPartitionsWithIndex(in_records(shipped))
        return SparkJob(fit.spark, rdd, f"kspark: train to epoch {stop}").start()

    def wait(self, spark_job: SparkJob, epoch: int) -> EpochReport:
        """Wait until all shards have finished an epoch.

        Raises:
            WorkerError: If a replica failed.
            ShardsMissing: If a replica did not find its shard's files.
            JobLostError: If Spark gave up on the job.
            ClusterError: If workers cannot reach the driver, or were lost for too long.
        """
        while True:
            with interruptible():
                report = self.coordinator.wait_for_epoch(epoch, POLL_SECONDS)
            if report is not None:
                return report
            if self.coordinator.failure is not None:
                raise worker_error(self.coordinator.failure)
            if self.coordinator.missing:  # The other replicas would wait for these shards.
                strayed = self.coordinator.strayed
                raise ShardsMissing(strayed, self.coordinator.missing - strayed)
            self.check_connections()
            if spark_job.finished.is_set():
                checked(spark_job.result())
                report = self.coordinator.wait_for_epoch(epoch, 0.0)
                if report is None:
                    raise JobLostError("The Spark job ended before all its epochs were trained.")
                return report
            self.check_started(spark_job)
            self.show(epoch)

    def show(self, epoch: int) -> None:
        """Show how far the replicas have come, and run the hooks of batches."""
        moment = self.coordinator.running.at(epoch)
        if moment.num_examples:
            run_batch_hooks(self.fit, epoch, self.coordinator.running)
            show_moment(self.fit, epoch, moment)
            return
        wanted = len(self.coordinator.shards)
        started = wanted - len(self.coordinator.attendance.never_connected())
        self.fit.progress.wait("" if started == wanted else f"{started}/{wanted} workers started")

    def check_connections(self) -> None:
        """Check that workers reach the driver, and that none is lost for too long.

        Raises:
            ClusterError: If one is not.
        """
        if self.unreached is not None and (found := self.unreached.shards):
            raise ClusterError(unreachable(found, self.homes, self.address))
        attendance = self.coordinator.attendance
        if gone := attendance.lost():
            raise lost(gone, self.homes, attendance.timeout)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which executors reach the driver."""
        host, port = self.server.address
        return advertised_host(self.fit.spark, host), port

    @property
    def homes(self) -> dict[int, str]:
        """The host of each shard."""
        return {handle.index: handle.host for handle in self.fit.train.infos}

    def check_started(self, spark_job: SparkJob) -> None:
        """Check that all replicas connect in time, because they need each other.

        If all their tasks are running, they have `IMPORT_FACTOR` times as long, because importing
        Keras takes long on a busy host.

        Raises:
            ClusterError: If replicas did not connect in time.
        """
        waited = time.monotonic() - self.submitted
        limit = max(self.fit.plan.timeout, MIN_START_SECONDS)
        never = self.coordinator.attendance.never_connected()
        if not never or waited <= limit:
            return
        total = len(self.coordinator.shards)
        if waited > IMPORT_FACTOR * limit or spark_job.active_tasks() < total:
            raise not_connected(never, total, self.homes, self.address, waited)

    def finish_epoch(self, epoch: int, report: EpochReport) -> bool:
        """Log, validate and run the callbacks of an epoch, then let the replicas continue.

        The first callbacks of the next epoch run before the replicas continue. So synchronous
        replicas train it with the learning rate and weights that those callbacks set.

        Returns:
            Boolean, whether training is over.
        """
        fit = self.fit
        fit.states.epoch = epoch
        run_batch_hooks(fit, epoch, self.coordinator.running)
        workers = tuple(worker_figures(s, facts) for s, facts in sorted(report.facts.items()))
        merges = self.coordinator.merges or fit.plan.updates(
            [facts.batches for facts in report.facts.values()]
        )
        staleness = tuple(report.staleness)
        facts = EpochFacts(epoch, merges, workers, staleness, fit.learning_rate(epoch))
        note_epoch(fit, facts)
        metrics = [report.metrics[s] for s in sorted(report.metrics)]
        counters = report.counters[min(report.counters)] if report.counters else ()
        if self.coordinator.rendezvous is not None:
            fit.reply_residual = self.coordinator.rendezvous.residual
        num_examples = sum(facts.num_examples for facts in report.facts.values())
        log_uncounted(epoch, sum(f.uncounted or 0 for f in report.facts.values()), num_examples)
        over = close_epoch(fit, epoch, metrics, num_examples, counters)
        if not over:
            open_epoch(fit, epoch + 1)
        self.coordinator.close_epoch(epoch, stop=over, learning_rate=fit.learning_rate(epoch + 1))
        self.spreads = 0
        return over

    def lost(self, error: Exception) -> None:
        """Count a lost job, and write missing shards again.

        A task that Spark gives to an executor without the files would get there again, because the
        other tasks hold the slots of those with the files. So the shards are spread over all slots.

        Raises:
            WorkerError: If more jobs were lost than `max_failures` allows.
            ClusterError: If tasks ran on executors without their files, although the shards had
                been spread `MAX_SPREADS` times in this epoch.
        """
        if isinstance(error, ShardsMissing) and not error.gone:
            if self.spreads >= MAX_SPREADS:
                raise ClusterError(
                    f"{error} The shards were spread over all task slots {self.spreads} times "
                    "before. Executors may come and go all the time, or other jobs may hold some "
                    "of the slots: run fewer jobs at the same time, or use fewer workers."
                )
            self.spreads += 1
            logger.warning("%s They are spooled again, each to a slot of its own.", error)
            self.fit.train.respool(locality_seconds(self.fit.spark))
            return
        self.failures = counted(self.failures, self.fit.plan.max_failures, error)
        if isinstance(error, ShardsMissing):
            logger.warning("Spooling the examples again.")
            self.fit.train.respool()


def log_uncounted(epoch: int, uncounted: int, num_examples: int) -> None:
    """Log how many examples the metrics of an epoch lack, if they lack any."""
    if uncounted:
        logger.warning(
            "The metrics of epoch %d lack %d of %d examples: the workers that trained these died "
            "before they had reported them. The weights lack nothing.",
            epoch + 1,
            uncounted,
            num_examples,
        )
