"""What all kinds of input have in common once they are distributed examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from kspark.cluster.results import Results
from kspark.shards import Chunk

CHUNK_BYTES = 8 << 20
"""About how much data is converted at a time: enough for numpy to be fast, little to hold."""

CHUNK_ROWS = 4096

Task = Callable[[int, Iterator[Chunk]], Iterator[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what.

    Attributes:
        features_col: A column; or a list of columns, which are put side by side
            for a model of one input, and are one per input for a model of
            several; or a dictionary from input name to column(s).
        label_col: As `features_col`, for the targets; `None` if there are no labels.
        weight_col: The column of sample weights, or `None`.
    """

    features_col: str | list[str] | dict[str, str | list[str]] = "features"
    label_col: str | list[str] | dict[str, str | list[str]] | None = "label"
    weight_col: str | None = None


class Examples(ABC):
    """A distributed data set that can be read as `Chunk`s on the executors.

    Whoever calls `map_chunks` calls `close` when the result is not needed any
    more, nor recomputed; a `with` block does.

    Attributes:
        num_examples: Integer, rows of the whole data set, or `None` while only
            the executors can tell.
    """

    num_examples: int | None = None

    @property
    @abstractmethod
    def num_partitions(self) -> int:
        """Number of partitions."""

    @property
    def text_labels(self) -> dict[str, str]:
        """Targets that hold text, as far as is known without a job, and where it was found."""
        return {}

    @abstractmethod
    def map_chunks(self, task: Task) -> Results:
        """Run a task over the rows of every partition.

        Args:
            task: Callable of the partition's number and an iterator of
                `Chunk`, returning an iterator of objects that Spark can pickle.
                It runs on the executors, so it should come from
                `kspark.cluster.bootstrap.ship`. It need not read to the end: that is
                done for it, or Spark would throw the Python worker away.

        Returns:
            What the tasks yield, in the order of the partitions, lazily: an RDD, or
            what has the methods of one that kspark uses.
        """

    def repartition(self, num_partitions: int) -> Examples:
        """The same rows in exactly so many partitions; nothing moves if they are that many."""
        if num_partitions == self.num_partitions:
            return self
        return self._repartition(num_partitions)

    @abstractmethod
    def _repartition(self, num_partitions: int) -> Examples:
        """`repartition`, when the number differs."""

    def split(self, validation_split: float) -> tuple[Examples, Examples] | None:
        """The rows to train on and the last fraction, if it is known which rows are last.

        Args:
            validation_split: Float between 0 and 1.

        Returns:
            Two `Examples`, or `None` if each shard has to be split by itself.
        """
        return None

    def close(self) -> None:  # noqa: B027 (most kinds of input hold nothing)
        """Give back what `map_chunks` holds on the driver. May be called more than once."""

    def __enter__(self) -> Examples:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run_task(
    task: Task, index: int, source: Iterator[T], read: Callable[[Iterator[T]], Iterator[Chunk]]
) -> Iterator[Any]:
    """Run a task in a Spark task and read what it leaves over.

    Args:
        task: As in `Examples.map_chunks`.
        index: Integer, the partition.
        source: Iterator of what Spark gives.
        read: Callable that makes chunks of it.
    """
    yield from task(index, read(source))
    for _ in source:
        pass
