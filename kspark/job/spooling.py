"""Examples on the executors' disks, and the persisted handles that name them."""

from __future__ import annotations

import json
import logging
from types import TracebackType
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.failures import worker_error
from kspark.cluster.results import Results
from kspark.cluster.spark_job import run, run_once
from kspark.errors import Failure, KSparkError
from kspark.shards import ShardHandle
from kspark.worker.spooling import clean_host, clean_up, spool_shard

logger = logging.getLogger("kspark")

CLEAN_UP_SECONDS = 30.0
"""How long files that nothing names may keep the user from hearing what went wrong."""


class SpooledExamples:
    """One shard per partition on local disk, for as long as the `with` block lasts.

    Args:
        spark: `SparkSession`.
        examples: `Examples` to spool.
        run_id: String that the files and state of this fit carry.

    Attributes:
        handles: Persisted `Results` of shard handles as bytes.
        infos: List of `ShardHandle`, sorted by shard.
    """

    def __init__(self, spark: SparkSession, examples: Examples, run_id: str) -> None:
        self.spark = spark
        self.run_id = run_id
        self._examples = examples
        self.handles: Any = None
        self.infos: list[ShardHandle] = []

    def __enter__(self) -> SpooledExamples:
        try:
            self.spool()
        except BaseException:
            self._unpersist()
            self._examples.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def spool(self) -> None:
        """Read the user's data once and write it to the executors' disks.

        What is there already is deleted if a part of it cannot be written.
        """
        task = ship(spool_shard, self.run_id)
        self.handles = self._examples.map_chunks(task).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            documents = run_once(self.spark, self.handles, "kspark: spool the examples")
            self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)
        except BaseException:
            self._unpersist()
            self._discard()
            raise

    def respool(self) -> None:
        """Spool again, after a host lost the files.

        Raises:
            ValueError: If the input gives other rows the second time.
        """
        logger.warning("The examples of a shard are gone from its host; spooling them again.")
        before = self.counts
        self._unpersist()
        self.spool()
        if self.counts != before:
            raise ValueError(
                f"The input was read again, because an executor was lost, and gave other numbers "
                f"of rows: {self.counts} by partition now, {before} before. It must give the same "
                "rows each time: persist it, or write it to a file before `fit`."
            )

    @property
    def counts(self) -> dict[int, int]:
        """Mapping from shard to its number of examples."""
        return {h.index: h.num_examples for h in self.infos}

    @property
    def num_examples(self) -> int:
        """Examples of all shards."""
        return sum(self.counts.values())

    def close(self) -> None:
        """Delete the files on the executors and the persisted handles. Never raises KSparkError."""
        if self.handles is None:
            self._examples.close()
            return
        try:
            task = ship(clean_up, self.run_id)
            self._clean_up(self.handles.mapPartitionsWithIndex(task))
        finally:
            self._unpersist()
            self._examples.close()  # not before: the job may compute a lost handle again

    def _discard(self) -> None:
        """Delete files whose handles never came; asking for these would write them again."""
        task = ship(clean_host, self.run_id)
        self._clean_up(engine_of(self.spark).on_every_slot(task, per_slot=2), CLEAN_UP_SECONDS)

    def _clean_up(self, deletions: Results, timeout: float | None = None) -> None:
        try:
            run(self.spark, deletions, "kspark: clean up", timeout=timeout)
        except KSparkError as error:
            logger.warning("Some temporary files of this fit could not be deleted: %s", error)

    def _unpersist(self) -> None:
        if self.handles is not None:
            self.handles.unpersist(blocking=False)
            self.handles = None


def read_handle(document: bytes) -> ShardHandle:
    """A shard handle; a failure in its place is raised.

    Raises:
        ValueError: If the rows of the partition were not usable.
        TypeError: As above, for values of a wrong type.
    """
    if document.startswith(b'{"failure"'):
        failure = Failure(**json.loads(document)["failure"])
        kinds = {"ValueError": ValueError, "TypeError": TypeError}
        kind = kinds.get(failure.kind)
        raise kind(failure.message) if kind else worker_error(failure)
    return ShardHandle.from_json(document)
