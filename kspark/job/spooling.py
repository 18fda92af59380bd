"""Write the examples to the executors' disks as shards, and keep the handles of these shards."""

from __future__ import annotations

import json
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from pyspark import StorageLevel
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.adapters.factories import FactoryExamples
from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.failures import worker_error
from kspark.cluster.results import PartitionFunction, Results
from kspark.cluster.spark_job import Watch, run, run_once
from kspark.errors import Failure, KSparkError
from kspark.plan import TrainingPlan
from kspark.shards import ShardHandle
from kspark.worker.removal import clean_host, clean_up, task_of
from kspark.worker.spooling import Again, spool_again, spool_shard
from kspark.worker.streaming import open_stream

logger = logging.getLogger("kspark")

MOVES_SHOWN = 20
"""Number of moved shards that a message names."""

CLEAN_UP_SECONDS = 15.0
"""Timeout in seconds for deleting files after an error, before the error is raised. Spark may wait
for tasks on a lost host for much longer."""


class MovingStates(Protocol):
    """What lies beside the rows of shards, and moves with them; see `KeptStates`."""

    def fetch(self, shards: ShardsOnDisk) -> None:
        """Fetch the states of shards that are about to move."""

    def restore(self, shards: ShardsOnDisk, wanted: Sequence[int]) -> None:
        """Write the states of some shards beside their rows."""


class ShardsOnDisk(ABC):
    """One shard per partition on the executors' local disks.

    Args:
        spark: `SparkSession`.
        run_id: String that names the files and the state of this fit.
        watch: `Watch` of the jobs. Defaults to `None`.

    Attributes:
        handles: Persisted `Results` of shard handles as bytes; `None` if there are no shards.
        infos: List of `ShardHandle`, sorted by shard.
        states: `MovingStates`. `None`: there are no states beside these shards.
    """

    def __init__(self, spark: SparkSession, run_id: str, watch: Watch | None = None) -> None:
        self.spark = spark
        self.run_id = run_id
        self._watch = watch
        self.handles: Any = None
        self.infos: list[ShardHandle] = []
        self.states: MovingStates | None = None

    @abstractmethod
    def respool(self, hold: float = 0.0, *, delete: bool = True) -> None:
        """Write the shards again, after files were lost, or to bring shards and slots together.

        Args:
            hold: Float, see `Again`. Defaults to `0`.
            delete: Boolean, whether the files of before are deleted, because no task reads them.
                Defaults to `True`.
        """

    def look(self) -> None:
        """Look again where the shards are.

        Spark computes the handles of a lost executor again, and so writes their rows, by itself.
        """
        documents = run(self.spark, self.handles, "kspark: look for the shards", watch=self._watch)
        self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)

    @property
    def counts(self) -> dict[int, int]:
        """Dictionary from shard to its number of examples."""
        return {h.index: h.num_examples for h in self.infos}

    @property
    def num_examples(self) -> int:
        """Number of examples in all shards."""
        return sum(self.counts.values())

    def close(self, timeout: float | None = None) -> None:
        """Delete the files on the executors and the persisted handles.

        A failure of kspark's own is logged, not raised.

        Args:
            timeout: Float, seconds after which to give up. Defaults to `None`, no limit.
        """
        if self.handles is None:
            return
        try:
            task = task_of(clean_up, self.run_id)
            self._clean_up(self.handles.mapPartitionsWithIndex(task), timeout)
        finally:
            self.unpersist()

    def unpersist(self) -> None:
        """Forget the handles. The files stay."""
        if self.handles is not None:
            self.handles.unpersist(blocking=False)
            self.handles = None

    def _discard(self) -> None:
        """Delete the files by host, without the handles.

        Reading the handles of a failed attempt would write the files again.
        """
        task = task_of(clean_host, self.run_id)
        self._clean_up(engine_of(self.spark).on_every_slot(task, per_slot=2), CLEAN_UP_SECONDS)

    def _clean_up(
        self,
        deletions: Results,
        timeout: float | None = None,
        partitions: list[int] | None = None,
    ) -> None:
        try:
            run(self.spark, deletions, "kspark: clean up", partitions, timeout, self._watch)
        except KSparkError as error:
            logger.warning("Some temporary files of this fit could not be deleted: %s", error)


class SpooledExamples(ShardsOnDisk):
    """The examples of the user as shards. Use it as a context manager, which deletes them.

    Args:
        spark: `SparkSession`.
        examples: `Examples` to spool.
        run_id: String that names the files and the state of this fit.
        watch: `Watch` of the jobs. Defaults to `None`.
        is_loose: Boolean, whether features may have different shapes. Defaults to `False`.
    """

    def __init__(
        self,
        spark: SparkSession,
        examples: Examples,
        run_id: str,
        watch: Watch | None = None,
        *,
        is_loose: bool = False,
    ) -> None:
        super().__init__(spark, run_id, watch)
        self._examples = examples
        self._is_loose = is_loose

    def __enter__(self) -> SpooledExamples:
        try:
            self.spool(Again())
        except BaseException:
            self.unpersist()
            self._examples.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(None if kind is None else CLEAN_UP_SECONDS)

    def spool(self, again: Again) -> None:
        """Read the user's data once and write it to the executors' disks.

        If a partition fails, the files of the others are deleted.
        """
        self.handles = self._written(again).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            description = "kspark: spool the examples"
            documents = run_once(self.spark, self.handles, description, self._watch)
            self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)
        except BaseException:
            self.unpersist()
            self._discard()
            raise

    def _written(self, again: Again) -> Results:
        """Return the shard handles as bytes, for which the rows are written."""
        write = ship(spool_shard, self.run_id, self._is_loose)
        return self._examples.map_chunks(repeated(write, again))

    def respool(self, hold: float = 0.0, *, delete: bool = True) -> None:
        """Spool again. The states of the shards move with them.

        Raises:
            ValueError: If the partitions have other numbers of rows than the first time.
        """
        before, counts = self.infos, self.counts
        if self.states is not None:
            self.states.fetch(self)
        self.unpersist()
        unneeded = tuple(handle.path for handle in before) if delete else ()
        self.spool(Again(unneeded, hold, time.time() + hold))
        if self.counts != counts:
            raise ValueError(
                "The input must give the same rows each time that it is read. It was read again "
                f"because an executor was lost, and its partitions have {self.counts} rows now "
                f"instead of {counts}. Persist the input, or write it to a file before `fit`."
            )
        moved = moved_shards(before, self.infos)
        log_moved(before, self.infos, moved)
        if self.states is not None:
            self.states.restore(self, moved)

    def close(self, timeout: float | None = None) -> None:
        """Delete the files on the executors and the persisted handles."""
        try:
            super().close(timeout)
        finally:
            self._examples.close()  # last, because the job may have to compute a handle again


class StreamedExamples(SpooledExamples):
    """Shards whose rows come from a function of the user, and are not written to disk.

    Args:
        spark: `SparkSession`.
        examples: `FactoryExamples`.
        run_id: String that names the files and the state of this fit.
        plan: `TrainingPlan`.
        watch: `Watch` of the jobs. Defaults to `None`.
    """

    def __init__(
        self,
        spark: SparkSession,
        examples: FactoryExamples,
        run_id: str,
        plan: TrainingPlan,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(spark, examples, run_id, watch)
        self._factory = examples
        self._plan = plan

    def _written(self, again: Again) -> Results:
        """Return the shard handles as bytes, for which the first batches are read."""
        rows, plan = self._factory.rows, self._plan
        seeds = [plan.data_seed(index, plan.initial_epoch) for index in range(rows.num_workers)]
        limited = plan.steps_per_epoch is not None
        write = ship(open_stream, rows, self.run_id, seeds, limited)
        # The folder of a shard has no rows, and the same name each time: it is not deleted.
        return self._factory.map_workers(repeated(write, replace(again, unneeded=())))

    @property
    def batch_size(self) -> int:
        """The batch size that the user has set, or the rows of the first batch of worker 0."""
        return self._factory.factory.batch_size or self.infos[0].first_batch


@dataclass(frozen=True)
class Unmixed:
    """The examples of a fit that mixes rows between shards, as they were spooled.

    Attributes:
        shards: `ShardsOnDisk`.
        num_train: Dictionary from shard to the number of rows at its start that train.
    """

    shards: ShardsOnDisk
    num_train: dict[int, int]


def repeated(write: PartitionFunction, again: Again) -> PartitionFunction:
    """Return a task that writes a shard, and does what `again` asks for."""
    return write if again == Again() else partial(ship(spool_again, again), write)


def place_of(handle: ShardHandle) -> tuple[str, str]:
    """Return the mark of the executor, and the folder, in which a shard and its state are."""
    return handle.mark, os.path.dirname(handle.path)


def moved_shards(before: Sequence[ShardHandle], after: Sequence[ShardHandle]) -> list[int]:
    """Return the shards with examples that have another place than before."""
    places = {handle.index: place_of(handle) for handle in before}
    return [h.index for h in after if h.num_examples and place_of(h) != places.get(h.index)]


def log_moved(
    before: Sequence[ShardHandle], after: Sequence[ShardHandle], moved: Sequence[int]
) -> None:
    """Log which shards have moved from where to where."""
    hosts, now = ({h.index: h.host for h in infos} for infos in (before, after))
    moves = [
        f"{shard} from {hosts[shard]} to "
        + ("another executor there" if hosts[shard] == now[shard] else now[shard])
        for shard in moved
    ]
    if moves:
        more = f", and {len(moves) - MOVES_SHOWN} more" if len(moves) > MOVES_SHOWN else ""
        logger.info("Shards have moved: %s%s.", ", ".join(moves[:MOVES_SHOWN]), more)


def read_handle(document: bytes) -> ShardHandle:
    """Decode a shard handle, or raise the failure that a task returned instead.

    Raises:
        ValueError: If rows of the partition are not usable.
        TypeError: If they have values of a wrong type.
        WorkerError: If spooling failed for another reason.
    """
    if document.startswith(b'{"failure"'):
        failure = Failure(**json.loads(document)["failure"])
        kinds = {"ValueError": ValueError, "TypeError": TypeError}
        kind = kinds.get(failure.kind)
        raise kind(failure.message) if kind else worker_error(failure)
    return ShardHandle.from_json(document)
