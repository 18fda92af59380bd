"""Show the progress of a fit, an evaluation or a prediction, on a terminal or in a notebook.

The thread that waits for the workers shows it, so there is no other thread to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import keras
import numpy as np
from pyspark.sql import SparkSession

from kspark.cluster.engine import engine_of
from kspark.cluster.spark_job import SparkJob
from kspark.job.display import Display, bar_line, checked_verbose, columns
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
            total: Integer, number of examples of the epoch.
            metrics: Function that returns the metrics so far.
        """
        now = time.perf_counter()
        self._pace.note(now, done)
        if not self._is_due():
            return
        loss, *others = named(metrics()) or [""]
        speed = "" if self._pace.speed is None else f"{self._pace.speed:,.0f} examples/s"
        parts = [f"{done:,}/{total:,}", *self._time_left(done, total), loss, speed, *others]
        parts = [part for part in parts if part]
        width = columns() - 1
        self.display.show(bar_line(self._title(epoch), done / max(total, 1), parts, width))

    def show_tasks(self, epoch: int, job: SparkJob) -> None:
        """Show how many tasks of an epoch's Spark job have ended."""
        if self.display.moves:
            self.show_shards(epoch, *job.ended_tasks())

    def show_shards(self, epoch: int, done: int, total: int) -> None:
        """Show how many shards have trained an epoch."""
        if not self._is_due():
            return
        self.display.show(counted(self._title(epoch), done, total, "shards", self._epoch_began))

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

    def watch(self, job: SparkJob, what: str = "partitions") -> None:
        """Show how many partitions are done."""
        if self._is_due():
            done, total = job.ended_tasks()
            self.display.show(counted(self._title, done, total, what, self._began))

    def end(self, num_examples: int, metrics: Mapping[str, Any]) -> None:
        """Write the metrics and the speed."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        speed = f"{num_examples / seconds:,.0f} examples/s"
        self.display.line(" - ".join([self._title, f"{seconds:.1f}s", *named(metrics), speed]))


def counted(title: str, done: int, total: int, what: str, since: float) -> str:
    """Return a line with a bar of what is done, or with the time alone if that is unknown."""
    took = f"{time.perf_counter() - since:.0f}s"
    if not total:
        return f"{title} ... {took}"
    return bar_line(title, done / total, [f"{done}/{total} {what}", took], columns() - 1)


def named(metrics: Mapping[str, Any]) -> list[str]:
    """Return each metric with its name. One of several numbers is shown as their mean."""
    return [f"{name}: {np.mean(value):.4f}" for name, value in metrics.items()]
