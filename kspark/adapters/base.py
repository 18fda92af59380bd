"""`Examples`, the interface of all kinds of distributed input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from kspark.cluster.results import Results
from kspark.errors import Described, invalid
from kspark.shards import Chunk, ShardHandle

CHUNK_BYTES = 8 << 20
"""Approximate size of the data that is converted at a time: large enough for NumPy to be fast,
and small compared to the memory of a worker."""

CHUNK_ROWS = 4096

Task = Callable[[int, Iterator[Chunk]], Iterator[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a table that have the features, labels and sample weights.

    Attributes:
        features_col: A column, a list of columns, or a dictionary from input name to
            column(s). A model with one input gets the columns of a list side by side; a
            model with several gets one each.
        label_col: As `features_col`, for the targets; `None` if there are no labels.
        weight_col: The column of sample weights, one weight per example or an array of one per
            time step; a list or dictionary of columns, one per target; or `None`.
    """

    features_col: str | list[str] | dict[str, str | list[str]] = "features"
    label_col: str | list[str] | dict[str, str | list[str]] | None = "label"
    weight_col: str | list[str] | dict[str, str | list[str]] | None = None


class Examples(ABC):
    """A distributed data set that can be read as `Chunk`s on the executors.

    The caller of `map_chunks` must call `close`, or use a `with` block, when the result is no
    longer needed and will not be recomputed.

    Attributes:
        num_examples: Integer, number of rows of the data set, or `None` if the driver does not
            know it.
    """

    num_examples: int | None = None

    @property
    @abstractmethod
    def num_partitions(self) -> int:
        """Number of partitions."""

    @property
    def is_single(self) -> bool:
        """Whether there is one partition, as far as the driver knows without a job."""
        return self.num_partitions == 1

    def no_rows(self, name: str) -> ValueError:
        """Return the error for data without rows, in the argument of a name."""
        return invalid(name, "a data set with at least one example", Described("0 examples"))

    @property
    def text_labels(self) -> dict[str, str]:
        """Targets that contain text, with its place, as far as the driver knows without a job."""
        return {}

    @property
    def summary(self) -> ShardHandle | None:
        """Shapes and statistics of labels and weights, or `None` if that needs a job."""
        return None

    @abstractmethod
    def map_chunks(self, task: Task) -> Results:
        """Run a task over the rows of every partition.

        Args:
            task: Callable of the partition's number and an iterator of
                `Chunk`, returning an iterator of objects that Spark can pickle.
                It runs on the executors, so it should come from
                `kspark.cluster.bootstrap.ship`. The rows that it does not read are read
                afterwards, because otherwise Spark would end the Python worker.

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
        """Repartition to another number of partitions than there are."""

    @abstractmethod
    def first_rows(self, count: int) -> Examples:
        """Return the first rows in the order of the data; all, if there are not more."""

    def split(self, validation_split: float) -> tuple[Examples, Examples] | None:
        """Split off the last fraction of the rows, if their order is known.

        Args:
            validation_split: Float between 0 and 1.

        Returns:
            Two `Examples`, or `None` if each shard must be split by itself.
        """
        return None

    def close(self) -> None:  # noqa: B027 (most kinds of input have no resources)
        """Free the resources of `map_chunks` on the driver. May be called more than once."""

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
    """Run a task in a Spark task, and then read the rest of the partition.

    Args:
        task: As in `Examples.map_chunks`.
        index: Integer, the partition.
        source: Iterator over the elements of the partition.
        read: Callable that turns `source` into an iterator of chunks.
    """
    yield from task(index, read(source))
    for _ in source:
        pass
