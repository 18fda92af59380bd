"""Show the progress of a fit, an evaluation or a prediction, on a terminal or in a notebook.

The thread that waits for the workers shows it. Only while Spark starts, another thread does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import keras
import numpy as np
from pyspark.sql import SparkSession

from kspark.cluster.engine import engine_of
from kspark.cluster.spark_job import SparkJob
from kspark.job.display import Bar, Display, Part, checked_verbose, columns
from kspark.job.pace import Pace

P = TypeVar("P", bound="Phases")

SHOW_SECONDS = 0.3
"""Seconds between two changes of a moving line."""

SILENT_SECONDS = 1.0
"""Seconds after which a phase also shows how long it has taken."""


class Phases:
    """Shows what a call waits for. Use it as a context manager, which leaves a fresh line.

    Args:
        verbose: As in `keras.Model.fit`.

    Attributes:
        display: `Display`.
    """

    def __init__(self, verbose: str | int) -> None:
        self.display = Display(checked_verbose(verbose))
        self._phase = ""
        self._since = self._shown_at = self._delay = 0.0

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.display.clear()
        else:
            self.display.close()

    def run_on(self, spark: SparkSession) -> None:
        """Show no moving line if Spark shows one in the same terminal."""
        if self.display.moves and engine_of(spark).shows_progress:
            self.display.give_way()

    def phase(self, text: str, delay: float = 0.0) -> None:
        """Show what begins now.

        Args:
            text: String.
            delay: Float, seconds before it is shown. Defaults to `0.0`.
        """
        self._phase, self._since, self._delay = text, time.perf_counter(), delay
        if not delay:
            self.display.show(f"{text} ...")

    def wait(self, more: str = "") -> None:
        """Show that the phase goes on, with a detail. Call it several times per second."""
        seconds = time.perf_counter() - self._since
        if self._phase and seconds >= self._delay and self._is_due():
            took = f" {seconds:.0f}s" if seconds > SILENT_SECONDS else ""
            self.display.show(f"{self._phase}{more and ': '}{more} ...{took}")

    @contextmanager
    def moving(self, text: str) -> Iterator[None]:
        """Show a phase that another thread keeps moving, while this one waits inside the block.

        Args:
            text: String.
        """
        self.phase(text)
        over = threading.Event()

        def move() -> None:
            while not over.wait(SHOW_SECONDS):
                self.wait()

        thread = threading.Thread(target=move, name="kspark-phase", daemon=True)
        if self.display.moves:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.ident is not None:
                thread.join()

    def watch(self, job: SparkJob, what: str = "partitions") -> None:
        """Show how many tasks of a Spark job have ended. See `kspark.cluster.spark_job.run`."""
        if self.display.moves:
            done, total = job.ended_tasks()
            self.wait(f"{done}/{total} {what}" if total else "")

    def _is_due(self) -> bool:
        now = time.perf_counter()
        due = self.display.moves and now - self._shown_at >= SHOW_SECONDS
        self._shown_at = now if due else self._shown_at
        return due


class Progress(keras.callbacks.Callback, Phases):
    """Shows a line per epoch: metrics, examples per second, estimated seconds left.

    With `verbose=1`, the line moves while the epoch is trained.

    Args:
        verbose: See `checked_verbose`.
        epochs: Integer, epoch at which to stop training.
        initial_epoch: Integer, epoch at which to start training.
    """

    def __init__(self, verbose: str | int, epochs: int, initial_epoch: int) -> None:
        keras.callbacks.Callback.__init__(self)
        Phases.__init__(self, verbose)
        self.epochs = epochs
        self.first = initial_epoch
        self.num_examples = 0
        self._epoch_began = time.perf_counter()
        self._pace = Pace(epochs - initial_epoch)
        self._bar = Bar()

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self._pace = Pace(self.epochs - self.first)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Show the number of the epoch."""
        self._epoch_began = time.perf_counter()
        self._pace.begin_epoch(self._epoch_began)
        self.phase(self._title(epoch))

    def show_epoch(
        self, epoch: int, done: int, total: int, metrics: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Show how far an epoch has come. Call it several times per second.

        Args:
            epoch: Integer.
            done: Integer, number of examples that all workers together have trained.
            total: Integer, number of examples of the epoch; 0 if it is not known.
            metrics: Function that returns the metrics so far.
        """
        self._pace.note(time.perf_counter(), done)
        if not self._is_due():
            return
        if not total:
            texts = [self._title(epoch), f"{done:,} examples", *named(metrics())]
            self.display.show(" - ".join(texts))
            return
        parts = paced_parts(self._pace, done, total, metrics())
        self._show_bar(epoch, done / total, parts)

    def show_tasks(self, epoch: int, job: SparkJob) -> None:
        """Show how many tasks of an epoch's Spark job have ended."""
        if self.display.moves:
            self.show_shards(epoch, *job.ended_tasks())

    def show_shards(self, epoch: int, done: int, total: int) -> None:
        """Show how many shards have trained an epoch."""
        if self._is_due():
            took = seconds_since(self._epoch_began)
            if total:
                self._show_bar(epoch, done / total, [of_total(done, total, " shards"), took])
            else:
                self.display.show(f"{self._title(epoch)} ... {took.value}s")

    def _show_bar(self, epoch: int, fraction: float, parts: Sequence[Part]) -> None:
        title = self._title(epoch).ljust(len(self._title(self.epochs - 1)))
        self.display.show(self._bar.line(title, fraction, parts, columns() - 1))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the metrics and the speed of the epoch."""
        now = time.perf_counter()
        self._pace.end_epoch(now, self.num_examples)
        seconds = max(now - self._epoch_began, 1e-9)
        parts = [
            self._title(epoch),
            f"{seconds:.1f}s",
            *named(logs or {}),
            f"{self.num_examples / seconds:,.0f} examples/s",
        ]
        if epoch + 1 < self.epochs:
            parts += self._time_left()
        self.display.line(" - ".join(parts))
        self.finish()

    def finish(self) -> None:
        """Show what follows the epochs, if it takes long."""
        self.phase("Finishing", SILENT_SECONDS)

    def _time_left(self, done: int = 0, total: int = 0) -> list[str]:
        left = self._pace.seconds_left(done, total)
        return [] if left is None else [f"ETA {left:.0f}s"]

    def say(self, text: str) -> None:
        """Write a line, unless the fit is silent."""
        self.display.line(text)

    def _title(self, epoch: int) -> str:
        return f"Epoch {epoch + 1}/{self.epochs}"


class CallProgress(Phases):
    """Shows the progress of an evaluation or a prediction.

    Args:
        verbose: As in `keras.Model.evaluate`.
        title: String, `"Evaluate"` or `"Predict"`.
    """

    def __init__(self, verbose: str | int, title: str) -> None:
        super().__init__(verbose)
        self._title = title
        self._began = time.perf_counter()
        self._total: int | None = None
        self._count: Callable[[], int] | None = None
        self._pace = Pace(1)
        self._bar = Bar()

    def begin(self, total: int | None, count: Callable[[], int] | None) -> None:
        """Begin with the rows.

        Args:
            total: Integer, number of rows; `None` if it is unknown.
            count: Function that returns how many rows are done; `None` if nobody counts them.
        """
        self._total, self._count = total, count
        self._pace.begin_epoch(time.perf_counter())

    def watch_rows(self, job: SparkJob) -> None:
        """Show how many rows are done, or else how many partitions. Begin before."""
        if not self._is_due():
            return
        done = 0 if self._count is None else self._count()
        self._pace.note(time.perf_counter(), done)
        took = seconds_since(self._began)
        if done and self._total is not None:
            self._show(done / self._total, paced_parts(self._pace, done, self._total, {}))
            return
        ended, tasks = job.ended_tasks()
        if not tasks or (self._total is not None and self._count is not None):
            self.display.show(f"{self._title} ... {took.value}s")
            return
        rows = [Part(f"{done:,}", "", " examples", 1)] if done else []
        parts = [of_total(ended, tasks, " partitions"), *rows, *speed_part(self._pace), took]
        self._show(ended / tasks, parts)

    def _show(self, fraction: float, parts: Sequence[Part]) -> None:
        self.display.show(self._bar.line(self._title, fraction, parts, columns() - 1))

    def end(self, num_examples: int, metrics: Mapping[str, Any]) -> None:
        """Write the metrics and the speed."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        speed = f"{num_examples / seconds:,.0f} examples/s"
        self.display.line(" - ".join([self._title, f"{seconds:.1f}s", *named(metrics), speed]))


def paced_parts(pace: Pace, done: int, total: int, metrics: Mapping[str, Any]) -> list[Part]:
    """Return what is beside a bar of examples, in the order of the line that stays."""
    left = pace.seconds_left(done, total)
    return [
        of_total(done, total),
        *(Part(value, f"{name}: ", rank=2 + (name != "loss")) for name, value in shown(metrics)),
        *speed_part(pace),
        *([] if left is None else [Part(f"{left:.0f}", "ETA ", "s", rank=1)]),
    ]


def of_total(done: int, total: int, what: str = "") -> Part:
    """Return how much of a total is done, as wide as it becomes."""
    return Part(f"{done:,}/{total:,}".rjust(2 * len(f"{total:,}") + 1), after=what)


def speed_part(pace: Pace) -> list[Part]:
    """Return the speed, if it is known."""
    return [] if pace.speed is None else [Part(f"{pace.speed:,.0f}", "", " examples/s", rank=4)]


def seconds_since(began: float) -> Part:
    """Return the whole seconds since a moment."""
    return Part(f"{time.perf_counter() - began:.0f}", after="s", rank=2)


def named(metrics: Mapping[str, Any]) -> list[str]:
    """Return each metric with its name."""
    return [f"{name}: {value}" for name, value in shown(metrics)]


def shown(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each metric with its number as text, in the order of Keras: that of their names.

    One of several numbers is shown as their mean.
    """
    return [(name, f"{np.mean(value):.4f}") for name, value in sorted(metrics.items())]
