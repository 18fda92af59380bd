"""Keep the states of shards on the driver's disk, so that they outlive the executors of the shards.

What a shard keeps from epoch to epoch, such as its optimizer state, lies beside its rows. Two
things part a shard from it: the shard moves to another executor, or its executor goes away.

* A shard that moves takes its files along: they are fetched before, and written after that.
* Where executors may go at any time, each result of a round brings these files to the driver. A
  task that does not find them says so, and gets them before it trains.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from pyspark.sql import SparkSession

from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.spark_job import run
from kspark.errors import KSparkError
from kspark.job.collecting import collect_shards
from kspark.job.spooling import ShardsOnDisk
from kspark.temporary import STATES, Folder
from kspark.worker.kept_files import fetch_files, write_files
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")

SHARDS_AT_A_TIME = 16
"""Shards whose files are in the driver's memory at a time."""


class KeptStates:
    """The files that shards keep after an epoch. Call `close` in the end.

    Args:
        spark: `SparkSession`.
        fit_id: String, name of the fit.

    Attributes:
        travels: Boolean, whether the results of rounds bring the files, because executors may go.
            `False` in the beginning.
        epoch: Integer, the last epoch that the shards have trained. `None` before the first.
        epochs: Dictionary from shard to the epoch after which its files were kept.
        trained: Dictionary from shard to the last epoch that it has trained, of shards that may
            skip epochs.
    """

    def __init__(self, spark: SparkSession, fit_id: str) -> None:
        self.travels = False
        self.epoch: int | None = None
        self.epochs: dict[int, int] = {}
        self.trained: dict[int, int] = {}
        self._spark = spark
        self._fit_id = fit_id
        self._folder: Folder | None = None

    def close(self) -> None:
        """Delete all files."""
        self.epochs.clear()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def take(self, results: Iterable[ShardResult], epoch: int) -> list[ShardResult]:
        """Keep the files that came with results after an epoch. Returns the results without."""
        return [self._kept(result, epoch) for result in results]

    def _kept(self, result: ShardResult, epoch: int) -> ShardResult:
        if not result.files:
            return result
        if self._folder is None:
            self._folder = Folder(STATES)
        with self._folder.path.joinpath(f"{result.shard}.npz").open("wb") as file:
            np.savez(file, **result.files)  # type: ignore[arg-type]
        self.epochs[result.shard] = epoch
        return replace(result, files={})

    def _files_of(self, shard: int) -> dict[str, np.ndarray]:
        if self._folder is None:
            raise KeyError(shard)
        with np.load(self._folder.path / f"{shard}.npz", allow_pickle=False) as file:
            return dict(file)

    def collect(self, shards: ShardsOnDisk, epoch: int, max_failures: int) -> None:
        """Fetch the files of all shards after an epoch whose results could not bring them.

        Args:
            shards: `ShardsOnDisk`.
            epoch: Integer.
            max_failures: Integer, see `collect_shards`.

        Raises:
            WorkerError: If a job was lost too often.
            ClusterError: If tasks kept running on executors without their files.
        """
        task = ship(fetch_files, self._fit_id, epoch)
        wanted = [handle.index for handle in shards.infos if handle.num_examples]
        for some in at_a_time(self._spark, wanted):
            description = "kspark: keep the state of shards"
            found = collect_shards(
                self._spark, shards, task, description, max_failures, wanted=some
            )
            for result in found:
                self.epochs.pop(result.shard, None)  # An older state would be a wrong one.
            self.take(found, epoch)

    def fetch(self, shards: ShardsOnDisk) -> None:
        """Fetch the files of shards that are about to move, as far as their executors answer.

        Nothing is fetched if the files travel anyway, or if there are none yet.
        """
        if self.travels or self.epoch is None or shards.handles is None:
            return
        wanted = [handle.index for handle in shards.infos if handle.num_examples]
        task = ship(fetch_files, self._fit_id, self.epoch)
        for some in at_a_time(self._spark, wanted):
            try:
                found = run(
                    self._spark,
                    shards.handles.mapPartitionsWithIndex(task),
                    "kspark: fetch the state of shards",
                    some,
                )
            except KSparkError as error:
                logger.debug("The states of shards %s could not be fetched: %s", some, error)
            else:
                self.take((r for r in found if isinstance(r, ShardResult)), self.epoch)

    def restore(self, shards: ShardsOnDisk, wanted: Sequence[int]) -> None:
        """Write the files of some shards beside their rows, as far as the files are kept.

        A task that does not run on the executor of its shard leaves the files out. If they travel,
        the task that trains misses them then, and they are written again.
        """
        engine = engine_of(self._spark)
        known = [shard for shard in wanted if shard in self.epochs]
        for epoch in sorted({self.epochs[shard] for shard in known}):
            of_epoch = [shard for shard in known if self.epochs[shard] == epoch]
            for some in at_a_time(self._spark, of_epoch):
                shared = engine.share({shard: self._files_of(shard) for shard in some})
                task = ship(write_files, self._fit_id, epoch, shared=(shared,))
                rows = shards.handles.mapPartitionsWithIndex(task)
                try:
                    run(self._spark, rows, "kspark: move the state of shards", some)
                except KSparkError as error:
                    logger.debug("The states of shards %s could not be written: %s", some, error)
                finally:
                    shared.destroy()
        if not self.travels:  # Those of later epochs do not come here, and these get old.
            self.close()


def at_a_time(spark: SparkSession, shards: Sequence[int]) -> Iterator[list[int]]:
    """Divide shards, so that the driver has the files of a few in memory at a time."""
    # Spark Connect runs all shards each time.
    size = SHARDS_AT_A_TIME if engine_of(spark).groups else max(len(shards), 1)
    for start in range(0, len(shards), size):
        yield list(shards[start : start + size])
