"""Predict Parquet files into a folder: by pyarrow, or by Spark where only Spark reaches a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame

from kspark import job
from kspark.adapters.dataframe import chosen_column
from kspark.adapters.file_paths import can_fall_back, frame_of, is_files, log_fallback, paths_of
from kspark.cluster.spark_job import Watch
from kspark.errors import invalid
from kspark.files.commit import Output
from kspark.files.paths import Resolved, resolve
from kspark.files.table import ParquetFiles


@dataclass(frozen=True)
class Destination:
    """Where predictions of files are written.

    Attributes:
        path: String or `os.PathLike`, the folder.
        columns: Sequence of strings, the columns to keep; `None` for all.
        overwrite: Boolean, whether an existing folder is replaced.
        given: The paths of the files, from which Spark reads if only Spark reaches the folder.
        filters: Which of their rows.
    """

    path: Any
    columns: Sequence[str] | None
    overwrite: bool
    given: Any
    filters: Any

    @classmethod
    def of(
        cls, output: Any, columns: Any, overwrite: bool, x: Any, filters: Any
    ) -> Destination | None:
        """Check the arguments of `predict`; `None` if it is to return its predictions.

        Raises:
            ValueError: If they do not go together.
        """
        if output is None:
            if columns is not None or overwrite:
                name, value = ("columns", columns) if columns is not None else ("overwrite", True)
                raise invalid(name, "left out without `output`", value)
            return None
        if not is_files(x):
            rule = (
                "None unless `x` names Parquet files; predictions of a DataFrame are written with "
                "`.write.parquet(...)`, and those of other data are arrays, as for `np.save`"
            )
            raise invalid("output", rule, output)
        return cls(output, columns, overwrite, x, filters)


def score_to(
    destination: Destination,
    scoring: job.Scoring,
    rows: ParquetFiles | DataFrame,
    num_workers: int | None = None,
    count: int | None = None,
    watch: Watch | None = None,
) -> int | None:
    """Write the rows of files with scores of a model.

    Args:
        destination: `Destination`.
        scoring: `job.Scoring`.
        rows: `ParquetFiles`, or a DataFrame if only Spark reaches them.
        num_workers: Integer, number of tasks. Defaults to `None`; see `job.score_files`.
        count: Integer, number of rows to use, the first ones. Defaults to `None`, all.
        watch: `Watch` of the job. Defaults to `None`.

    Returns:
        Integer, number of rows; `None` if Spark wrote them.

    Raises:
        FileExistsError: If the destination exists, and is not to be replaced.
        ValueError: If a column is missing or taken, or not read or written.
        WorkerError: If a worker failed.
    """
    spark, kept = scoring.model.spark, destination.columns
    (path,) = paths_of(spark, destination.path)
    if isinstance(rows, ParquetFiles):
        try:
            output = Output(path, destination.overwrite)
        except Exception as error:
            if not can_fall_back([path], error):
                raise
            log_fallback([path], error)
            rows = frame_of(spark, destination.given, destination.filters)
        else:
            places = list(map(resolve, paths_of(spark, destination.given)))
            output.keep_outside(folders_of(rows, places))
            output.keep_from_patterns(places)
            output.keep_from_partitions(file.place for file in rows.files)
            rows = rows if count is None else rows.first(count)
            return job.score_files(scoring, rows, kept, output, num_workers, watch)
    scored = scoring.frame(rows if count is None else rows.limit(count))
    if kept is not None:
        names = [*kept, *(field.name for field in scoring.added)]
        scored = scored.select([chosen_column(scored, n, n, "columns") for n in names])
    files = rows.inputFiles()
    if destination.overwrite and any(is_in(path, file) for file in files):
        raise invalid("output", "a folder that does not hold files of `x`", path)
    for folder in paths_of(spark, destination.given):
        if is_in(folder, path) and any(is_in(folder, file) for file in files):
            raise invalid("output", f"a folder outside of {folder!r}, in `x`", path)
    scored.write.mode("overwrite" if destination.overwrite else "error").parquet(path)
    return None


def folders_of(rows: ParquetFiles, places: Sequence[Resolved]) -> list[Resolved]:
    """Return the paths that are folders of some files, and not files or patterns."""
    files = [file.place.path for file in rows.files]
    return [place for place in places if any(file.startswith(f"{place.path}/") for file in files)]


def is_in(folder: str, file: str) -> bool:
    """Whether a file, as Spark spells it, is in a folder that has a scheme."""
    return f"{unquote(file)}/".startswith(f"{unquote(folder).rstrip('/')}/")
