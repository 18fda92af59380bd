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
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.engine import engine_of
from kspark.cluster.records import in_records
from kspark.cluster.spark_errors import brief
from kspark.cluster.spark_job import run
from kspark.errors import KSparkError
from kspark.job.collecting import collect_shards
from kspark.job.spooling import ShardsOnDisk
from kspark.temporary import STATES, Folder
from kspark.worker.kept_files import fetch_files, fetch_newest, write_files
from kspark.worker.tasks import MissingShard, ShardResult

logger = logging.getLogger("kspark")

SHARDS_AT_A_TIME = 16
"""Shards whose files are in the driver's memory at a time."""

TRIES = 2
"""How often a task is submitted that does not run on the executor of its shard."""


class KeptStates:
    """The files that shards keep after an epoch. Call `close` in the end.

    Args:
        spark: `SparkSession`.
        fit_id: String, name of the fit.
        in_step: Boolean, whether no shard begins an epoch before all have ended the one before, or
            are late. Defaults to `True`.

    Attributes:
        in_step: Boolean, as given.
        travels: Boolean, whether the results of rounds bring the files, because executors may go.
            `False` in the beginning.
        epoch: Integer, the last epoch that the shards have trained. `None` before the first.
        epochs: Dictionary from shard to the epoch after which its files were kept.
        trained: Dictionary from shard to the last epoch that it has trained, of shards that may
            skip epochs.
        unreachable: Set of shards whose executors do not answer, so that nothing can be fetched.
    """

    def __init__(self, spark: SparkSession, fit_id: str, in_step: bool = True) -> None:
        self.in_step = in_step
        self.travels = False
        self.epoch: int | None = None
        self.epochs: dict[int, int] = {}
        self.trained: dict[int, int] = {}
        self.unreachable: frozenset[int] = frozenset()
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
        """Fetch the newest files of shards that are about to move, if their executors answer.

        Nothing is fetched if the files travel anyway, or if there are none yet.
        """
        if self.travels or self.epoch is None or shards.handles is None:
            return
        infos = [handle for handle in shards.infos if handle.index not in self.unreachable]
        wanted = [handle.index for handle in infos if handle.num_examples]
        # A synchronous epoch that has not ended begins again, from the state before it.
        until = {s: self.trained.get(s, self.epoch) for s in wanted} if self.in_step else {}
        task = ship(fetch_newest, self._fit_id, until)
        for some in at_a_time(self._spark, wanted):
            for found in self._results(shards, task, "kspark: fetch the state of shards", some):
                self.take([found.result], found.epoch)

    def restore(self, shards: ShardsOnDisk, wanted: Sequence[int]) -> None:
        """Write the files of some shards beside their rows, as far as the files are kept.

        A task that does not run on the executor of its shard leaves the files out. If they travel,
        the task that trains misses them then, and they are written again.
        """
        engine, lost = engine_of(self._spark), set(wanted)
        known = [shard for shard in wanted if shard in self.epochs]
        for epoch in sorted({self.epochs[shard] for shard in known}):
            of_epoch = [shard for shard in known if self.epochs[shard] == epoch]
            for some in at_a_time(self._spark, of_epoch):
                shared = engine.share({shard: self._files_of(shard) for shard in some})
                task = ship(write_files, self._fit_id, epoch, shared=(shared,))
                try:
                    written = self._results(shards, task, "kspark: move the state of shards", some)
                finally:
                    shared.destroy()
                lost -= {result.shard for result in written}
        if not self.travels:  # Those of later epochs do not come here, and these get old.
            self._tell(sorted(lost))
            self.close()

    def _results(
        self, shards: ShardsOnDisk, task: Shipped, description: str, wanted: list[int]
    ) -> list[Any]:
        """Run a task on some shards, and once more where it ran on other executors.

        A job that is lost is logged: a fit goes on without states.
        """
        found: list[Any] = []
        for _ in range(TRIES):
            rows = shards.handles.mapPartitionsWithIndex(in_records(task))
            try:
                results = run(self._spark, rows, description, wanted)
            except KSparkError as error:
                logger.info("%s %s: %s", description, wanted, brief(error))
                break
            found += [r for r in results if not isinstance(r, MissingShard)]
            wanted = sorted({r.shard for r in results if isinstance(r, MissingShard)})
            if not wanted:
                break
        return found

    def _tell(self, lost: Sequence[int]) -> None:
        """Log which shards have moved without their states, if they had any."""
        lost = [shard for shard in lost if not self.trained or shard in self.trained]
        if lost and self.epoch is not None:
            logger.warning(
                "Shards %s have moved without their optimizer states, which could not be fetched "
                "from the executors of before, or not be written. These shards begin with that of "
                "the start of the fit.",
                lost,
            )


def at_a_time(spark: SparkSession, shards: Sequence[int]) -> Iterator[list[int]]:
    """Divide shards, so that the driver has the files of a few in memory at a time."""
    # Spark Connect runs all shards each time.
    size = SHARDS_AT_A_TIME if engine_of(spark).groups else max(len(shards), 1)
    for start in range(0, len(shards), size):
        yield list(shards[start : start + size])
