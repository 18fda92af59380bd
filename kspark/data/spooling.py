"""Spool rows to the executors' disks once, for several fits."""

from __future__ import annotations

import logging
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters import Columns, Examples, Spooled, adapt, readable
from kspark.adapters.array_files import loaded
from kspark.adapters.factories import is_factory
from kspark.adapters.file_paths import is_files, open_files, warn_of_paths
from kspark.adapters.layout import Layout
from kspark.adapters.spooled import StoredPlan
from kspark.adapters.unused import check_columns_used
from kspark.cluster.interrupts import defers_interrupts
from kspark.cluster.running import check_running, is_stopped
from kspark.data.layouts import layout_of
from kspark.errors import ClusterError, Described, invalid, invalid_type
from kspark.job.example import first_of_examples
from kspark.job.stored import SpooledRows, StoredExamples
from kspark.plan.checks import check_integer
from kspark.session.default import session_of
from kspark.shards import InputSpec
from kspark.tracebacks import shows_the_users_line

logger = logging.getLogger("kspark")


class SpooledData(Spooled):
    """Rows on the local disks of the executors, for several fits. `spool` makes it.

    Pass it as `x` to `fit`, `evaluate` and `predict` of any number of models, or as
    `validation_data`. Each fit gets links to the files, so that it neither reads the source again
    nor copies the rows, unless the model takes them in another type. Several fits may run at the
    same time. The files exist until `close`, the end of a `with` block, or the end of the Spark
    session, and until no variable refers to the object any more.

    Example:

    ```python
    rows = kspark.data.spool(x, y)
    first = SparkModel(one_model()).fit(rows, epochs=5)
    second = SparkModel(another_model()).fit(rows, epochs=5, validation_split=0.1)
    rows.close()
    ```

    Args:
        rows: The files. `spool` gives them.
        layout: Which arrays are features, labels and weights.

    Attributes:
        sparkSession: `SparkSession` of the executors.
    """

    def __init__(self, rows: SpooledRows, layout: Layout) -> None:
        self._rows = rows
        self._layout = layout
        self._closing = threading.Lock()
        self._forgotten = weakref.finalize(self, close_in_background, rows)
        self._forgotten.atexit = False  # Spark deletes the files with the session.

    @property
    def sparkSession(self) -> SparkSession:
        """The `SparkSession` of the executors."""
        return self._rows.spark

    @property
    def is_closed(self) -> bool:
        """Whether the files were deleted by `close`."""
        return not self._forgotten.alive

    @property
    def num_examples(self) -> int:
        """Number of rows."""
        return sum(handle.num_examples for handle in self._rows.infos)

    @property
    def num_shards(self) -> int:
        """Number of shards, which is the number of workers of a fit without `num_workers`."""
        return len(self._rows.infos)

    @property
    def nbytes(self) -> int:
        """Bytes of the files on all hosts together."""
        return sum(handle.nbytes for handle in self._rows.infos)

    @property
    def places(self) -> list[tuple[str, str]]:
        """Pairs of a host and a folder on it, one per shard, in the order of the shards.

        After an executor was lost, they are those of the new files as soon as a fit has used them.
        """
        return [(handle.host, handle.path) for handle in self._rows.infos]

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts that have shards, sorted."""
        return sorted({host for host, _ in self.places})

    def close(self) -> None:
        """Delete the files. May be called more than once.

        Fits that use the rows must have ended.
        """
        with self._closing:
            if self.is_closed:
                return
            close_or_forget(self._rows)
            self._forgotten.detach()

    def check_open(self) -> None:
        """Check that the rows can be used.

        Raises:
            ValueError: If `close` was called.
            ClusterError: If the Spark session was stopped.
        """
        if self.is_closed:
            rule = "spooled rows that are not closed; spool them again with `kspark.data.spool`"
            raise invalid("x", rule, Described(repr(self)))
        if is_stopped(self._rows.spark):
            raise ClusterError(
                "The Spark session of these spooled rows was stopped, and their files were "
                "deleted with it. Start a session, and spool the rows again."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that became one array, the features; empty for other data."""
        return self._layout.x.columns

    def example(self) -> Any:
        """Return features of the shape and type of the first row, with invented values."""
        stored = next(handle for handle in self._rows.infos if handle.num_examples).x
        rows = [
            np.full((1, *one.shape), "", object)
            if one.is_text
            else np.zeros((1, *one.shape), one.dtype)
            for one in stored
        ]
        return self._layout.x.arranged(rows)

    def first_row(self) -> Any:
        """Return the features of the first row, in their structure. Runs a small job.

        Raises:
            ValueError: If `close` was called.
            ClusterError: If the Spark session was stopped.
        """
        group = self._layout.x
        examples = self.examples(InputSpec(group.specs))
        return group.arranged(first_of_examples(self.sparkSession, examples))

    def examples(self, spec: InputSpec) -> Examples:
        """Return the rows as `Examples` for a model. `fit`, `evaluate` and `predict` call this.

        Args:
            spec: `InputSpec` of the model.

        Raises:
            ValueError: If the model does not take them, or `close` was called.
            ClusterError: If the Spark session was stopped.
        """
        self.check_open()
        plan = StoredPlan.of(self._layout, spec)
        for handle in self._rows.infos:
            plan.described(handle)  # checks kinds and shapes
        return StoredExamples(self._rows, plan, self._rows.counts, owner=self)

    def __getattr__(self, name: str) -> Any:
        # Where Spark uses spooled rows as a DataFrame.
        raise AttributeError(
            f"Spooled rows have no attribute {name!r}, because they are no DataFrame. Use them in "
            "`fit`, `evaluate` and `predict` of `SparkModel`, for example in a loop over "
            "parameters. `CrossValidator`, evaluators and stages take the DataFrame itself."
        )

    def __enter__(self) -> SpooledData:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.is_closed else ""
        return (
            f"SpooledData(examples={self.num_examples:,}, shards={self.num_shards}, "
            f"nbytes={self.nbytes:,}, hosts={self.hosts}{state})"
        )


@contextmanager
def names_data() -> Iterator[None]:
    """Name the argument `data` in errors of the block that call it `x`, as `fit` does."""
    try:
        yield
    except (ValueError, TypeError) as error:
        text = str(error)
        if not text.startswith(("`x`", "`x[")):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        text = text.replace("`x", "`data", 1).replace("Received: x=", "Received: data=", 1)
        raise kind(text) from error


def close_or_forget(rows: SpooledRows) -> None:
    """Delete the files, unless they were deleted with the session."""
    if is_stopped(rows.spark):
        rows.forget()
    else:
        rows.close()


def close_in_background(rows: SpooledRows) -> None:
    """Delete the files of rows that no variable refers to any more.

    The garbage collector may call this in the middle of a call into the JVM. So another thread
    runs the job.
    """

    def close() -> None:
        try:
            close_or_forget(rows)
        except Exception as error:  # noqa: BLE001 - The session may end at the same moment.
            logger.debug("The files of spooled rows could not be deleted: %s", error)

    threading.Thread(target=close, name="kspark-close-spooled-rows", daemon=True).start()


@shows_the_users_line
@defers_interrupts
def spool(
    data: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    features_col: Any = "features",
    label_col: Any = "label",
    weight_col: Any = None,
    filters: Any = None,
    num_workers: int | None = None,
) -> SpooledData:
    """Write rows to the local disks of the executors once, for several fits.

    `fit` does the same at its beginning, and deletes the files at its end. Use `spool` to train
    several models, or one model several times, on rows that take long to read: the source is read
    only once.

    The rows may be used with any model that takes their shapes. Integers, booleans, text and
    bytes are stored as they are, and floating point numbers as `keras.config.floatx()`. A model
    that takes another type gets converted rows, which each fit writes again.

    Example:

    ```python
    with kspark.data.spool(frame, features_col="pixels", label_col="digit") as rows:
        print(rows)  # SpooledData(examples=60,000, shards=4, nbytes=188,640,000, hosts=['a', 'b'])
        for units in (64, 128, 256):
            SparkModel(model_of(units)).fit(rows, epochs=5, validation_split=0.1)
    ```

    Args:
        data: Features, of the same kinds as the `x` of `SparkModel.fit`. A list of arrays, or a
            dictionary, is for a model with several inputs.
        y: Labels, if `data` does not contain them. Defaults to `None`.
        sample_weight: Array of one weight per example, if `data` does not contain them. Defaults
            to `None`.
        features_col: Column of the features in a table; a list of columns, which become one input
            side by side; or a dictionary from the names of the model's inputs to column(s).
            `preprocess` gets a column, or the arrays of a dictionary, by their names, but does
            not take a list of several columns. Defaults to `"features"`.
        label_col: Column of the labels, or a dictionary from the names of the model's outputs to
            columns. `None` if the data contains no labels, as for `predict`. Defaults to
            `"label"`.
        weight_col: Column of the sample weights, or a dictionary as for `label_col`. Defaults to
            `None`.
        filters: Which rows of Parquet files to spool, as for `SparkModel.fit`. Defaults to `None`,
            all rows.
        num_workers: Integer >= 1, the number of shards. A `SparkModel` with the same number, or
            `None`, trains on these shards; for another number, the rows of each fit are moved.
            Defaults to `None`: the number of partitions of the data, or of task slots for arrays
            and files.

    Returns:
        A `SpooledData`.

    Raises:
        ValueError: If an argument is out of range, or the data is not usable or has no rows.
        TypeError: If the data is of a kind that `fit` does not take.
        OSError: If files do not exist, or cannot be read.
        WorkerError: If a worker failed.
    """
    if num_workers is not None:
        check_integer("num_workers", num_workers, 1)
    if is_factory(data):
        rule = "rows that are kept: collect them in arrays, or pass the function to `fit`"
        found = Described("a function of (worker, num_workers), whose rows are not kept")
        raise invalid_type("data", rule, found)
    columns = Columns(features_col, label_col, weight_col)
    with names_data():
        x = readable(data)
        y, sample_weight = (loaded(part, archives=False) for part in (y, sample_weight))
        check_running(x)
        if isinstance(x, Spooled):
            raise invalid("data", "rows that are not spooled yet", x)
        spark = session_of(x)
        if is_files(x, labelled=y is not None):
            x = open_files(spark, x, filters)
        elif filters is not None:
            rule = (
                "None unless `data` names Parquet files; choose the rows of other data beforehand"
            )
            raise invalid("filters", rule, filters)
        else:
            warn_of_paths(x)
        check_columns_used(columns, x, y, sample_weight=sample_weight, name="data")
        layout = layout_of(spark, x, y, sample_weight, columns)
        examples = adapt(
            spark, x, y, sample_weight, spec=layout.spec, columns=columns, num_workers=num_workers
        )
    rows = SpooledRows(spark, examples, f"spool-{uuid.uuid4().hex[:12]}")
    with ExitStack() as undo:
        undo.enter_context(rows)
        if not rows.num_examples:
            raise examples.no_rows("data")
        undo.pop_all()
    handle = SpooledData(rows, layout)
    logger.info("Spooled %r.", handle)
    return handle
