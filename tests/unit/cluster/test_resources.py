"""The resources of a call's tasks: task slots, threads, and the profile on its jobs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import keras
import pyspark
import pytest
from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

from kspark import SparkModel
from kspark.adapters.sending import num_slots
from kspark.cluster import resources
from kspark.cluster.engine import ConnectEngine
from kspark.cluster.gpu_checks import check_gpu_settings, idle_gpus, spreading
from kspark.cluster.resources import applied, frame_arguments, on_profile, on_resources
from kspark.cluster.slots import task_slots, tasks_per_gpu, threads_per_task
from kspark.errors import ClusterError
from kspark.job.frame_scoring import SharedModel


def profile(cpus=1, gpu=None, executor_gpus=None):
    """A profile that was made without a JVM."""
    builder = ResourceProfileBuilder()
    tasks = TaskResourceRequests().cpus(cpus)
    builder.require(tasks if gpu is None else tasks.resource("gpu", gpu))
    if executor_gpus is not None:
        builder.require(ExecutorResourceRequests().resource("gpu", executor_gpus))
    return builder.build


@pytest.fixture(autouse=True)
def without_java(monkeypatch):
    """Other tests of the process may have started Java, in which a builder would build."""
    monkeypatch.setattr(pyspark.SparkContext, "_jvm", None)


def session(master, **settings):
    conf = {f"spark.{name.replace('_', '.')}": str(value) for name, value in settings.items()}
    context = SimpleNamespace(master=master, getConf=lambda: conf, defaultParallelism=8)
    return SimpleNamespace(sparkContext=context, conf=conf)


GPUS = {"executor_resource_gpu_amount": 2, "task_resource_gpu_amount": 1}


@pytest.mark.parametrize(
    ("master", "settings", "slots"),
    [
        ("local[4]", {}, 4),
        ("local[4]", {"task_cpus": 2}, 2),
        ("local-cluster[2,4,1024]", {}, 8),
        ("local-cluster[2,4,1024]", GPUS, 4),
        ("local-cluster[2,4,1024]", {**GPUS, "task_resource_gpu_amount": 2}, 2),
        ("local-cluster[2,4,1024]", {**GPUS, "task_resource_gpu_amount": 0.1}, 8),
        ("local-cluster[1,8,1024]", {**GPUS, "task_resource_gpu_amount": 0.5}, 4),
        ("yarn", {**GPUS, "executor_instances": 3, "executor_cores": 4}, 6),
        ("spark://host:7077", {**GPUS, "executor_cores": 4}, 4),
        # The number of executors is not known, and so neither are the GPUs of all.
        ("spark://host:7077", GPUS, 8),
    ],
)
def test_task_slots_count_gpus_as_well_as_cores(master, settings, slots):
    assert task_slots(session(master, **settings)) == slots


def test_slots_and_threads_follow_the_profile_of_the_call():
    spark = session("local-cluster[2,4,1024]", **GPUS, task_cpus=1)
    with applied(profile(cpus=2, gpu=0.5)):
        assert (task_slots(spark), threads_per_task(spark)) == (4, 2)
    with applied(profile(gpu=2, executor_gpus=4)):
        assert (task_slots(spark), threads_per_task(spark)) == (4, 1)
    with applied(profile(cpus=4)):
        assert (task_slots(spark), threads_per_task(spark)) == (2, 4)
    assert (task_slots(spark), threads_per_task(spark)) == (4, 1)


class Results:
    def __init__(self):
        self.profiles = []

    def withResources(self, given):
        self.profiles.append(given)

    def getResourceProfile(self):
        return "the profile in the JVM"


def test_results_of_a_call_run_on_its_profile_and_on_one_only():
    """Each time that Spark is given a profile of Python, it makes another one in the JVM."""
    results, given = Results(), profile()
    assert on_profile(results) is results
    assert results.profiles == []
    with applied(given):
        on_profile(results)
        on_profile(results)
        assert on_profile("the first row of a DataFrame") == "the first row of a DataFrame"
    assert results.profiles == [given, "the profile in the JVM"]


def test_a_profile_that_spark_refuses_is_an_error_that_says_where_it_works():
    def refuse(given):
        raise RuntimeError("TaskResourceProfiles are only supported for ...")

    with applied(profile()), pytest.raises(ClusterError, match="refuses the profile .* TaskRes"):
        on_profile(SimpleNamespace(withResources=refuse))


def test_frames_take_the_profile_from_spark_4_on(monkeypatch):
    given = profile()
    assert frame_arguments() == {}
    with applied(given):
        monkeypatch.setattr(pyspark, "__version__", "4.0.1")
        assert frame_arguments() == {"profile": given}
        monkeypatch.setattr(pyspark, "__version__", "3.5.7")
        with pytest.raises(ValueError, match="`resources` must be None to predict a DataFrame"):
            frame_arguments()


MODEL = SimpleNamespace(backend="jax", digest="", rows=None)


def test_a_profile_is_refused_over_spark_connect():
    with applied(profile()), pytest.raises(ValueError, match="^`resources` must be None over Spa"):
        ConnectEngine(SimpleNamespace())
    ConnectEngine(SimpleNamespace())


def test_no_job_over_spark_connect_begins_with_a_profile():
    """Neither the job that counts the task slots, nor a model that is shared to predict."""
    with applied(profile()):
        for begin in (num_slots, lambda spark: SharedModel(spark, MODEL, "key")):
            with pytest.raises(ValueError, match="^`resources` must be None over Spark Connect"):
                begin(SimpleNamespace())


def test_a_method_runs_on_the_profile_of_its_object_and_no_longer():
    given = profile()

    @on_resources
    def method(self):
        return resources.current_profile()

    assert method(SimpleNamespace(resources=given)) is given
    assert method(SimpleNamespace(resources=None)) is None
    assert resources.current_profile() is None
    with pytest.raises(ValueError, match="`resources` must be a `pyspark.resource.ResourceProfil"):
        method(SimpleNamespace(resources={"gpu": 1}))


def test_only_a_profile_is_accepted():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Received: resources=\{'gpu': 1\}"):
        SparkModel(model, resources={"gpu": 1})


def test_gpus_for_the_tasks_of_a_session_without_executors_are_refused():
    """Spark would wait for ever."""
    check_gpu_settings(session("local[2]"))
    check_gpu_settings(session("local-cluster[1,2,1024]", **GPUS))
    with pytest.raises(ClusterError, match=r"none to give with the master local\[2\]"):
        check_gpu_settings(session("local[2]", **GPUS))
    with applied(profile(gpu=1)), pytest.raises(ClusterError, match="Leave .* `resources` out"):
        check_gpu_settings(session("local[2]"))


@pytest.mark.parametrize(
    ("master", "amount", "said"),
    [
        ("local-cluster[1,2,1024]", 1, None),
        ("local-cluster[1,4,1024]", 0.5, None),
        ("local-cluster[1,2,1024]", 0.5, "2 at a time, use 1: .* Raise the amount to 1,"),
        ("local-cluster[2,1,1024]", 1, "1 at a time, use 1: .* is 1. Give each executor fewer"),
        ("spark://host:7077", 1, None),
        ("local-cluster[2,1,1024]", 0, None),
    ],
)
def test_gpus_that_no_task_gets_are_named(master, amount, said):
    found = list(idle_gpus(session(master, **{**GPUS, "task_resource_gpu_amount": amount})))
    assert len(found) == (said is not None)
    if said:
        (text,) = found
        assert re.search(said, text)


@pytest.mark.parametrize(
    ("cores", "gpus", "amount", "said"),
    [
        (3, 2, 0.25, "use 1: .* Raise the amount to 0.5,"),
        (8, 3, 0.1, "use 1: .* Raise the amount to 0.333333,"),
        # Two tasks must share a GPU, so that one of the four stays idle.
        (5, 4, 0.4999, "use 3: .* as may share one. Give each executor fewer"),
    ],
)
def test_the_amount_that_is_advised_keeps_all_task_slots(cores, gpus, amount, said):
    master = f"local-cluster[1,{cores},1024]"
    settings = {"executor_resource_gpu_amount": gpus, "task_resource_gpu_amount": amount}
    (text,) = idle_gpus(session(master, **settings))
    assert re.search(said, text)


@pytest.mark.parametrize("gpus", range(1, 9))
def test_all_tasks_find_a_place_with_the_amount_that_is_advised(gpus):
    for tasks in range(1, 129):
        places = tasks_per_gpu(spreading(tasks, gpus))
        assert places == -(-tasks // gpus)
