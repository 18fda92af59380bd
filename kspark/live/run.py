"""One replica in a live task: what its three training loops share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from kspark.cluster.activity import FILES, doing
from kspark.cluster.unreached import Unreached
from kspark.live.transport import AggregatorClient
from kspark.live.wire import Instructions, Welcome
from kspark.live.wire.reports import EpochEnd, MetricsReport
from kspark.plan import UNKNOWN, Steps, known
from kspark.replica import ReplicaSpec
from kspark.shards import LearningRate, Shard, Usage, Window
from kspark.weights import Packer
from kspark.worker.inference import check_window
from kspark.worker.own_weights import PushedWeights, RoundWeights
from kspark.worker.progress import Reporter
from kspark.worker.reading import EpochRows
from kspark.worker.state import ShardState
from kspark.worker.tasks import FitTask, State, check_finite, facts_of, state_of

if TYPE_CHECKING:
    from kspark.replica import Replica


@dataclass(frozen=True)
class LiveTask:
    """The task of one live job of a fit.

    Attributes:
        fit: `FitTask`.
        stop_epoch: Integer, epoch to stop before.
        submission: Integer, number of the fit's jobs that were submitted before.
        host: String, address of the aggregator.
        port: Integer, port of the aggregator.
        token: Bytes, the fit's secret.
        learning_rate: `LearningRate`. `None` keeps the optimizer's schedule.
        wants_state: Boolean, whether to return the optimizer state at the end.
        unreached: `Unreached`, for a worker that cannot connect. Defaults to `None`: it fails.
    """

    fit: FitTask
    stop_epoch: int
    submission: int
    host: str
    port: int
    token: bytes
    learning_rate: LearningRate
    wants_state: bool
    unreached: Unreached | None = None


@dataclass
class LiveRun:
    """One replica in a live task.

    Attributes:
        task: `LiveTask`.
        spec: `ReplicaSpec`.
        replica: `Replica`.
        shard: `Shard` with the training rows.
        state: `ShardState`.
        client: Connected `AggregatorClient`.
        num_examples: Integer, training rows of the shard.
        welcome: `Welcome` of this connection.
        continued: Boolean, whether the replica has the shard's state. Defaults to `False`.
        state_kept: Boolean, whether the shard's state of the epoch before was found. Defaults to
            `True`.
        reported: Float, time of the last epoch's report in seconds of `time.perf_counter`.
            Defaults to `0.0`, no report.
        counted: `Usage` of the connection up to the last report, without seconds.
        waited: Float, seconds of waiting for other replicas in shared memory. Defaults to `0.0`.
        instructions: Last `Instructions` of the driver.
        packer: `Packer` of deltas or gradients.
        reporter: `Reporter` of the progress within an epoch.
        rows: `EpochRows` of the epoch that has begun, or `None`.
        over: Boolean, whether no replica had a batch left at the last meeting.
        uncounted: Integer, examples of the epoch that were trained by processes that died before
            they reported metrics. Defaults to `0`.
    """

    task: LiveTask
    spec: ReplicaSpec
    replica: Replica
    shard: Shard
    state: ShardState
    client: AggregatorClient
    num_examples: int
    welcome: Welcome
    continued: bool = False
    state_kept: bool = True
    reported: float = 0.0
    counted: Usage = Usage()
    waited: float = 0.0
    instructions: Instructions = field(init=False)
    packer: Packer = field(init=False)
    reporter: Reporter = field(init=False)
    rows: EpochRows | None = field(init=False, default=None)
    over: bool = field(init=False, default=False)
    uncounted: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.instructions = self.welcome.instructions
        self.packer = self.task.fit.plan.packing(self.spec.weights).packer()
        self.reporter = Reporter.of(self.task.fit, self.shard.index, self.client.report)
        self.reporter.callbacks.attach(self.replica)

    @property
    def attempt(self) -> int:
        """Number of this attempt at the shard."""
        return self.client.attempt

    @property
    def stopped(self) -> bool:
        """Whether the driver has ended training."""
        return self.instructions.stop

    @cached_property
    def steps(self) -> Steps:
        """The batches of each epoch."""
        return self.task.fit.steps(self.shard.index)

    @property
    def batches(self) -> int:
        """Batches per epoch; `UNKNOWN` until the last window of a user's function is read."""
        return self.steps.batches if self.rows is None else self.rows.batches

    @property
    def num_exchanges_known(self) -> bool:
        """Whether the number of exchanges per epoch was known before the fit began."""
        return self.steps.batches != UNKNOWN or self.task.fit.plan.frequency == "epoch"

    def examples(self, epoch: int) -> int:
        """Return the number of examples that the shard trains in an epoch, as far as known."""
        if self.rows is not None:
            return self.rows.num_examples
        return self.steps.num_examples(epoch - self.task.fit.plan.origin)

    @property
    def local(self) -> int:
        """Batches between two exchanges."""
        return self.task.fit.plan.local_batches(self.batches)

    @property
    def exchanges(self) -> int:
        """Exchanges per epoch."""
        return self.task.fit.plan.exchanges(self.batches)

    def own_weights(self) -> PushedWeights | None:
        """Return the weights that an asynchronous replica keeps, or `None` if the rule has none."""
        fit, folder = self.task.fit, self.state.folder
        if fit.rule is None:
            return None
        share = fit.share(self.num_examples)
        spec, project = self.spec.weights, self.replica.projection
        return PushedWeights(fit.rule, spec, folder, share, fit.plan.mode, project)

    def round_weights(self, epoch: int) -> RoundWeights | None:
        """Return the weights that a synchronous replica keeps in an epoch, or `None`."""
        weights, folder = self.spec.weights, self.state.folder
        project = self.replica.projection
        return RoundWeights.of(self.task.fit, weights, folder, self.num_examples, epoch, project)

    def windows(self, epoch: int) -> Iterator[Window]:
        """Read the training rows of an epoch, window by window."""
        check = partial(check_window, self.replica)
        self.rows = EpochRows(self.task.fit, self.shard, epoch, check)
        for window in self.rows:
            self.reporter.total = self.rows.num_examples
            yield window

    def begin(self, epoch: int) -> None:
        """Restore the shard's state, set the learning rate and reset the metrics for an epoch."""
        self.rows = None
        self.resume(epoch)
        self.state.depart()
        self.set_learning_rate()
        self.replica.reset_metrics()
        self.replica.seed_backend(self.task.fit.plan.backend_seed(self.shard.index, epoch))

    def resume(self, epoch: int) -> None:
        """Restore the shard's state at the beginning of `epoch`, unless the replica has it."""
        if not self.continued:
            fit = self.task.fit
            numbers = (epoch, fit.plan, known(self.steps.batches), fit.resumed)
            since = fit.oldest_state(self.shard.index, epoch)
            with doing(FILES):
                self.state_kept = self.state.restore(self.replica, *numbers, since=since)
            self.restore_residual(epoch)
            self.continued = True

    def restore_residual(self, epoch: int) -> None:
        """Restore the residual of packing at the beginning of `epoch`.

        In the middle of an epoch the residual is unknown, because the attempt before has sent a
        part of it. Then it is set to zero: that loses a part, but sends no part twice.
        """
        if self.packer.residual is not None:
            midway = bool(self.welcome.start.position)
            self.packer.restore(None if midway else self.state.load_residual(epoch - 1))

    def outgoing(self, delta: np.ndarray) -> np.ndarray:
        """Pack a delta or gradient for sending."""
        return self.packer.pack(delta)

    def kept_state(self) -> State:
        """Return the state at the end of the job, also if an earlier attempt trained the epochs."""
        self.resume(self.task.stop_epoch)
        return state_of(self.replica)

    def set_learning_rate(self) -> None:
        """Set the driver's learning rate, unless the optimizer has a schedule."""
        rate = self.instructions.learning_rate
        rate = self.task.learning_rate if rate is None else rate
        if rate is not None:
            self.replica.learning_rate = rate

    def report_metrics(self, epoch: int, started: float) -> None:
        """Report the metric state and the figures of an epoch. A second report replaces the first.

        Seconds, bytes and waiting times are counted from one report to the next. `rest` returns
        those after the last report of a job, so that together they are complete.
        """
        check_finite(self.replica, self.task.fit.plan, epoch)
        began, self.reported = self.reported or started, time.perf_counter()
        usage = self.new_usage(self.reported - began)
        facts = facts_of(self.batches, self.examples(epoch), self.state_kept, usage)
        facts = replace(facts, uncounted=self.uncounted or None)
        report = MetricsReport(epoch, facts, self.replica.counters)
        self.client.report(report.to_json(), self.replica.metric_state())
        self.state_kept = True

    def rest(self) -> Usage:
        """Return the usage after the last epoch's report: the last exchange of the job."""
        return self.new_usage(time.perf_counter() - self.reported if self.reported else 0.0)

    def new_usage(self, seconds: float) -> Usage:
        """Return `seconds` with the connection's bytes and waiting time since the last report."""
        client, before = self.client, self.counted
        waited = client.seconds_waiting + self.waited
        self.counted = Usage(0.0, waited, client.bytes_sent, client.bytes_received)
        return Usage(
            seconds,
            self.counted.waiting - before.waiting,
            self.counted.bytes_sent - before.bytes_sent,
            self.counted.bytes_received - before.bytes_received,
        )

    def end(self, report: EpochEnd) -> Instructions:
        """Save the shard's state, report the end of the epoch, and wait for the driver.

        Args:
            report: `EpochEnd`.

        Returns:
            The driver's `Instructions`.
        """
        with doing(FILES):
            self.state.save(self.replica, report.epoch)
        if self.packer.residual is not None:
            self.state.save_residual(self.packer.residual, report.epoch)
        instructions = Instructions(hold=True)
        while instructions.hold:  # The driver has not finished this epoch yet.
            answer, _ = self.client.report(report.to_json())
            instructions = Instructions.from_json(answer)
        self.instructions = instructions
        return instructions
