"""Rows that were spooled once, as examples of any number of fits, evaluations and predictions."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.adapters.base import Task
from kspark.adapters.rdd import read_pieces, target_of
from kspark.adapters.spooled import StoredPlan
from kspark.cluster.bootstrap import ship
from kspark.cluster.remote import is_connect
from kspark.cluster.results import Results
from kspark.cluster.spark_job import JobLostError, Watch, run, run_once
from kspark.errors import ClusterError, invalid
from kspark.job.collecting import Retries, missing_of
from kspark.job.spooling import SpooledExamples, read_handle
from kspark.shards import ShardHandle, merge_label_stats
from kspark.worker.removal import clean_up, task_of
from kspark.worker.spooling import Again, spool_shard
from kspark.worker.stored import cut_stored, find_missing, link_shard, read_stored
from kspark.worker.tasks import MissingShard

logger = logging.getLogger("kspark")

MAX_FAILURES = 2
"""How often one use of spooled rows may lose a job or find files missing before it fails."""


class SpooledRows(SpooledExamples):
    """Rows that outlive a fit. Several threads may use them at the same time.

    Args:
        spark: `SparkSession`.
        examples: `Examples` to spool.
        run_id: String that names the files.
    """

    def __init__(self, spark: SparkSession, examples: Examples, run_id: str) -> None:
        super().__init__(spark, examples, run_id, is_loose=True)
        self._respooling = Lock()
        self._respooled = False

    def respool(self, hold: float = 0.0, *, delete: bool = True) -> None:
        """Spool again, unless another thread has done so in the meantime.

        With `hold`, the rows are spooled in any case. The files of before stay in any case, because
        other threads may read them.

        Raises:
            ValueError: If the partitions have other numbers of rows than the first time.
            ClusterError: If there are no rows any more, as another thread could not spool them.
        """
        with self._respooling:
            lost = self._known().mapPartitionsWithIndex(ship(find_missing))
            if hold or run(self.spark, lost, "kspark: look for spooled rows"):
                self._respooled = True
                super().respool(hold, delete=False)
            else:
                self.look()

    @property
    def documents(self) -> Results:
        """The handles of the shards, as `Results` of JSON documents.

        Raises:
            ClusterError: If there are none any more.
        """
        with self._respooling:
            return self._known()

    def _known(self) -> Results:
        if self.handles is None:
            raise ClusterError(
                "The spooled rows are gone: they were closed, or could not be spooled again "
                "after an executor was lost. Spool them again with `kspark.data.spool`."
            )
        found: Results = self.handles
        return found

    def noticed(self, handles: Iterable[ShardHandle]) -> None:
        """Look again where the shards are, if a fit has its own shards of them in other places.

        Spark computes the handles of a lost executor again, and so writes their rows, by itself.
        """
        known = {handle.index: disk_of(handle) for handle in self.infos}
        if all(known.get(handle.index) == disk_of(handle) for handle in handles):
            return
        with self._respooling, suppress(JobLostError):  # The next use notices the same.
            self.look()

    def look(self) -> None:
        """Look again where the shards are. Call it with the lock."""
        documents = run(self.spark, self._known(), "kspark: look for spooled rows")
        self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)

    def close(self, timeout: float | None = None) -> None:
        """Delete the files on the executors and the persisted handles.

        After an exception, such as an interrupt, it may be called again.
        """
        if self.handles is not None:
            task = task_of(clean_up, self.run_id)
            self._clean_up(self.handles.mapPartitionsWithIndex(task), timeout)
            if self._respooled:  # Executors that had shards before may have none now.
                self._discard()
            self.unpersist()
        self._examples.close()

    def forget(self) -> None:
        """Free what the driver holds, without a Spark job. The session deletes the files."""
        self.handles = None
        self._examples.close()


def disk_of(handle: ShardHandle) -> tuple[str, str]:
    """Return the host of a shard, and the folder on it in which the executor has all runs."""
    return handle.host, os.path.dirname(os.path.dirname(handle.path))


@dataclass(frozen=True)
class StoredExamples(Examples):
    """Spooled rows as one model takes them.

    Attributes:
        rows: `SpooledRows`.
        plan: `StoredPlan` of the model.
        counts: Dictionary from shard to the number of its rows to use, the first ones.
        owner: The user's handle, whose rows are kept as long as it is referred to.
        parts: Integer, number of partitions to move the rows to. Defaults to `None`, one per shard.
    """

    rows: SpooledRows
    plan: StoredPlan
    counts: Mapping[int, int]
    owner: object
    parts: int | None = None

    @property
    def num_examples(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return sum(self.counts.values())

    @property
    def num_partitions(self) -> int:
        """Number of partitions."""
        return len(self.counts) if self.parts is None else self.parts

    @property
    def text_labels(self) -> dict[str, str]:
        """See `Examples.text_labels`."""
        return {
            pick.spec.name: "text in the spooled rows"
            for pick, stored in zip(self.plan.y, self.summary.y, strict=False)
            if stored.is_text
        }

    @property
    def summary(self) -> ShardHandle:
        """See `Examples.summary`."""
        found = [self.plan.described(handle) for handle in self.rows.infos if handle.num_examples]
        return replace(
            found[0],
            index=0,
            num_examples=self.num_examples,
            stats=merge_label_stats(found),
        )

    def first_rows(self, count: int) -> StoredExamples:
        """See `Examples.first_rows`."""
        counts = {}
        for shard, rows in sorted(self.counts.items()):
            counts[shard] = min(rows, count)
            count -= counts[shard]
        return replace(self, counts=counts)

    def _repartition(self, num_partitions: int) -> StoredExamples:
        if is_connect(self.rows.spark):
            rule = (
                f"None or {len(self.counts)}, the number of shards of the spooled rows: over Spark "
                "Connect, they cannot be moved. Give `kspark.data.spool` this number"
            )
            raise invalid("num_workers", rule, num_partitions)
        parts = None if num_partitions == len(self.counts) else num_partitions
        return replace(self, parts=parts)

    def map_chunks(self, task: Task) -> Results:
        """See `Examples.map_chunks`. A task without its files yields a `MissingShard`."""
        if self.parts is None:
            run = partial(ship(read_stored, self.plan, dict(self.counts)), task)
            return self._map(run)
        pieces: Any = self._map(ship(cut_stored, self.plan, dict(self.counts), self.parts))
        moved = pieces.repartitionAndSortWithinPartitions(self.parts, ship(target_of))
        return moved.mapPartitionsWithIndex(partial(ship(read_pieces), task))

    def map_shards(self, run_id: str) -> Results:
        """Give a fit its own shards; see `link_shard`."""
        if self.parts is None:
            return self._map(ship(link_shard, run_id, self.plan, dict(self.counts)))
        return self.map_chunks(ship(spool_shard, run_id, self.plan.is_loose))

    def _map(self, task: Any) -> Results:
        return self.rows.documents.mapPartitionsWithIndex(task)

    def tried(
        self,
        run_job: Callable[[], list[Any]],
        missing_in: Callable[[list[Any]], list[MissingShard]],
    ) -> list[Any]:
        """Run a job until all of its tasks find the files of their shards.

        The rows are spooled again where files are gone from the host that wrote them.

        Raises:
            WorkerError: If the job was lost too often.
            ClusterError: If tasks kept running on hosts without their files.
        """
        retries = Retries(self.rows, MAX_FAILURES)
        is_lost = False
        while True:
            try:
                if is_lost:
                    self.rows.respool()
                    is_lost = False
                results = run_job()
                missing = missing_in(results)
                if not missing:
                    return results
                retries.after_missing_files(missing)
            except JobLostError as error:
                retries.after_lost_job(error)
                is_lost = True


class LinkedExamples(SpooledExamples):
    """The shards of one fit on spooled rows. Use it as a context manager, which deletes them.

    Args:
        spark: `SparkSession`.
        examples: `StoredExamples`.
        run_id: String that names the files and the state of this fit.
        watch: `Watch` of the jobs. Defaults to `None`.
    """

    _examples: StoredExamples

    def respool(self, hold: float = 0.0, *, delete: bool = True) -> None:
        """Make the shards again. With `hold`, the rows are spooled again before, see `Again`."""
        if hold:
            self._examples.rows.respool(hold)
        super().respool(delete=delete)

    def look(self) -> None:
        """Look again where the shards are.

        If Spark has computed a handle again where the rows are not, the shards are made again.
        """
        documents = run(self.spark, self.handles, "kspark: look for the shards", watch=self._watch)
        if missing_of(documents):
            self.respool()
        else:
            self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)

    def spool(self, again: Again) -> None:
        """Make the shards of the fit from the spooled rows."""

        def link() -> list[Any]:
            self.unpersist()
            self.handles = self._examples.map_shards(self.run_id)
            self.handles = self.handles.persist(StorageLevel.MEMORY_AND_DISK)
            return run(self.spark, self.handles, "kspark: use spooled rows", watch=self._watch)

        try:
            documents = self._examples.tried(link, missing_of)
            self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)
            if self._examples.parts is None:
                self._examples.rows.noticed(self.infos)
        except BaseException:
            self.unpersist()
            self._discard()
            raise


def spooled_for(
    spark: SparkSession, examples: Examples, run_id: str, watch: Watch | None, *, is_loose: bool
) -> SpooledExamples:
    """Return the shards of a fit on examples, to be used as a context manager."""
    kind = LinkedExamples if isinstance(examples, StoredExamples) else SpooledExamples
    return kind(spark, examples, run_id, watch, is_loose=is_loose)


def collect_examples(
    spark: SparkSession, examples: Examples, task: Task, description: str, watch: Watch | None
) -> list[Any]:
    """Run a task over the rows of examples in a job, and return what the tasks yield.

    Raises:
        WorkerError: If the job fails.
    """
    if not isinstance(examples, StoredExamples):
        return run_once(spark, examples.map_chunks(task), description, watch)

    def read() -> list[Any]:
        return run(spark, examples.map_chunks(task), description, watch=watch)

    def missing_in(results: list[Any]) -> list[MissingShard]:
        return [one for one in results if isinstance(one, MissingShard)]

    return examples.tried(read, missing_in)
