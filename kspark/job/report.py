"""`FitReport`: figures of a fit per epoch and worker, as data and as a plot."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kspark.job.plotting import (
    draw_staleness,
    draw_timeline,
    matplotlib_figure,
    spans_by_shard,
)
from kspark.job.tables import html_table, plural, text_table
from kspark.shards import LearningRate, ShardFacts, Usage

COLUMNS = (
    *("epoch", "examples", "computing s", "waiting s"),
    *("MB sent", "MB received", "rate", "staleness"),
)
"""Columns of the table of a `FitReport`."""

SHOWN_WORKERS = 8
"""Workers of which the title of a report shows the examples one by one."""

LINE = 80
"""Characters in a line of a terminal."""

LISTS = ("workers", "stragglers", "late")
"""Figures of an epoch that are lists, which the rows of a table leave out."""


@dataclass(frozen=True)
class Workload:
    """The work of one epoch.

    Attributes:
        num_examples: Integer, number of training examples. If they come from a function of the
            user, it is that of the last epoch; 0 before the first one.
        num_workers: Integer, number of shards with examples, each trained by one replica.
        batch_size: Integer, examples per local batch.
        updates: Integer, how often an epoch changes the global weights that replicas train from.
            Each merge and each push counts as one. 0 with the rule `"one_shot"`, whose replicas
            never take the merged weights.
        by_worker: Tuple of integers, the examples of each worker in the last epoch, if they come
            from a function of the user. Defaults to `()`.
    """

    num_examples: int
    num_workers: int
    batch_size: int
    updates: int
    by_worker: tuple[int, ...] = ()

    @property
    def global_batch(self) -> int:
        """Examples of one full local batch of each worker together."""
        return self.num_workers * self.batch_size

    def __str__(self) -> str:
        if not self.num_examples:  # Nobody knows it before the first epoch.
            return f"rows as they come, {plural(self.num_workers, 'worker')}"
        merged = "weights averaged when the fit ends"
        if self.updates:
            merged = f"{plural(self.updates, 'update')} of the weights per epoch"
        counts = f"{min(self.by_worker)} to {max(self.by_worker)} each" if self.by_worker else ""
        if 0 < len(self.by_worker) <= SHOWN_WORKERS:
            counts = " + ".join(map(str, self.by_worker))
        return (
            f"{plural(self.num_examples, 'example')}{counts and f' ({counts})'} with "
            f"{plural(self.num_workers, 'worker')}, "
            f"{plural(self.batch_size, 'example')} per batch and worker, "
            f"global batch {self.global_batch}, {merged}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the workload as JSON data."""
        figures = {name: value for name, value in asdict(self).items() if value != ()}
        return {**figures, "global_batch": self.global_batch}


@dataclass(frozen=True)
class EpochFacts:
    """The figures of one epoch.

    Attributes:
        epoch: Integer, counted from 0.
        merges: Integer, how often the global weights changed: once per round or meeting of all
            replicas, and once per push.
        workers: Tuple of one dictionary per shard with examples. Keys: `"shard"`, `"host"`,
            `"pid"`, `"batches"`, `"num_examples"`, `"seconds"`, `"waiting"` (the part of
            `"seconds"` in which the worker waited for a reply; the rest is computing),
            `"bytes_sent"`, `"bytes_received"` and `"state_kept"` (`False` if the worker's
            optimizer state of the epoch before was lost with its host).
            In rounds, `"waiting"` is 0, and the bytes are the sizes of the sent delta and of the
            sent weights. In other modes, the figures start at the worker's report of the epoch
            before: the last exchange of an epoch and the wait for the driver's callbacks belong
            to the next epoch, or to this one if it is the last of a job.
        staleness: Tuple of integers, one per push: the number of pushes of other workers since
            this worker pulled the weights. Empty where it is not counted: in synchronous
            modes and with shared memory.
        learning_rate: Float, the learning rate at which the workers began, scaled if `fit` was
            given `scale_lr`; `None` if the model uses a learning rate schedule; a tuple of these
            for a `MultiOptimizer`.
        stragglers: Tuple of integers, the shards that exceeded `straggler_timeout`, and without
            which the epoch's round was merged.
        late: Tuple of integers, the shards whose delta of an earlier round was merged in this
            one. Their number of rounds is `"rounds_late"` in `workers`.
    """

    epoch: int
    merges: int
    workers: tuple[Mapping[str, Any], ...] = ()
    staleness: tuple[int, ...] = ()
    learning_rate: LearningRate = None
    stragglers: tuple[int, ...] = ()
    late: tuple[int, ...] = ()

    @property
    def staleness_mean(self) -> float | None:
        """Mean staleness of the epoch's pushes; `None` where it is not counted."""
        return sum(self.staleness) / len(self.staleness) if self.staleness else None

    @property
    def staleness_max(self) -> int | None:
        """Maximum staleness of the epoch's pushes; `None` where it is not counted."""
        return max(self.staleness, default=None)

    def with_rest(self, rest: Mapping[int, Usage]) -> EpochFacts:
        """Return the epoch with what its workers used after their reports added.

        Args:
            rest: Mapping from shard to the `Usage` to add to the figures of its worker.
        """
        workers = tuple(
            add_usage(worker, rest[worker["shard"]]) if worker["shard"] in rest else worker
            for worker in self.workers
        )
        return replace(self, workers=workers)

    def table_row(self) -> tuple[str, ...]:
        """Return the epoch's figures as texts, one per column of `COLUMNS`."""
        figures = self.exchange(True)
        rates = (
            self.learning_rate if isinstance(self.learning_rate, tuple) else [self.learning_rate]
        )
        return (
            str(self.epoch + 1),
            f"{sum(worker.get('num_examples', 0) for worker in self.workers):,}",
            f"{figures['computing_seconds']:.2f}",
            f"{figures['waiting_seconds']:.2f}",
            f"{figures['bytes_sent'] / 1e6:.3g}",
            f"{figures['bytes_received'] / 1e6:.3g}",
            ", ".join("schedule" if one is None else f"{one:.4g}" for one in rates),
            "" if self.staleness_mean is None else f"{self.staleness_mean:.1f}",
        )

    def exchange(self, counted: bool) -> dict[str, float]:
        """Return the epoch's figures for `FitReport.exchanges`.

        Args:
            counted: Boolean, whether staleness is counted in this fit.
        """
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
        """Return the epoch as JSON data."""
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


@dataclass(frozen=True, repr=False)
class FitReport:
    """The figures of a fit per epoch and worker.

    ```python
    spark_model.fit(x, y, epochs=5)
    print(spark_model.last_fit)  # a table with a row per epoch
    pandas.DataFrame(spark_model.last_fit.rows())
    spark_model.last_fit.plot().savefig("fit.png")
    ```

    Attributes:
        mode: String, the mode of the fit.
        frequency: `"epoch"`, `"batch"` or an integer.
        epochs: Tuple of `EpochFacts`, in their order.
        workload: `Workload` of an epoch; `None` if the fit ended before the examples were
            spooled.
        road: String, how the driver and the workers exchanged at last: `"rounds"`, in a Spark job
            per epoch, or `"live"`, in a long Spark job whose tasks are connected to the driver.
            Empty if the fit ended before that was decided.
        road_reason: String, a sentence that says why.
        server_optimizer: String, the name of the rule that applied the merged deltas.
    """

    mode: str
    frequency: str | int
    epochs: tuple[EpochFacts, ...] = field(default=())
    workload: Workload | None = None
    road: str = ""
    road_reason: str = ""
    server_optimizer: str = "average"

    def __repr__(self) -> str:
        workers = None if self.workload is None else self.workload.num_workers
        return (
            f"FitReport(mode={self.mode!r}, frequency={self.frequency!r}, "
            f"server_optimizer={self.server_optimizer!r}, workers={workers}, "
            f"epochs={len(self.epochs)})"
        )

    def __str__(self) -> str:
        """Return a table with a row per epoch: means of the workers, and sums of their bytes."""
        table = f"\n{text_table(COLUMNS, self._table())}" if self.epochs else ""
        return f"{textwrap.fill(self._title(), LINE)}{table}"

    def _repr_html_(self) -> str:
        """Return the table as HTML, which notebooks show."""
        return html_table(self._title(), COLUMNS, self._table())

    def _title(self) -> str:
        work = "no epoch was trained" if self.workload is None else str(self.workload)
        return f"{self.mode}, {self.frequency!r}, rule {self.server_optimizer!r}: {work}"

    def _table(self) -> list[tuple[str, ...]]:
        return [facts.table_row() for facts in self.epochs]

    @property
    def workers(self) -> list[list[dict[str, Any]]]:
        """The figures of the workers: a list per epoch, of a dictionary per worker."""
        return [[dict(worker) for worker in facts.workers] for facts in self.epochs]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        epochs = [facts.to_dict() for facts in self.epochs]
        work = None if self.workload is None else self.workload.to_dict()
        return {
            "mode": self.mode,
            "frequency": self.frequency,
            "server_optimizer": self.server_optimizer,
            "workload": work,
            "road": self.road,
            "road_reason": self.road_reason,
            "epochs": epochs,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per epoch and worker, with the epoch's figures in each."""
        epochs = [(facts.to_dict(), facts.workers) for facts in self.epochs]
        return [
            {**{name: value for name, value in facts.items() if name not in LISTS}, **worker}
            for facts, workers in epochs
            for worker in workers
        ]

    def exchanges(self) -> dict[str, list[float]]:
        """Return the figures of the exchanges per epoch, in the form of `History.history`.

        Returns:
            Dictionary of lists with one number per epoch: `"merges"`; `"bytes_sent"` and
            `"bytes_received"`, sums over the workers; `"computing_seconds"` and
            `"waiting_seconds"`, means of the workers; and `"staleness_mean"` and
            `"staleness_max"`, where staleness is counted. Empty in the default mode, which
            exchanges weights once per epoch only.
        """
        if (self.mode, self.frequency) == ("synchronous", "epoch"):
            return {}
        counted = any(facts.staleness for facts in self.epochs)
        rows = [facts.exchange(counted) for facts in self.epochs]
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}

    def staleness_counts(self) -> dict[int, int]:
        """Return the number of pushes by staleness, over all epochs."""
        return dict(sorted(Counter(s for facts in self.epochs for s in facts.staleness).items()))

    def plot(self) -> Any:
        """Plot a timeline of the workers, and the staleness of their pushes.

        The timeline has a bar per worker with the seconds spent computing and waiting in each
        epoch. All bars begin at zero, because the clocks of different hosts are not compared.
        If the first epoch of a worker took more than twice as long as its later ones, the
        difference is to the left of zero: the worker started, imported Keras and compiled the
        training step.

        Returns:
            `matplotlib.figure.Figure`, which is not shown.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        figure_class = matplotlib_figure()
        histogram = self.staleness_counts()
        figure = figure_class(figsize=(10, 4), layout="constrained")
        axes = figure.subplots(1, 2 if histogram else 1, squeeze=False)[0]
        spans = [[(int(w["shard"]), spans_of(w)) for w in facts.workers] for facts in self.epochs]
        draw_timeline(axes[0], spans_by_shard(spans))
        if histogram:
            draw_staleness(axes[1], histogram)
        return figure


def worker_figures(shard: int, facts: ShardFacts) -> dict[str, Any]:
    """Return the entry of `EpochFacts.workers` for one shard."""
    return {"shard": shard, **facts.to_dict()}


def add_usage(worker: Mapping[str, Any], usage: Usage) -> dict[str, Any]:
    """Return the figures of a worker with `usage` added."""
    return {**worker, **{name: worker.get(name, 0) + n for name, n in asdict(usage).items()}}


def spans_of(worker: Mapping[str, Any]) -> tuple[float, float]:
    """Return the seconds that a worker spent computing and waiting in an epoch."""
    seconds = float(worker.get("seconds", 0.0))
    waiting = min(float(worker.get("waiting", 0.0)), seconds)
    return seconds - waiting, waiting
