"""The settings of Spark that `check_cluster` looks at, and the memory that it estimates."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kspark.cluster.memory import (
    COPIES,
    COPIES_OF_STATE,
    OF_JAVA,
    WINDOWS,
    WorkerMemory,
    memory_problems,
    overhead_of,
    rounded,
    setting_in_mib,
)
from kspark.cluster.preflight import problems_of_session, problems_of_speculation

SMALL = WorkerMemory("jax")
"""A worker of 290 + 128 MiB."""


def session(master="yarn", **settings):
    conf = {f"spark.{name.replace('_', '.')}": str(value) for name, value in settings.items()}
    conf["spark.master"] = master
    context = SimpleNamespace(master=master, getConf=lambda: conf)
    return SimpleNamespace(sparkContext=context, conf=conf)


def problems(master="yarn", **settings):
    spark = session(master, executor_memoryOverhead="4g", **settings)
    return list(problems_of_session(spark, SMALL))


GPUS = {"task_resource_gpu_amount": 1, "executor_resource_gpu_amount": 2, "executor_cores": 2}
DYNAMIC = {"dynamicAllocation_enabled": "true"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({**GPUS, "task_maxFailures": 2}, "Set spark.task.maxFailures to 3 or more; it is 2."),
        ({**GPUS, "excludeOnFailure_enabled": "true"}, "With spark.excludeOnFailure.enabled,"),
        (
            {**GPUS, "excludeOnFailure_taskAndStage_enabled": "true"},
            "With spark.excludeOnFailure.taskAndStage.enabled,",
        ),
        (
            {**DYNAMIC, "dynamicAllocation_cachedExecutorIdleTimeout": "60s"},
            "spark.dynamicAllocation.cachedExecutorIdleTimeout is 60s",
        ),
        (
            {**DYNAMIC, "dynamicAllocation_shuffleTracking_enabled": "false"},
            "neither spark.dynamicAllocation.shuffleTracking.enabled nor",
        ),
        (
            {"decommission_enabled": "true", "executor_decommission_forceKillTimeout": "30s"},
            "spark.executor.decommission.forceKillTimeout is 30s",
        ),
    ],
)
def test_a_setting_that_does_not_go_with_training_is_named(settings, named):
    (found,) = problems(**settings)
    assert named in found
    assert not problems("local[4]", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"task_maxFailures": 1},  # without GPUs
        {**GPUS, "executor_resource_gpu_amount": 1, "task_maxFailures": 1},  # one GPU per executor
        {**GPUS, "task_maxFailures": 3},
        {"speculation": "true"},  # Fits refuse it.
        DYNAMIC,
        {**DYNAMIC, "dynamicAllocation_cachedExecutorIdleTimeout": "infinity"},
        {
            **DYNAMIC,
            "dynamicAllocation_shuffleTracking_enabled": "false",
            "shuffle_service_enabled": "true",
        },
        {"dynamicAllocation_cachedExecutorIdleTimeout": "60s"},
        {"decommission_enabled": "true"},
    ],
)
def test_other_settings_are_not_named(settings):
    assert problems(**settings) == []


def test_over_spark_connect_the_settings_are_up_to_the_server():
    conf = {"spark.master": "yarn", "spark.speculation": "true", "spark.task.maxFailures": "1"}
    assert not list(problems_of_session(SimpleNamespace(conf=conf), SMALL))
    assert len(list(problems_of_speculation(SimpleNamespace(conf=conf)))) == 1


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("2g", 2048), ("512M", 512), ("1536", 1536), ("2048k", 2), ("1GB", 1024), ("1t", 1 << 20)],
)
def test_amounts_are_read_as_spark_reads_them(text, mebibytes):
    assert setting_in_mib(session(a=text), "spark.a") == mebibytes
    assert setting_in_mib(session(), "spark.a") is None


@pytest.mark.parametrize(
    ("settings", "mebibytes"),
    [
        ({}, 384),
        ({"executor_memory": "8g"}, 819.2),
        ({"executor_memory": "8g", "kubernetes_memoryOverheadFactor": 0.4}, 3276.8),
        ({"executor_memory": "8g", "executor_memoryOverheadFactor": 0.2}, 1638.4),
        ({"executor_minMemoryOverhead": "1g"}, 1024),
        ({"executor_memory": "8g", "executor_memoryOverhead": "600m"}, 600),
    ],
)
def test_the_overhead_has_sparks_default(settings, mebibytes):
    assert overhead_of(session(**settings)) == pytest.approx(mebibytes)


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 0), ("adam", 2)])
def test_weights_and_optimizer_state_count_with_their_copies(optimizer, states):
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(500)])
    model.compile(optimizer, "mse")
    found = WorkerMemory.of(session(), "tensorflow", model)
    size = 4 * model.count_params() / 2**20
    assert found.weights == pytest.approx(COPIES * size)
    # The counters of an optimizer take some bytes.
    assert found.optimizer == pytest.approx(COPIES_OF_STATE * states * size, abs=1e-3)
    assert model.optimizer.built


def test_variables_of_all_types_count():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, dtype=keras.DTypePolicy("bfloat16"))]
    )
    found = WorkerMemory.of(session(), "tensorflow", model)
    assert found.weights * 2**20 / COPIES == 2 * 20
    assert found.optimizer == 0


def test_the_tasks_of_an_executor_need_their_memory_at_the_same_time():
    four = {"executor_cores": 8, "task_cpus": 2}
    (found,) = memory_problems(session(executor_memoryOverhead="1g", **four), SMALL)
    needed = OF_JAVA + 4 * (290 + WINDOWS)
    assert f"With 4 at a time, an executor needs {needed:,} MiB" in found
    assert "Set spark.executor.memoryOverhead to 2048m or more, or run fewer tasks" in found
    assert list(memory_problems(session(executor_memoryOverhead="2g", **four), SMALL)) == []


def test_workers_of_the_daemon_share_what_was_imported():
    settings = {"python_daemon_module": "kspark.cluster.daemon", "executor_cores": 10}
    spark = session(executor_memoryOverhead="3g", **settings)
    warm = WorkerMemory.of(spark, "jax")
    assert warm.of_executor(10) < SMALL.of_executor(10)
    assert list(memory_problems(spark, warm)) == []
    assert len(list(memory_problems(spark, SMALL))) == 1


def test_the_memory_that_is_set_for_python_counts():
    spark = session(executor_pyspark_memory="8g", executor_cores=2, executor_memoryOverhead="384m")
    assert list(memory_problems(spark, SMALL)) == []
    large = WorkerMemory("jax", weights=4000.0, optimizer=800.0)
    of_worker, of_executor = memory_problems(spark, large)
    assert "4,000 for the weights and their copies, 800 for the optimizer's state" in of_worker
    assert "or raise spark.executor.pyspark.memory" in of_executor


def test_a_limit_of_addresses_needs_more_than_the_memory():
    (found,) = memory_problems(
        session("spark://host:7077", executor_pyspark_memory="4g", executor_cores=2), SMALL
    )
    needed = SMALL.one + 3072
    assert "limits the addresses of a Python worker, not its memory" in found
    assert "gets 2,048 MiB of addresses, the setting's value divided by" in found
    assert f"needs {needed:,.0f} MiB" in found
    assert f"Set spark.executor.pyspark.memory to {rounded(2 * needed)}m or more" in found
    enough = session(
        "spark://host:7077", executor_pyspark_memory=f"{rounded(2 * needed)}m", executor_cores=2
    )
    assert list(memory_problems(enough, SMALL)) == []


@pytest.mark.parametrize("master", ["local[4]", "spark://host:7077"])
def test_masters_without_containers_have_no_overhead(master):
    assert list(memory_problems(session(master), WorkerMemory("jax", weights=1e6))) == []


def test_a_backend_that_is_not_known_counts_as_the_largest():
    assert WorkerMemory("other").one == np.max([WorkerMemory(b).one for b in ("jax", "torch")])
