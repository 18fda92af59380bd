"""`FitReport`: what a fit has to tell about its epochs and workers, as data and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kspark.shards import ShardFacts, Usage

LISTS = ("workers", "stragglers", "late")
"""What is told of an epoch in lists, which no row of a table holds."""

COMPUTING, WAITING = "tab:blue", "tab:orange"


@dataclass(frozen=True)
class Workload:
    """What there is to do in an epoch, and who does it.

    Attributes:
        num_examples: Integer, examples that train.
        num_workers: Integer, shards with examples: as many replicas train.
        batch_size: Integer, examples per local batch.
        updates: Integer, how often an epoch changes the global weights: with each merged
            gradient, delta or push.
    """

    num_examples: int
    num_workers: int
    batch_size: int
    updates: int

    @property
    def global_batch(self) -> int:
        """Examples that all workers together take per local batch, if none has fewer."""
        return self.num_workers * self.batch_size

    def __str__(self) -> str:
        return (
            f"{self.num_examples} examples with {self.num_workers} workers, "
            f"{self.batch_size} examples per batch and worker, global batch {self.global_batch}, "
            f"{self.updates} updates of the weights per epoch"
        )

    def to_dict(self) -> dict[str, int]:
        """The workload as JSON data."""
        return {**asdict(self), "global_batch": self.global_batch}


@dataclass(frozen=True)
class EpochFacts:
    """One epoch of a fit.

    Attributes:
        epoch: Integer, counted from 0.
        merges: Integer, how often the weights were merged: once per round or meeting,
            and once per push.
        workers: Tuple of dictionaries, one per shard with examples: `"shard"`, `"host"`,
            `"pid"`, `"batches"`, `"num_examples"`, `"seconds"`, `"waiting"`: the part of
            `"seconds"` in which the worker waited for an answer, so that the rest is
            computing; `"bytes_sent"` and `"bytes_received"`; and `"state_kept"`: whether the
            worker had the optimizer state of the epoch before, which ends with its host.
            In rounds nobody waits, and bytes are those of the delta and of the weights, as
            they are sent. In other modes, all count from the worker's report of the epoch
            before: the last exchange of an epoch and the wait for the driver's callbacks
            are in the figures of the next, or in its own if it is the last of a job.
        staleness: Tuple of integers, one per push: by how many pushes of others the
            weights had changed since the worker took them. Empty where nobody counts:
            in synchronous modes, and over shared memory.
        learning_rate: Float, what the workers were told to begin with, scaled if `fit` was
            given `scale_lr`; `None` if a schedule decides.
        stragglers: Tuple of integers, the shards that the epoch's round was merged without,
            because they took longer than `straggler_timeout`.
        late: Tuple of integers, the shards whose delta of an earlier round was merged in this
            one. In `workers`, their `"rounds_late"` tells by how many rounds.
    """

    epoch: int
    merges: int
    workers: tuple[Mapping[str, Any], ...] = ()
    staleness: tuple[int, ...] = ()
    learning_rate: float | None = None
    stragglers: tuple[int, ...] = ()
    late: tuple[int, ...] = ()

    @property
    def staleness_mean(self) -> float | None:
        """Mean staleness of the epoch's pushes, `None` where it is not counted."""
        return sum(self.staleness) / len(self.staleness) if self.staleness else None

    @property
    def staleness_max(self) -> int | None:
        """Staleness of the epoch's stalest push, `None` where it is not counted."""
        return max(self.staleness, default=None)

    def with_rest(self, rest: Mapping[int, Usage]) -> EpochFacts:
        """The epoch with what its workers did after they had reported it.

        Args:
            rest: Mapping from shard to `Usage` that is added to the figures of its worker.
        """
        workers = tuple(
            added(worker, rest[worker["shard"]]) if worker["shard"] in rest else worker
            for worker in self.workers
        )
        return replace(self, workers=workers)

    def exchange(self, counted: bool) -> dict[str, float]:
        """The figures of `FitReport.exchanges`, those of staleness if it is counted."""
        spans = [spans_of(worker) for worker in self.workers]
        means = [sum(column) / len(spans) for column in zip(*spans, strict=True)] or [0.0, 0.0]
        sums = {
            name: sum(worker.get(name, 0) for worker in self.workers)
            for name in ("bytes_sent", "bytes_received")
        }
        seconds = dict(zip(("computing_seconds", "waiting_seconds"), means, strict=True))
        figures = {"merges": self.merges, **sums, **seconds}
        if counted:
            figures["staleness_mean"] = self.staleness_mean or 0.0
            figures["staleness_max"] = self.staleness_max or 0
        return figures

    def to_dict(self) -> dict[str, Any]:
        """The epoch as JSON data."""
        return {
            "epoch": self.epoch,
            "merges": self.merges,
            "learning_rate": self.learning_rate,
            "staleness_mean": self.staleness_mean,
            "staleness_max": self.staleness_max,
            "stragglers": list(self.stragglers),
            "late": list(self.late),
            "workers": [dict(worker) for worker in self.workers],
        }


@dataclass(frozen=True)
class FitReport:
    """How a fit went, epoch by epoch and worker by worker.

    ```python
    spark_model.fit(x, y, epochs=5)
    pandas.DataFrame(spark_model.last_fit.rows())
    spark_model.last_fit.plot().savefig("fit.png")
    ```

    Attributes:
        mode: String, the mode of the fit.
        frequency: `"epoch"`, `"batch"` or an integer.
        epochs: Tuple of `EpochFacts`, in their order.
        workload: `Workload` of each epoch; `None` if the fit did not get as far.
    """

    mode: str
    frequency: str | int
    epochs: tuple[EpochFacts, ...] = field(default=())
    workload: Workload | None = None

    @property
    def workers(self) -> list[list[dict[str, Any]]]:
        """One list per epoch of dictionaries, one per worker."""
        return [[dict(worker) for worker in facts.workers] for facts in self.epochs]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data."""
        epochs = [facts.to_dict() for facts in self.epochs]
        work = None if self.workload is None else self.workload.to_dict()
        return {
            "mode": self.mode,
            "frequency": self.frequency,
            "workload": work,
            "epochs": epochs,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary per epoch and worker, with the epoch's own figures in each."""
        epochs = [(facts.to_dict(), facts.workers) for facts in self.epochs]
        return [
            {**{name: value for name, value in facts.items() if name not in LISTS}, **worker}
            for facts, workers in epochs
            for worker in workers
        ]

    def exchanges(self) -> dict[str, list[float]]:
        """What `History` tells of modes that exchange while they train: a figure per epoch.

        Returns:
            Dictionary of lists: `"merges"`; `"bytes_sent"` and `"bytes_received"` by all workers
            together; `"computing_seconds"` and `"waiting_seconds"`, means of the workers; and
            `"staleness_mean"` and `"staleness_max"`, where staleness is counted. Empty for
            rounds by epoch, of which Keras' own figures say enough.
        """
        if (self.mode, self.frequency) == ("synchronous", "epoch"):
            return {}
        counted = any(facts.staleness for facts in self.epochs)
        rows = [facts.exchange(counted) for facts in self.epochs]
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}

    def staleness_counts(self) -> dict[int, int]:
        """How many pushes were how stale, over all epochs."""
        return dict(sorted(Counter(s for facts in self.epochs for s in facts.staleness).items()))

    def plot(self) -> Any:
        """Draw a timeline of the workers, and how stale their pushes were.

        A bar per worker: for every epoch its time computing, and its time waiting. A
        worker's epochs are drawn one after the other from zero on: the clocks of
        different hosts are not compared.

        Returns:
            A `matplotlib` figure; it is not shown.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        figure_class = matplotlib_figure()
        histogram = self.staleness_counts()
        figure = figure_class(figsize=(10, 4), layout="constrained")
        axes = figure.subplots(1, 2 if histogram else 1, squeeze=False)[0]
        draw_timeline(axes[0], self.epochs)
        if histogram:
            draw_staleness(axes[1], histogram)
        return figure


def worker_figures(shard: int, facts: ShardFacts) -> dict[str, Any]:
    """What `EpochFacts.workers` tells of one shard."""
    return {"shard": shard, **facts.to_dict()}


def added(worker: Mapping[str, Any], more: Usage) -> dict[str, Any]:
    """A worker's figures, and more of some of them."""
    return {**worker, **{name: worker.get(name, 0) + n for name, n in asdict(more).items()}}


def matplotlib_figure() -> Any:
    """The class `matplotlib.figure.Figure`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`plot()` needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return Figure


def spans_of(worker: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds that a worker computed in an epoch, and those it waited."""
    seconds = float(worker.get("seconds", 0.0))
    waiting = min(float(worker.get("waiting", 0.0)), seconds)
    return seconds - waiting, waiting


def draw_timeline(axis: Any, epochs: Sequence[EpochFacts]) -> None:
    """A bar per shard, from the first epoch to the last."""
    ends: dict[int, float] = {}
    for facts in epochs:
        for worker in facts.workers:
            shard, (computing, waiting) = int(worker["shard"]), spans_of(worker)
            start = ends.get(shard, 0.0)
            axis.barh(shard, computing, left=start, color=COMPUTING, edgecolor="white")
            axis.barh(shard, waiting, left=start + computing, color=WAITING, edgecolor="white")
            ends[shard] = start + computing + waiting
    axis.barh([], [], color=COMPUTING, label="computing")
    axis.barh([], [], color=WAITING, label="waiting")
    axis.set(xlabel="seconds", ylabel="shard", title="Workers, epoch by epoch")
    axis.set_yticks(sorted(ends))
    axis.legend()


def draw_staleness(axis: Any, histogram: Mapping[int, int]) -> None:
    """How many pushes were how stale."""
    axis.bar(list(histogram), list(histogram.values()), width=0.9, color=COMPUTING)
    axis.set(xlabel="staleness in versions", ylabel="pushes", title="Staleness of the pushes")
