"""RDDs of rows `(x, y)` or `(x, y, sample_weight)`, or of `x` if no labels are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from pyspark.sql import SparkSession

from kspark.adapters.base import CHUNK_BYTES, CHUNK_ROWS, Columns, Examples, Task, run_task
from kspark.adapters.conform import Place, conform, stack
from kspark.adapters.refusals import shown
from kspark.adapters.sparse import stack_rows
from kspark.adapters.structure import described, is_per_output, leaves, part_name, weight_specs
from kspark.classic import RDD
from kspark.cluster.bootstrap import ship
from kspark.errors import Described, invalid
from kspark.shards import ArraySpec, Block, Chunk, InputSpec

FIRST_ROWS = 64
"""Number of rows in the first chunk, from which the size of the next chunks is estimated."""

PieceKey = tuple[int, int, int]


class RDDExamples(Examples):
    """Rows of an RDD.

    Args:
        rdd: RDD of rows.
        spec: `InputSpec`.
    """

    def __init__(self, rdd: RDD[Any], spec: InputSpec) -> None:
        self._rdd = rdd
        self._spec = spec

    @property
    def num_partitions(self) -> int:
        """Number of partitions."""
        return self._rdd.getNumPartitions()

    def first_rows(self, count: int) -> RDDExamples:
        """See `Examples.first_rows`. Runs a job that counts the rows of each partition."""
        numbered = self._rdd.zipWithIndex()
        return RDDExamples(numbered.filter(lambda pair: pair[1] < count).keys(), self._spec)

    def _repartition(self, num_partitions: int) -> Examples:
        if self.num_partitions % num_partitions == 0:
            return RDDExamples(self._rdd.coalesce(num_partitions), self._spec)
        return PieceExamples(self._rdd, self._spec, num_partitions)

    def map_chunks(self, task: Task) -> RDD[Any]:
        """See `Examples.map_chunks`."""
        run = partial(ship(read_partition, self._spec), task)
        return self._rdd.mapPartitionsWithIndex(run)


class PieceExamples(Examples):
    """Rows of an RDD, shuffled to another number of partitions as columnar pieces.

    Every chunk is divided into one piece per new partition, so that the numbers of rows of
    the partitions differ only by a few. The pieces are sorted by their old partition, so that
    their order does not depend on the order of arrival.

    Args:
        rdd: RDD of rows.
        spec: `InputSpec`.
        num_partitions: Integer.
    """

    def __init__(self, rdd: RDD[Any], spec: InputSpec, num_partitions: int) -> None:
        self._rdd = rdd
        self._spec = spec
        self._num_partitions = num_partitions

    @property
    def num_partitions(self) -> int:
        """Number of partitions."""
        return self._num_partitions

    def first_rows(self, count: int) -> RDDExamples:
        """See `Examples.first_rows`. The rows are those of the RDD, before they were shuffled."""
        return RDDExamples(self._rdd, self._spec).first_rows(count)

    def _repartition(self, num_partitions: int) -> Examples:
        return RDDExamples(self._rdd, self._spec).repartition(num_partitions)

    def map_chunks(self, task: Task) -> RDD[Any]:
        """See `Examples.map_chunks`."""
        pieces = self._rdd.mapPartitionsWithIndex(
            ship(cut_partition, self._spec, self._num_partitions)
        )
        sorted_pieces = pieces.repartitionAndSortWithinPartitions(
            self._num_partitions, ship(target_of)
        )
        return sorted_pieces.mapPartitionsWithIndex(partial(ship(read_pieces), task))


def adapt_rdd(
    spark: SparkSession, x: RDD[Any], y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> RDDExamples:
    """Make examples from an RDD.

    Raises:
        ValueError: If `y` or `sample_weight` is set.
    """
    if y is not None or sample_weight is not None:
        name, value = ("y", y) if y is not None else ("sample_weight", sample_weight)
        rule = "None when x is an RDD, whose rows are (x, y, sample_weight)"
        raise invalid(name, rule, Described(shown(value)))
    return RDDExamples(x, spec)


@dataclass(frozen=True)
class RowReader:
    """Turns the rows of a partition into chunks.

    Args:
        spec: `InputSpec`.
        partition: Integer.
    """

    spec: InputSpec
    partition: int

    def __call__(self, rows: Iterator[Any]) -> Iterator[Chunk]:
        """Yield chunks of consecutive rows, of about `CHUNK_BYTES` each.

        Raises:
            ValueError: If a row does not fit the spec.
        """
        size, first = FIRST_ROWS, 0
        while block := list(islice(rows, size)):
            chunk = self.chunk(block, first)
            yield chunk
            first += len(block)
            row_bytes = max(1, chunk.nbytes // len(block))
            size = min(max(1, CHUNK_BYTES // row_bytes), CHUNK_ROWS)

    def chunk(self, rows: Sequence[Any], first: int) -> Chunk:
        """Make a chunk of some rows.

        Args:
            rows: Sequence of at least one row.
            first: Integer, index of the first row in the partition.
        """
        spec = self.spec
        if not spec.targets:
            return Chunk(self.arrays(rows, spec.inputs, "x", first))
        rows = self.tuples(rows, first)
        columns = list(zip(*rows, strict=True))
        chunk = Chunk(
            self.arrays(columns[0], spec.inputs, "x", first),
            self.arrays(columns[1], spec.targets, "y", first),
        )
        if len(columns) == 3:
            weights = weight_specs(columns[2][0], spec)
            chunk.sample_weight = self.arrays(columns[2], weights, "sample_weight", first)
        return chunk

    def tuples(self, rows: Sequence[Any], first: int) -> Sequence[Sequence[Any]]:
        """Return the rows as tuples of equal length, 2 or 3."""
        if hasattr(rows[0], "features") and not isinstance(rows[0], tuple):  # LabeledPoint
            rows = [(row.features, row.label) for row in rows]
        width = len(rows[0]) if isinstance(rows[0], list | tuple) else 0
        for i, row in enumerate(rows):
            if not isinstance(row, list | tuple) or len(row) != width or width not in (2, 3):
                place = Place("The RDD", self.partition, first)
                rule = (
                    "rows of (x, y), or all of (x, y, sample_weight); for rows with named columns, "
                    "pass the DataFrame `spark.createDataFrame(rdd)`"
                )
                raise place.error(rule, described(row), i)
        return rows

    def arrays(
        self, values: Sequence[Any], specs: Sequence[ArraySpec], name: str, first: int
    ) -> list[Any]:
        """Make one array per spec from one value per row. Only features may stay sparse."""
        outputs = self.spec.outputs if specs is self.spec.targets else ()
        parts: Sequence[Sequence[Any]] = [values]
        if len(specs) > 1 or isinstance(values[0], Mapping) or is_per_output(values[0], outputs):
            rows = (leaves(v, specs, f"{name} of a row", outputs) for v in values)
            parts = list(zip(*rows, strict=True))
        arrays, stacked = [], stack_rows if name == "x" else stack
        for i, spec in enumerate(specs):
            place = Place(part_name(name, specs, i), self.partition, first)
            found = stacked(parts[i], place, is_loose=spec.is_loose)
            arrays.append(conform(found, spec, self.spec.floatx, place))
        return arrays


def read_partition(spec: InputSpec, task: Task, index: int, rows: Iterator[Any]) -> Iterator[Any]:
    """Run a task over the rows of one partition. Runs on an executor."""
    return run_task(task, index, rows, RowReader(spec, index))


def cut_partition(
    spec: InputSpec, num_partitions: int, index: int, rows: Iterator[Any]
) -> Iterator[tuple[PieceKey, Block]]:
    """Yield pieces of a partition with their keys (new partition, old partition, number)."""
    return cut_chunks(RowReader(spec, index)(rows), num_partitions, index)


def cut_chunks(
    chunks: Iterable[Chunk], num_partitions: int, index: int
) -> Iterator[tuple[PieceKey, Block]]:
    """Cut each chunk of a partition into one piece for every new partition."""
    for number, chunk in enumerate(chunks):
        count = chunk.num_examples
        bounds = [count * i // num_partitions for i in range(num_partitions + 1)]
        for i, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
            if start < stop:
                # Rotate with every chunk, to spread the rows that do not divide evenly.
                target = (i + index + number) % num_partitions
                yield (target, index, number), chunk.rows(start, stop).block


def target_of(key: tuple[int, ...]) -> int:
    """Return the new partition of a piece."""
    return key[0]


def read_pieces(task: Task, index: int, pieces: Iterator[tuple[PieceKey, Block]]) -> Iterator[Any]:
    """Run a task over the pieces of one new partition. Runs on an executor."""
    return run_task(task, index, pieces, lambda source: (Chunk.of_block(p) for _, p in source))
