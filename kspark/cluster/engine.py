"""What jobs need of a Spark session beside its data: two kinds of session, two engines.

A classic session has the JVM's `SparkContext` in reach: RDDs, broadcasts and job groups.
One of Spark Connect is a client of a server far away, and has DataFrames and tags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Thread
from typing import Any, ClassVar, Protocol

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from kspark.cluster.bootstrap import Enclosed
from kspark.cluster.remote import is_connect, map_frame
from kspark.cluster.results import Collectable, PartitionFunction, Results
from kspark.cluster.slots import task_slots

MANY_ROWS = 4096
"""Enough for Spark's default number of partitions to have some each."""


class Shared(Protocol):
    """A value on its way to the executors, for `kspark.cluster.bootstrap.ship`."""

    @property
    def value(self) -> Any:
        """The value, on the executors."""
        ...

    def destroy(self) -> None:
        """Give back what it takes up."""
        ...


class Engine(ABC):
    """A session as jobs use it.

    Args:
        spark: `SparkSession`.
    """

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark

    keeps_shared: ClassVar[bool]
    """Whether the executors keep a shared value, so that several jobs bring it once."""

    @property
    @abstractmethod
    def application(self) -> str:
        """Names what the executors belong to."""

    @property
    @abstractmethod
    def groups(self) -> bool:
        """Whether what tasks yield can be grouped on the executors, before it is collected."""

    @abstractmethod
    def share(self, value: Any) -> Shared:
        """A value that several jobs use, or that is large."""

    @abstractmethod
    def on_every_slot(self, task: PartitionFunction, per_slot: int = 1) -> Results:
        """Run a task of (number, rows without a meaning) in about as many places as there are."""

    @abstractmethod
    def collect(self, results: Collectable, partitions: list[int] | None) -> list[Any]:
        """Collect results: at least those of the partitions, or of all if that is `None`."""

    @abstractmethod
    def thread(self, target: Callable[[], None], name: str) -> Thread:
        """A thread for one job, which begins with `enter`."""

    @abstractmethod
    def enter(self, group: str, description: str) -> None:
        """Let the jobs of this thread be of a group, which `cancel` cancels."""

    @abstractmethod
    def cancel(self, group: str) -> None:
        """Cancel the jobs of a group."""

    @abstractmethod
    def active_tasks(self, group: str) -> int:
        """How many tasks of a group's jobs run now."""


class ClassicEngine(Engine):
    """A session with the JVM in reach."""

    keeps_shared = True

    @property
    def application(self) -> str:
        """See `Engine.application`."""
        return str(self.spark.sparkContext.applicationId)

    @property
    def groups(self) -> bool:
        """See `Engine.groups`: by an RDD's partitioner."""
        return True

    def share(self, value: Any) -> Shared:
        """See `Engine.share`: a broadcast."""
        return self.spark.sparkContext.broadcast(value)

    def on_every_slot(self, task: PartitionFunction, per_slot: int = 1) -> Results:
        """See `Engine.on_every_slot`."""
        count = per_slot * task_slots(self.spark)
        rows = self.spark.sparkContext.parallelize(range(count), count)
        return rows.mapPartitionsWithIndex(task)

    def collect(self, results: Any, partitions: list[int] | None) -> list[Any]:
        """See `Engine.collect`."""
        if partitions is None:
            return list(results.collect())
        return self.spark.sparkContext.runJob(results, list, partitions)

    def thread(self, target: Callable[[], None], name: str) -> Thread:
        """See `Engine.thread`."""
        return InheritableThread(target=target, name=name, daemon=True)

    def enter(self, group: str, description: str) -> None:
        """See `Engine.enter`."""
        self.spark.sparkContext.setJobGroup(group, description, True)

    def cancel(self, group: str) -> None:
        """See `Engine.cancel`."""
        self.spark.sparkContext.cancelJobGroup(group)

    def active_tasks(self, group: str) -> int:
        """See `Engine.active_tasks`."""
        tracker = self.spark.sparkContext.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        stages = [tracker.getStageInfo(s) for job in jobs if job for s in job.stageIds]
        return sum(stage.numActiveTasks for stage in stages if stage)


class ConnectEngine(Engine):
    """A session of Spark Connect."""

    keeps_shared = False

    @property
    def application(self) -> str:
        """See `Engine.application`: the session, which has its own files on the executors."""
        return str(getattr(self.spark, "session_id"))  # noqa: B009 (a classic one has none)

    @property
    def groups(self) -> bool:
        """See `Engine.groups`: results are pieces of pickles there, which no column names."""
        return False

    def share(self, value: Any) -> Shared:
        """See `Engine.share`: it travels inside each job's function."""
        return Enclosed(value)

    def on_every_slot(self, task: PartitionFunction, per_slot: int = 1) -> Results:
        """See `Engine.on_every_slot`: Spark's default is a partition for each."""
        return map_frame(self.spark.range(MANY_ROWS), task)

    def collect(self, results: Collectable, partitions: list[int] | None) -> list[Any]:
        """See `Engine.collect`: a DataFrame has no partitions to choose from."""
        return results.collect()

    def thread(self, target: Callable[[], None], name: str) -> Thread:
        """See `Engine.thread`."""
        return InheritableThread(target=target, name=name, daemon=True, session=self.spark)

    def enter(self, group: str, description: str) -> None:
        """See `Engine.enter`."""
        self.spark.addTag(group)

    def cancel(self, group: str) -> None:
        """See `Engine.cancel`."""
        self.spark.interruptTag(group)

    def active_tasks(self, group: str) -> int:
        """See `Engine.active_tasks`: only live jobs ask, which do not run here."""
        return 0


def engine_of(spark: SparkSession) -> Engine:
    """The engine that goes with a session."""
    return ConnectEngine(spark) if is_connect(spark) else ClassicEngine(spark)
