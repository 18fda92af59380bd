"""Mix the training rows between shards before a period of epochs begins.

Each mixing starts from the shards as they were spooled, and not from those of the period before. So
a fit that goes on from a checkpoint, or from an `initial_epoch`, mixes as one without a break. The
state of a shard's replica stays with the number of the shard.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pyspark import StorageLevel

from kspark.adapters.rdd import target_of
from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.spark_job import JobLostError, run
from kspark.errors import ClusterError, WorkerError, invalid
from kspark.job.collecting import Retries, collect_shards, missing_of
from kspark.job.fit import Fit
from kspark.job.spooling import (
    CLEAN_UP_SECONDS,
    ShardsOnDisk,
    log_moved,
    moved_shards,
    read_handle,
    repeated,
)
from kspark.plan import Mixing
from kspark.shards import Shard, ShardHandle
from kspark.worker.kept_files import fetch_files, write_files
from kspark.worker.mixing import MixingTask, cut_shards, delete_shards, spool_blocks
from kspark.worker.spooling import Again

logger = logging.getLogger("kspark")

PART_BYTES = 32 << 20
"""Approximate size of the rows that a task has in memory to give them a random order."""

MOVED_SHARDS = 8
"""Shards whose state the driver holds at a time, to move it to other hosts."""


AT_FIRST = Again()


class MixedShards(ShardsOnDisk):
    """Shards of mixed training rows.

    Args:
        fit: `Fit`.
        source: `ShardsOnDisk` with the rows, as they were spooled.
        mixing: `Mixing`.
        before: `ShardsOnDisk` of the period before, whose rows are deleted unless they are the
            source.
    """

    def __init__(
        self, fit: Fit, source: ShardsOnDisk, mixing: Mixing, before: ShardsOnDisk
    ) -> None:
        super().__init__(fit.spark, fit.fit_id, fit.progress.watch)
        self.mixing = mixing
        self._source = source
        self._max_failures = fit.plan.max_failures
        unneeded = () if before is source else tuple(h.path for h in before.infos)
        self._task = MixingTask(fit.fit_id, mixing, unneeded, fit.spec.rows.is_loose)

    def spool(self, again: Again = AT_FIRST) -> None:
        """Mix the rows. Spool the source again if its files are gone.

        Args:
            again: `Again`. Defaults to that of the first time.

        Raises:
            ValueError: If the source has other rows than at the beginning of the fit.
            WorkerError: If a task failed, or the job was lost too often.
            ClusterError: If tasks kept running on hosts without their files.
        """
        retries = Retries(self._source, self._max_failures)
        try:
            while True:
                try:
                    documents = self._mix(again)
                except JobLostError as error:
                    retries.after_lost_job(error)
                    continue
                if not (missing := missing_of(documents)):
                    break
                retries.after_missing_files(missing)
            self.infos = sorted((read_handle(d) for d in documents), key=lambda h: h.index)
        except BaseException:
            self.unpersist()
            self._discard()
            raise

    def respool(self, hold: float = 0.0, *, delete: bool = True) -> None:
        """Mix again, from the same rows to the same ones. The states of the shards move along."""
        before = self.infos
        if self.states is not None:
            self.states.fetch(self)
        if delete:
            unneeded = (*self._task.unneeded, *(handle.path for handle in before))
            self._task = replace(self._task, unneeded=unneeded)
        self.spool(Again((), hold, time.time() + hold))
        moved = moved_shards(before, self.infos)
        log_moved(before, self.infos, moved)
        if self.states is not None:
            self.states.restore(self, moved)

    def delete_rows(self, visited: set[str]) -> None:
        """Delete the rows on executors that no task of the next mixing has visited.

        The tasks of the next mixing delete them elsewhere, see `MixingTask`.
        """
        left = [handle.index for handle in self.infos if handle.mark not in visited]
        if left:
            deletions = self.handles.mapPartitionsWithIndex(ship(delete_shards))
            self._clean_up(deletions, CLEAN_UP_SECONDS, left)

    def close(self, timeout: float | None = None) -> None:
        """Delete the files, also on hosts that had shards in earlier periods only."""
        try:
            super().close(timeout)
        finally:
            self._discard()

    def _mix(self, again: Again) -> list[bytes]:
        """Run the job. Returns what its tasks returned."""
        self.unpersist()
        blocks = self._source.handles.mapPartitionsWithIndex(ship(cut_shards, self._task))
        shards = len(self.mixing.num_train)
        mixed = blocks.repartitionAndSortWithinPartitions(shards, ship(target_of))
        write = repeated(ship(spool_blocks, self._task), again)
        mixed = mixed.mapPartitionsWithIndex(write)
        self.handles = mixed.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            return run(self.spark, self.handles, "kspark: mix the rows", watch=self._watch)
        finally:
            # Otherwise, the files of the shuffle stay until the JVM collects its garbage. Spark
            # makes them again if it has to compute a handle again.
            mixed.cleanShuffleDependencies()


def mix_rows(fit: Fit, epoch: int, make_room: Callable[[], None] | None = None) -> None:
    """Mix the training rows between the shards, if the fit asks for it before an epoch.

    Args:
        fit: `Fit`. Its `train` is replaced.
        epoch: Integer, the epoch that begins. All tasks of the epoch before have ended.
        make_room: Function that ends a job that holds task slots. Defaults to `None`: there is
            none.

    Raises:
        ValueError: If the input has other rows than at the beginning of the fit.
        WorkerError: If a task failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    if fit.unmixed is None:
        return
    before, period = fit.train, fit.plan.period(epoch)
    if isinstance(before, MixedShards) and before.mixing.period == period:
        return
    if make_room is not None:
        make_room()
    fit.progress.phase("Mixing the rows")
    began = time.perf_counter()
    source, num_train = fit.unmixed.shards, fit.unmixed.num_train
    mixing = Mixing(fit.plan.seed, period, num_train, num_parts(source.infos, num_train))
    mixed = MixedShards(fit, source, mixing, before)
    mixed.states, source.states = before.states, None
    mixed.spool()
    fit.train = mixed
    if isinstance(before, MixedShards):
        try:
            move_states(fit, before, mixed, epoch - 1)
            before.delete_rows(marks_of(source.infos) | marks_of(mixed.infos))
        finally:
            before.unpersist()
    logger.info(
        "The rows were mixed between the shards for epoch %d in %.1f s.",
        epoch + 1,
        time.perf_counter() - began,
    )
    fit.progress.phase(f"Epoch {epoch + 1}/{fit.plan.epochs}")


def num_parts(infos: Sequence[ShardHandle], num_train: Mapping[int, int]) -> int:
    """Return the number of parts of each mixed shard, so that a part fits into memory."""
    nbytes = sum(Shard(handle).row_bytes * num_train[handle.index] for handle in infos)
    return max(1, math.ceil(nbytes / len(infos) / PART_BYTES))


def move_states(fit: Fit, before: ShardsOnDisk, after: ShardsOnDisk, epoch: int) -> None:
    """Move what replicas keep after an epoch to where their shards are now.

    What a shard keeps is beside its files. Mixed shards are usually on the same hosts as before. As
    in `fetched_states`, a fit does not fail because of missing states: those shards go on as after
    the loss of their host.
    """
    moved = moved_shards(before.infos, after.infos)
    if moved:
        logger.info("The states of shards %s move with their rows to other executors.", moved)
    for start in range(0, len(moved), MOVED_SHARDS):
        wanted = moved[start : start + MOVED_SHARDS]
        try:
            move(fit, before, after, epoch, wanted)
        except (ClusterError, WorkerError) as error:
            logger.warning("The states of shards %s could not be moved: %s", wanted, error)


def move(
    fit: Fit, before: ShardsOnDisk, after: ShardsOnDisk, epoch: int, wanted: list[int]
) -> None:
    """Move the states of some shards.

    Raises:
        WorkerError: If a job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    failures, watch = fit.plan.max_failures, fit.progress.watch
    description = "kspark: move the state of shards"
    fetch = ship(fetch_files, fit.fit_id, epoch)
    found = collect_shards(
        fit.spark, before, fetch, description, failures, wanted=wanted, watch=watch
    )
    shared = engine_of(fit.spark).share({result.shard: result.files for result in found})
    try:
        write = ship(write_files, fit.fit_id, epoch, shared=(shared,))
        collect_shards(fit.spark, after, write, description, failures, wanted=wanted, watch=watch)
    finally:
        shared.destroy()


def marks_of(infos: Sequence[ShardHandle]) -> set[str]:
    """Return the marks of the executors that have shards."""
    return {handle.mark for handle in infos}


Rows = tuple[tuple[str, tuple[int, ...], bool], ...]
"""Name and shape of each array of some rows, and whether it is text."""


def check_mixable(infos: Sequence[ShardHandle], reshuffle: int) -> None:
    """Check that rows of all shards can be in one shard.

    Raises:
        ValueError: If their arrays differ in names, shapes or kind. The message names the
            difference.
    """
    kinds: set[Rows] = {
        tuple((a.name, a.shape, a.is_text) for a in handle.arrays)
        for handle in infos
        if handle.num_examples
    }
    if len(kinds) > 1:
        rule = (
            "None if the rows of different partitions cannot be in one shard "
            f"({difference(*sorted(kinds)[:2])}); give all rows the same arrays"
        )
        raise invalid("reshuffle", rule, reshuffle)


def difference(one: Rows, other: Rows) -> str:
    """Tell how the arrays of two partitions differ."""
    names, others = [name for name, _, _ in one], [name for name, _, _ in other]
    if names != others:
        return f"one partition has the arrays {names}, another {others}"
    kind = {True: "text", False: "numbers"}
    return " and ".join(
        f"`{name}` has {kind[is_text]} of shape {shape} in one partition, "
        f"{kind[other_text]} of shape {other_shape} in another"
        for (name, shape, is_text), (_, other_shape, other_text) in zip(one, other, strict=True)
        if (shape, is_text) != (other_shape, other_text)
    )
