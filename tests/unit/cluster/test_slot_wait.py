"""Task slots that a cluster gets later: a wait, and what dynamic allocation may start."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pyspark
import pytest
from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder

from kspark.cluster import slot_wait
from kspark.cluster.interrupts import deferred
from kspark.cluster.resources import applied
from kspark.cluster.slot_wait import UNLIMITED, slots_for, slots_in_reach
from kspark.errors import NotEnoughSlotsError
from kspark.job.preparing import placed
from kspark.plan import TrainingPlan


class Context:
    """Stands for a `SparkContext` whose executors come and go.

    Args:
        master: String.
        cores: List of the numbers of cores, one per call. The last one stays.
        conf: Dictionary of settings.
    """

    def __init__(self, master, cores, conf):
        self.master, self.cores, self.getConf = master, list(cores), lambda: conf

    @property
    def defaultParallelism(self):
        return self.cores.pop(0) if len(self.cores) > 1 else self.cores[0]


def session(*cores, master="spark://host:7077", **settings):
    conf = {f"spark.{name.replace('_', '.')}": str(value) for name, value in settings.items()}
    return SimpleNamespace(sparkContext=Context(master, cores, conf), conf=conf)


@pytest.fixture
def short(monkeypatch):
    """Wait for a moment only."""
    monkeypatch.setattr(slot_wait, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(slot_wait, "POLL_SECONDS", 0.02)


def test_a_cluster_is_given_time_for_its_executors(caplog):
    """The default limit: an executor comes back long before it."""
    caplog.set_level("INFO", "kspark")
    shown = []
    assert slots_for(session(2, 2, 4, 6), 6, shown.append) == 6
    assert shown == [2, 2, 4]
    assert "Waiting up to 25 s for task slots: there are 2, and 6 workers must run" in caplog.text


def test_enough_slots_are_not_waited_for(caplog):
    caplog.set_level("INFO", "kspark")
    assert slots_for(session(6), 6, pytest.fail) == 6
    assert not caplog.records


@pytest.mark.parametrize(
    ("master", "settings"),
    [
        ("local[4]", {}),
        ("local-cluster[2,2,1024]", {}),
        (
            "spark://host:7077",
            {"default_parallelism": 2, "executor_instances": 2, "executor_cores": 2},
        ),
    ],
)
def test_a_number_that_cannot_change_is_not_waited_for(master, settings):
    assert slots_for(session(2, 9, master=master, **settings), 9, pytest.fail) == 4


def test_both_numbers_are_in_the_error_after_the_wait(short):
    lines = []
    progress = SimpleNamespace(wait=lines.append)
    plan = TrainingPlan.create(mode="asynchronous", num_workers=3)
    fit = SimpleNamespace(plan=plan, spark=session(2), progress=progress)
    with pytest.raises(NotEnoughSlotsError, match="`num_workers` is 3, .* has 2 free task slots"):
        placed(fit, SimpleNamespace(num_partitions=3, num_examples=None))
    assert set(lines) == {"waiting for task slots, 2 of 3"}


def test_an_interrupt_ends_the_wait():
    def interrupt(slots):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), deferred():
        slots_for(session(2), 3, interrupt)


DYNAMIC = {"dynamicAllocation_enabled": "true"}


@pytest.mark.parametrize(
    ("master", "settings", "slots"),
    [
        ("yarn", {"dynamicAllocation_maxExecutors": 5}, 5),  # one core each by default
        ("yarn", {"dynamicAllocation_maxExecutors": 5, "executor_cores": 4, "task_cpus": 2}, 10),
        ("k8s://https://host", {"dynamicAllocation_maxExecutors": 1}, 2),  # there are two now
        (
            "yarn",
            {
                "dynamicAllocation_maxExecutors": 5,
                "executor_cores": 4,
                "executor_resource_gpu_amount": 2,
                "task_resource_gpu_amount": 1,
            },
            10,
        ),
        ("yarn", {}, UNLIMITED),
        ("yarn", {"dynamicAllocation_maxExecutors": "infinity"}, UNLIMITED),
        # All cores of a host, which only a host knows.
        ("spark://host:7077", {"dynamicAllocation_maxExecutors": 5}, UNLIMITED),
        ("spark://host:7077", {"dynamicAllocation_maxExecutors": 5, "executor_cores": 3}, 15),
        ("local[3]", {"dynamicAllocation_maxExecutors": 5}, 3),  # has no effect there
    ],
)
def test_dynamic_allocation_counts_the_executors_that_it_may_start(master, settings, slots):
    spark = session(2, master=master, **DYNAMIC, **settings)
    assert slots_in_reach(spark) == slots
    assert slots_for(spark, 1000, pytest.fail) == slots


def test_the_cores_of_a_profile_count(monkeypatch):
    monkeypatch.setattr(pyspark.SparkContext, "_jvm", None)
    builder = ResourceProfileBuilder().require(ExecutorResourceRequests().cores(4))
    spark = session(2, **DYNAMIC, dynamicAllocation_maxExecutors=3)
    with applied(builder.build):
        assert slots_in_reach(spark) == 12


def test_the_error_counts_what_dynamic_allocation_may_start():
    spark = session(2, master="yarn", **DYNAMIC, dynamicAllocation_maxExecutors=4)
    plan = TrainingPlan.create(mode="hogwild", num_workers=5)
    with pytest.raises(NotEnoughSlotsError, match=r"is 5, .* 4 free .*\.maxExecutors with dynamic"):
        placed(
            SimpleNamespace(plan=plan, spark=spark),
            SimpleNamespace(num_partitions=3, num_examples=None),
        )
