"""A process gets the GPUs of its task as its environment, before the backend starts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from pyspark import TaskContext

from kspark.cluster import accelerators
from kspark.cluster.accelerators import (
    GROWING,
    HIDES,
    JAX_PLATFORMS,
    ORDER,
    TAKEN,
    TORCH_DEVICE,
    VISIBLE,
    DevicesChangedError,
    keep_from_driver,
    take_devices,
)
from kspark.cluster.bootstrap import ship


@pytest.fixture
def task(monkeypatch):
    """Makes this process run a task with GPUs; no backend has used one yet."""
    for name in (TAKEN, VISIBLE, ORDER, HIDES, JAX_PLATFORMS, TORCH_DEVICE, *GROWING):
        monkeypatch.setenv(name, "")  # It is restored at the end.
        monkeypatch.delenv(name)
    monkeypatch.setattr(accelerators, "BACKENDS", ())

    def start(*addresses, attempt=0, resource="gpu"):
        found = {resource: SimpleNamespace(addresses=list(addresses))} if addresses else {}
        context = SimpleNamespace(resources=lambda: found, attemptNumber=lambda: attempt)
        monkeypatch.setattr(TaskContext, "get", lambda: context)

    return start


@pytest.mark.parametrize(
    ("addresses", "visible"),
    [
        (["3"], "3"),
        (["10", "9"], "9,10"),
        (["GPU-5fd4", "GPU-0a1b"], "GPU-0a1b,GPU-5fd4"),
    ],
)
def test_a_process_sees_the_gpus_of_its_task_only(task, monkeypatch, addresses, visible):
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    task(*addresses)
    take_devices()
    assert os.environ[VISIBLE] == visible
    assert os.environ[ORDER] == "PCI_BUS_ID"


def test_a_task_without_gpus_leaves_what_the_process_sees(task, monkeypatch):
    task()
    take_devices()
    assert VISIBLE not in os.environ
    monkeypatch.setenv(VISIBLE, "1")
    take_devices()
    assert os.environ[VISIBLE] == "1"


def test_other_resources_are_no_gpus(task):
    task("0", resource="fpga")
    take_devices()
    assert VISIBLE not in os.environ


def test_the_driver_keeps_what_it_sees(task, monkeypatch):
    monkeypatch.setattr(TaskContext, "get", lambda: None)
    take_devices()
    assert not {VISIBLE, TAKEN, *GROWING} & {*os.environ}


def test_tasks_take_the_memory_of_gpus_as_they_need_it_unless_the_user_says_otherwise(
    task, monkeypatch
):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    task("0")
    take_devices()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_importing_kspark_lets_memory_grow_and_hides_no_gpu():
    environment = {k: v for k, v in os.environ.items() if k not in (*GROWING, VISIBLE)}
    code = f"import kspark, os; print({{n: os.environ.get(n) for n in {[*GROWING, VISIBLE]}}})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str({**GROWING, VISIBLE: None})


def test_a_reused_worker_takes_other_gpus_until_a_backend_is_in_memory(task, monkeypatch):
    task("0")
    take_devices()
    task("1")
    take_devices()
    assert os.environ[VISIBLE] == "1"
    monkeypatch.setattr(accelerators, "BACKENDS", ("sys",))
    take_devices()  # the same address
    task("0")
    with pytest.raises(DevicesChangedError, match="uses GPU 1, and its task may use GPU 0"):
        take_devices()
    task()
    with pytest.raises(DevicesChangedError, match="uses GPU 1, and its task may use no GPU"):
        take_devices()
    assert os.environ[VISIBLE] == "1"


def test_the_first_task_of_a_warm_worker_takes_its_gpus(task, monkeypatch):
    """The daemon has imported the backend, which has used no device before the fork."""
    monkeypatch.setattr(accelerators, "BACKENDS", ("sys",))
    task("2")
    take_devices()
    assert os.environ[VISIBLE] == "2"


def test_the_order_of_addresses_is_no_change(task, monkeypatch):
    monkeypatch.setattr(accelerators, "BACKENDS", ("sys",))
    for addresses in (["0", "1"], ["1", "0"]):
        task(*addresses)
        take_devices()
    assert os.environ[VISIBLE] == "0,1"


def test_a_task_that_spark_has_tried_twice_goes_on_with_the_gpus_of_its_worker(
    task, monkeypatch, caplog
):
    monkeypatch.setattr(accelerators, "BACKENDS", ("sys",))
    task("0")
    take_devices()
    for attempt in (0, 1):
        task("1", attempt=attempt)
        with pytest.raises(DevicesChangedError):
            take_devices()
    task("1", attempt=2)
    with caplog.at_level(logging.WARNING, "kspark"):
        take_devices()
    assert os.environ[VISIBLE] == "0"
    assert "goes on with GPU 0 instead of GPU 1" in caplog.text


class SeenOnArrival:
    """Arrives as the value that `VISIBLE` has when the arguments of a function are unpickled."""

    def __reduce__(self):
        return os.getenv, (VISIBLE,)


def test_every_function_that_kspark_sends_to_executors_takes_the_gpus_first(task):
    """A model among the arguments may start the backend when it arrives."""
    task("5")
    assert ship(os.path.join, SeenOnArrival())("end") == "5/end"


def session(task_amount, driver=None):
    conf = {} if task_amount is None else {"spark.task.resource.gpu.amount": task_amount}
    resources = {} if driver is None else {"gpu": SimpleNamespace(addresses=driver)}
    return SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: conf, resources=resources))


@pytest.mark.parametrize(
    ("spark", "visible"),
    [
        (session(None), None),
        (session("0"), None),
        (session("0.5"), "-1"),
        (session("1", driver=["3", "2"]), "2,3"),
        (SimpleNamespace(), None),
    ],
)
def test_the_driver_takes_no_gpu_of_the_tasks(task, spark, visible):
    keep_from_driver(spark)
    assert os.environ.get(VISIBLE) == visible


@pytest.mark.parametrize(("set_before", "platforms"), [(None, "cpu"), ("tpu,cpu", "tpu,cpu")])
def test_jax_on_the_driver_does_not_look_for_hidden_gpus(task, monkeypatch, set_before, platforms):
    """Its variable has no effect once it is imported."""
    config = SimpleNamespace(jax_platforms=set_before)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    keep_from_driver(session("1"))
    assert config.jax_platforms == platforms
    assert os.environ[JAX_PLATFORMS] == "cpu"


def test_the_driver_takes_the_gpus_that_the_user_names(task, monkeypatch):
    monkeypatch.setenv(VISIBLE, "1")
    keep_from_driver(session("1"))
    assert os.environ[VISIBLE] == "1"


def test_what_hides_gpus_in_one_session_is_not_taken_for_the_users_in_the_next(task):
    keep_from_driver(session("1"))
    assert [os.environ[name] for name in (VISIBLE, JAX_PLATFORMS, TORCH_DEVICE)] == [
        "-1",
        "cpu",
        "cpu",
    ]
    keep_from_driver(session("1", driver=["4"]))
    assert os.environ[VISIBLE] == "4"
    keep_from_driver(session(None))
    assert not {VISIBLE, JAX_PLATFORMS, TORCH_DEVICE, HIDES} & {*os.environ}


def test_what_the_user_sets_after_a_session_stays(task, monkeypatch):
    keep_from_driver(session("1"))
    monkeypatch.setenv(VISIBLE, "2")
    keep_from_driver(session("1"))
    assert os.environ[VISIBLE] == "2"


def test_what_hides_gpus_from_the_driver_does_not_reach_tasks_with_gpus(task, monkeypatch):
    keep_from_driver(session("1"))
    task("3")
    take_devices()
    assert os.environ[VISIBLE] == "3"
    assert not {JAX_PLATFORMS, TORCH_DEVICE} & {*os.environ}
    monkeypatch.setenv(JAX_PLATFORMS, "cuda")
    keep_from_driver(session("1"))
    take_devices()
    assert os.environ[JAX_PLATFORMS] == "cuda"


def test_jax_that_is_imported_looks_for_gpus_again(task, monkeypatch):
    config = SimpleNamespace(jax_platforms=None)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    keep_from_driver(session("1"))
    assert config.jax_platforms == "cpu"
    keep_from_driver(session(None))
    assert config.jax_platforms is None
