"""What the loops of the live road share: one replica at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kspark.live.transport import AggregatorClient
from kspark.live.wire import Instructions, Welcome
from kspark.replica import Replica, ReplicaSpec
from kspark.shards import Shard, Usage, Window
from kspark.weights import Packer, compute_delta
from kspark.worker.own_weights import PushedWeights, RoundWeights
from kspark.worker.state import ShardState
from kspark.worker.tasks import FitTask, State, check_finite, facts_of, state_of, weighted

DeltaExchange = Callable[[int, int, np.ndarray], None]
"""Called with the number of an exchange, the examples behind it, and a delta."""


@dataclass(frozen=True)
class LiveTask:
    """One live job of a fit.

    Attributes:
        fit: `FitTask`.
        stop_epoch: Integer, epoch to stop before.
        submission: Integer, how often the job was submitted before.
        host: String, where the aggregator listens.
        port: Integer.
        token: Bytes, the fit's secret.
        learning_rate: Float or `None`.
        wants_state: Boolean, whether optimizer state comes back at the end.
    """

    fit: FitTask
    stop_epoch: int
    submission: int
    host: str
    port: int
    token: bytes
    learning_rate: float | None
    wants_state: bool


@dataclass
class LiveRun:
    """One replica at work: what the three loops share.

    Attributes:
        task: `LiveTask`.
        spec: `ReplicaSpec`.
        replica: `Replica`.
        shard: `Shard` with the training rows.
        state: `ShardState`.
        client: `AggregatorClient` that is connected.
        num_examples: Integer, training rows of the shard.
        welcome: `Welcome`, where the replica began.
        continued: Boolean, whether the replica is in the shard's own state.
        state_kept: Boolean, whether the shard's state of the epoch before was there.
        reported: Float, when the last epoch was reported; 0 before the first.
        counted: `Usage` of the connection up to the last report, without seconds.
        instructions: `Instructions`, the last ones of the driver.
        packer: `Packer` of deltas or gradients.
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
    instructions: Instructions = field(init=False)
    packer: Packer = field(init=False)

    def __post_init__(self) -> None:
        self.instructions = self.welcome.instructions
        self.packer = self.task.fit.plan.packing(self.spec.weights).packer()

    @property
    def attempt(self) -> int:
        """What tells this attempt at the shard from all others."""
        return self.client.attempt

    @property
    def stopped(self) -> bool:
        """Whether the driver has said that training is over."""
        return self.instructions.stop

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return self.task.fit.plan.batches(self.num_examples)

    @property
    def local(self) -> int:
        """Local batches between two exchanges."""
        return self.task.fit.plan.local_batches(self.batches)

    @property
    def exchanges(self) -> int:
        """Exchanges an epoch."""
        return self.task.fit.plan.exchanges(self.num_examples)

    def own_weights(self) -> PushedWeights | None:
        """The weights that the shard's replica keeps for itself, if the rule lets it."""
        fit, folder = self.task.fit, self.state.folder
        if fit.rule is None:
            return None
        share = fit.share(self.num_examples)
        return PushedWeights(fit.rule, self.spec.weights, folder, share, fit.plan.mode)

    def round_weights(self, epoch: int) -> RoundWeights | None:
        """The same for a replica that meets all others, for a try at an epoch."""
        weights, folder = self.spec.weights, self.state.folder
        return RoundWeights.of(self.task.fit, weights, folder, self.num_examples, epoch)

    def windows(self, epoch: int) -> Iterator[Window]:
        """The training rows of an epoch."""
        plan = self.task.fit.plan
        rng = plan.generator(self.shard.index, epoch)
        for window in self.shard.windows(plan.batch_size, stop=self.num_examples, rng=rng):
            yield weighted(window, plan)

    def begin(self, epoch: int) -> None:
        """Fresh metrics, and the shard's own state as of the beginning of the epoch."""
        self.resume(epoch)
        self.state.depart()
        self.set_learning_rate()
        self.replica.reset_metrics()

    def resume(self, epoch: int) -> None:
        """The shard's own state as of the beginning of `epoch`, unless the replica is in it."""
        if not self.continued:
            plan = self.task.fit.plan
            self.state_kept = self.state.restore(self.replica, epoch, plan, self.batches)
            self.restore_residual(epoch)
            self.continued = True

    def restore_residual(self, epoch: int) -> None:
        """What packing had left over when `epoch` began.

        In the middle of an epoch that is not known: the attempt before has sent a part of it.
        None at all is safe, it only forgets; the same part must not be sent twice.
        """
        if self.packer.residual is not None:
            midway = bool(self.welcome.start.position)
            self.packer.restore(None if midway else self.state.load_residual(epoch - 1))

    def outgoing(self, delta: np.ndarray) -> np.ndarray:
        """A delta or gradient as it travels: as it is, or its payload."""
        return self.packer.pack(delta)

    def kept_state(self) -> State:
        """The replica's state at the end of the job, also if an earlier attempt had trained it."""
        self.resume(self.task.stop_epoch)
        return state_of(self.replica)

    def set_learning_rate(self) -> None:
        """Follow the driver's learning rate, unless a schedule is at work."""
        rate = self.instructions.learning_rate
        rate = self.task.learning_rate if rate is None else rate
        if rate is not None:
            self.replica.learning_rate = rate

    def report_metrics(self, epoch: int, started: float) -> None:
        """Tell the driver the epoch's metric state; telling it twice changes nothing.

        Seconds count from the report before, as bytes and waiting do; what follows the
        last report of a job is told by `rest`. Together they leave nothing out.
        """
        check_finite(self.replica, self.task.fit.plan, epoch)
        began, self.reported = self.reported or started, time.perf_counter()
        usage = self.new_usage(self.reported - began)
        facts = facts_of(self.batches, self.num_examples, self.state_kept, usage)
        meta = {"kind": "metrics", "epoch": epoch, "facts": facts.to_dict()}
        self.client.report(meta, self.replica.metric_state())
        self.state_kept = True

    def rest(self) -> Usage:
        """What followed the last epoch's report, at the end of the job: its last exchange."""
        return self.new_usage(time.perf_counter() - self.reported if self.reported else 0.0)

    def new_usage(self, seconds: float) -> Usage:
        """So many seconds, and what the connection has counted since the last epoch's report."""
        client, before = self.client, self.counted
        self.counted = Usage(0.0, client.seconds_waiting, client.bytes_sent, client.bytes_received)
        return Usage(
            seconds,
            self.counted.waiting - before.waiting,
            self.counted.bytes_sent - before.bytes_sent,
            self.counted.bytes_received - before.bytes_received,
        )

    def end(self, epoch: int, **more: Any) -> Instructions:
        """Keep the shard's state and tell the driver that the epoch is done.

        Returns:
            `Instructions` of the driver on how to go on.
        """
        self.state.save(self.replica, epoch)
        if self.packer.residual is not None:
            self.state.save_residual(self.packer.residual, epoch)
        instructions = Instructions(hold=True)
        while instructions.hold:  # the driver is still busy with this epoch
            answer, _ = self.client.report({"kind": "epoch", "epoch": epoch, **more})
            instructions = Instructions.from_json(answer)
        self.instructions = instructions
        return instructions


def train_exchanging(
    run: LiveRun, epoch: int, position: int, base: np.ndarray, exchange: DeltaExchange
) -> None:
    """Train what is left of an epoch, with an exchange after every `local` batches.

    The exchanges are called from inside the replica's compiled loop.

    Args:
        position: Integer, exchanges of this epoch that are done already.
        base: Vector, the weights to start from. `exchange` puts those into it to go on from.
        exchange: Called with the exchange's number in the epoch, the examples since the
            last one, and the delta; it may overwrite the delta. It may raise.
    """
    batch_size, delta = run.task.fit.plan.batch_size, np.empty_like(base)
    number, carried = position, 0

    def at_stop(vector: np.ndarray, count: int) -> np.ndarray:
        nonlocal number, carried
        exchange(number, carried + count, compute_delta(vector, base, out=delta))
        number, carried = number + 1, 0
        return base

    run.replica.set_vector(base)
    for window, start, stops, end in spans(run, epoch, position):
        run.replica.train_exchanging(window, batch_size, start, stops, at_stop)
        last = stops[-1] if stops else start
        if last < end:  # the next window holds the rest of this piece
            run.replica.train(window, batch_size, last, end)
            carried += examples_in(window, batch_size, last, end)


def spans(run: LiveRun, epoch: int, position: int) -> Iterator[tuple[Window, int, list[int], int]]:
    """An epoch's windows and the exchanges in them: (window, first batch, stops, end).

    All count batches inside the window. What is done by exchange `position` is left out.
    """
    plan, local = run.task.fit.plan, run.local
    for window in run.windows(epoch):
        first = window.first_batch
        last = first + plan.batches(window.num_examples)
        start = max(first, position * local)
        if start >= last:
            continue
        stops = list(range((start // local + 1) * local, last + 1, local))
        if last == run.batches and last % local:
            stops.append(last)
        yield window, start - first, [stop - first for stop in stops], last - first


def examples_in(window: Window, batch_size: int, start: int, stop: int) -> int:
    """Rows of some batches of a window."""
    return min(stop * batch_size, window.num_examples) - start * batch_size
