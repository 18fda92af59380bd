"""What the loops of the live road share: one replica at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kspark.replica import Replica, ReplicaSpec
from kspark.shards import Shard, Window
from kspark.transport import AggregatorClient
from kspark.weights import delta
from kspark.worker.results import FitTask, facts_of, state_of
from kspark.worker.rounds import check_finite, weighted
from kspark.worker.state import ShardState


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
    """One replica at work: what the three loops share."""

    task: LiveTask
    spec: ReplicaSpec
    replica: Replica
    shard: Shard
    state: ShardState
    client: AggregatorClient
    num_examples: int
    welcome: dict[str, Any]
    continued: bool = False
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def stopped(self) -> bool:
        """Whether the driver has said that training is over."""
        return bool(self.welcome.get("stop"))

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

    def windows(self, epoch: int) -> Iterator[Window]:
        """The training rows of an epoch."""
        plan = self.task.fit.plan
        rng = plan.generator(self.shard.index, epoch)
        for window in self.shard.windows(plan.batch_size, stop=self.num_examples, rng=rng):
            yield weighted(window, plan)

    def begin(self, epoch: int) -> None:
        """Fresh metrics, and the shard's own state as of the beginning of the epoch."""
        self.resume(epoch)
        self.set_learning_rate(self.welcome)
        self.replica.reset_metrics()

    def resume(self, epoch: int) -> None:
        """The shard's own state as of the beginning of `epoch`, unless the replica is in it."""
        if not self.continued:
            self.state.restore(self.replica, epoch, self.task.fit.plan)
            self.continued = True

    def kept_state(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The replica's state at the end of the job, also if an earlier attempt had trained it."""
        self.resume(self.task.stop_epoch)
        return state_of(self.replica)

    def set_learning_rate(self, control: dict[str, Any]) -> None:
        """Follow the driver's learning rate, unless a schedule is at work."""
        rate = control.get("learning_rate")
        rate = self.task.learning_rate if rate is None else rate
        if rate is not None:
            self.replica.learning_rate = rate

    def report_metrics(self, epoch: int, started: float) -> None:
        """Tell the driver the epoch's metric state; telling it twice changes nothing."""
        check_finite(self.replica, self.task.fit.plan, epoch)
        facts = facts_of(
            started,
            self.batches,
            num_examples=self.num_examples,
            **self.new_counts(),
        )
        meta = {"kind": "metrics", "epoch": epoch, "facts": facts}
        self.client.report(meta, self.replica.metric_state())

    def new_counts(self) -> dict[str, Any]:
        """What the connection has counted since the last epoch's report."""
        now = {
            "waiting": self.client.seconds_waiting,
            "bytes_sent": self.client.bytes_sent,
            "bytes_received": self.client.bytes_received,
        }
        counts = {name: value - self.counted[name] for name, value in now.items()}
        self.counted.update(counts)
        return counts

    def end(self, epoch: int, **more: Any) -> dict[str, Any]:
        """Keep the shard's state and tell the driver that the epoch is done.

        Returns:
            Dictionary, the driver's word on how to go on.
        """
        self.state.save(self.replica, epoch)
        control: dict[str, Any] = {"hold": True}
        while control.pop("hold", False):  # the driver is still busy with this epoch
            control, _ = self.client.report({"kind": "epoch", "epoch": epoch, **more})
        self.welcome.update(control)
        return control


def local_deltas(
    run: LiveRun, epoch: int, position: int, base: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Train an epoch in pieces: (number of the exchange, examples, delta).

    Each piece starts from what `base` holds by then, so the caller refreshes
    `base` before it asks for the next.

    Args:
        position: Integer, exchanges of this epoch that are done already.
        base: The weights to start from; read anew before every piece.
    """
    plan, fresh, count = run.task.fit.plan, True, 0
    change = np.empty_like(base)
    for window, start, stop, number, ends in pieces(run, epoch, position):
        if fresh:
            run.replica.set_vector(base)
            count = 0
        run.replica.train(window, plan.batch_size, start, stop)
        count += examples_in(window, plan.batch_size, start, stop)
        fresh = ends
        if ends:
            yield number, count, delta(run.replica.get_vector(change), base, out=change)


def pieces(run: LiveRun, epoch: int, position: int) -> Iterator[tuple[Window, int, int, int, bool]]:
    """Cut an epoch's windows at the exchanges: (window, start, stop, exchange, ends it?).

    `start` and `stop` count batches inside the window.
    """
    batch_size, local = run.task.fit.plan.batch_size, run.local
    for window in run.windows(epoch):
        first = window.first_batch
        last = first + -(-window.num_examples // batch_size)
        at = max(first, position * local)
        while at < last:
            number = at // local
            stop = min((number + 1) * local, last)
            ends = stop == (number + 1) * local or stop == run.batches
            yield window, at - first, stop - first, number, ends
            at = stop


def examples_in(window: Window, batch_size: int, start: int, stop: int) -> int:
    """Rows of some batches of a window."""
    return min(stop * batch_size, window.num_examples) - start * batch_size
