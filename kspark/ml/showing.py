"""`progress`: show how far an action on a lazy DataFrame has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from kspark.errors import invalid
from kspark.job.action_progress import ActionProgress
from kspark.session.default import active_session


@contextmanager
def progress(
    spark: SparkSession | None = None, *, verbose: str | int = "auto", title: str = "Spark"
) -> Iterator[None]:
    """Show how far the Spark jobs have come that begin in a block.

    `transform` is lazy: Spark scores the rows when an action needs them. On a terminal and in a
    notebook, a line moves while the action runs; at the end of the block, a line stays.

    The line shows the tasks of all jobs of this thread's job group, or of all threads without a
    group. Where the tasks run on the host of this process (a `local` master), it also shows how
    many rows models have scored, within each task, too. Over Spark Connect, the tasks are shown
    from Spark 4.0 on. If Spark shows its own bar in the terminal, only the last line is written.

    Example:

    ```python
    scored = fitted.transform(frame)
    with kspark.ml.progress():
        scored.write.parquet("scored")
    ```

    Args:
        spark: `SparkSession`. Defaults to `None`, the active one.
        verbose: 0 (silent), 1 (a line that moves, then a line), 2 (a line) or `"auto"`: 1 on a
            terminal or in a notebook, else 2. Defaults to `"auto"`.
        title: String, what the line begins with. Defaults to `"Spark"`.

    Raises:
        ValueError: If there is no session, or `verbose` is something else.
    """
    session = active_session() if spark is None else spark
    if session is None:
        raise invalid("spark", "a `SparkSession`, because none is active", spark)
    with ActionProgress(session, verbose, title):
        yield
