"""Show how far the Spark jobs of a block have come, while its thread waits for them."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType

from pyspark.sql import SparkSession

from kspark.cluster.addresses import tasks_are_here
from kspark.cluster.engine import engine_of
from kspark.cluster.new_jobs import new_jobs
from kspark.job.display import Bar, Part, columns
from kspark.job.pace import Pace
from kspark.job.progress import SHOW_SECONDS, Phases, of_total, seconds_since, speed_part
from kspark.job.row_counts import ScoringCounts
from kspark.job.tables import plural


class ActionProgress(Phases):
    """Shows the tasks of the jobs that begin in a block, and the rows that models score in them.

    Args:
        spark: `SparkSession`.
        verbose: As in `keras.Model.fit`.
        title: String, what is shown before the bar.
    """

    def __init__(self, spark: SparkSession, verbose: str | int, title: str) -> None:
        super().__init__(verbose)
        self._spark, self._title = spark, title
        self._bar, self._pace, self._rows = Bar(), Pace(1), 0
        self._counts: ScoringCounts | None = None
        self._opened = ExitStack()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ActionProgress:
        self.run_on(self._spark)
        with ExitStack() as opened:
            opened.callback(self.display.close)
            self._jobs = new_jobs(self._spark)
            opened.callback(self._jobs.close)
            if self.display.verbose and tasks_are_here(self._spark):
                self._counts = ScoringCounts()
                opened.callback(self._counts.close)
            self._began = time.perf_counter()
            self._pace.begin_epoch(self._began)
            if self.display.moves:
                opened.callback(self._over.set)
                self._thread = engine_of(self._spark).thread(self._run, "kspark-progress")
                self._thread.start()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._opened:
            self._over.set()
            if self._thread is not None:
                self._thread.join()
            if kind is None:
                self.display.line(self._summary())

    def _run(self) -> None:
        """Show the progress until the block is over. An error ends it: the block has its own."""
        try:
            while not self._over.wait(SHOW_SECONDS):
                self._show()
        except Exception:  # noqa: BLE001 (the session was stopped)
            return

    def _show(self) -> None:
        ended, total = self._jobs.ended_tasks()
        took = seconds_since(self._began)
        if not total:
            self.display.show(f"{self._title} ... {took.value}s")
            return
        rows = 0 if self._counts is None else self._counts.read()
        self._pace.note(time.perf_counter(), rows)
        seconds = time.perf_counter() - self._began
        parts = [
            of_total(ended, total, " tasks"),
            *([Part(f"{rows:,}", "", " examples", 1)] if rows else []),
            *speed_part(self._pace),
            *([Part(f"{seconds / ended * (total - ended):.0f}", "ETA ", "s", 1)] if ended else []),
            took,
        ]
        self.display.show(self._bar.line(self._title, ended / total, parts, columns() - 1))

    def _summary(self) -> str:
        seconds = max(time.perf_counter() - self._began, 1e-9)
        parts = [self._title, f"{seconds:.1f}s", plural(self._jobs.ended_tasks()[1], "task")]
        rows = 0 if self._counts is None else self._counts.read()
        if rows:
            parts += [f"{rows:,} examples", f"{rows / seconds:,.0f} examples/s"]
        return " - ".join(parts)
