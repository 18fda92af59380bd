"""`check_cluster` names what the workers lack, and where; see also the tests with Spark."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import keras
import pytest

import kspark
from kspark import check_cluster
from kspark.cluster import check, environment
from kspark.cluster.check import check_cluster_once
from kspark.cluster.environment import report_environment
from kspark.errors import EnvironmentMismatchError

HERE = environment.environment("tensorflow")
WORKER = replace(HERE, host="node7", executable="/opt/python", installed_kspark=None)
"""A worker with the driver's packages, where kspark is not installed."""


@pytest.fixture
def cluster(monkeypatch):
    """A session without Spark, whose workers answer with the environments in `answers`."""
    conf = {"spark.master": "local[2]"}
    context = SimpleNamespace(master="local[2]", getConf=lambda: conf)
    session = SimpleNamespace(answers=[WORKER], jobs=[], warm=[], conf=conf, sparkContext=context)

    def run_once(spark, results, description, watch=None):
        session.jobs.append(description)
        return list(session.answers)

    engine = SimpleNamespace(
        on_every_slot=lambda task: task,
        use_warm_workers=session.warm.append,
        application="an-application",
    )
    monkeypatch.setattr(check, "engine_of", lambda spark: engine)
    monkeypatch.setattr(check, "run_once", run_once)
    monkeypatch.setattr(check, "_checked", set())
    monkeypatch.setattr(check, "_told", set())
    return session


def lacking(package):
    return replace(WORKER, packages={**WORKER.packages, package: None})


def other_keras(version):
    return replace(WORKER, packages={**WORKER.packages, "keras": version})


def test_each_worker_is_returned_once(cluster):
    other = replace(WORKER, host="node8")
    cluster.answers = [WORKER, other, WORKER]
    assert check_cluster(cluster) == [WORKER, other]


def test_workers_that_import_keras_themselves_are_told_what_would_help(cluster, caplog):
    caplog.set_level(logging.INFO, "kspark")
    check_cluster(cluster)
    assert "set spark.python.daemon.module=kspark.cluster.daemon before" in caplog.text
    caplog.clear()
    cluster.answers = [replace(WORKER, warm=True)]
    check_cluster(cluster)
    assert caplog.text == ""


def test_a_task_reports_its_own_environment():
    rows = iter("abc")
    (found,) = report_environment("tensorflow", 0, rows)
    assert found == HERE
    assert list(rows) == []
    assert found.kspark == kspark.__version__
    assert found.packages.keys() == {"keras", "numpy", "pyarrow", "tensorflow"}


@pytest.mark.parametrize("package", ["keras", "numpy", "pyarrow", "tensorflow"])
def test_a_missing_package_is_refused_with_the_host_and_the_remedy(cluster, package):
    cluster.answers = [WORKER, lacking(package)]
    driver = HERE.packages[package]
    expected = rf"host node7 \(/opt/python\) has no {package}; the driver has {driver}\n"
    with pytest.raises(EnvironmentMismatchError, match=expected) as caught:
        check_cluster(cluster)
    assert "Install the missing packages on every host, or set PYSPARK_PYTHON" in str(caught.value)


def test_the_backend_is_that_of_the_driver_unless_it_is_named(cluster, monkeypatch):
    monkeypatch.setattr(check, "keras_backend", lambda: "jax")
    cluster.answers = [replace(WORKER, packages={**WORKER.packages, "jax": None})]
    with pytest.raises(EnvironmentMismatchError, match="has no jax"):
        check_cluster(cluster)
    assert cluster.warm == ["jax"]
    cluster.answers = [WORKER]
    assert check_cluster(cluster, "tensorflow") == [WORKER]


def test_a_backend_from_a_package_of_another_name_is_accepted(monkeypatch):
    monkeypatch.setattr(environment, "version_of", lambda package: None)
    monkeypatch.setattr(environment, "is_installed", lambda package: package == "tensorflow")
    assert environment.environment("tensorflow").packages["tensorflow"] == "of unknown version"
    assert environment.environment("torch").packages["torch"] is None


def test_a_backend_that_is_missing_everywhere_is_refused(cluster):
    cluster.answers = [replace(WORKER, packages={**WORKER.packages, "no_backend": None})]
    with pytest.raises(EnvironmentMismatchError, match="has no no_backend; the driver has None"):
        check_cluster(cluster, "no_backend")


@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        (replace(WORKER, python="2.7.18"), f"runs Python 2.7.18, the driver {HERE.python}"),
        (other_keras("2.15.0"), f"has keras 2.15.0, the driver {HERE.packages['keras']}"),
        (replace(WORKER, kspark="0.0.1"), f"runs kspark 0.0.1, the driver {kspark.__version__}"),
    ],
)
def test_other_versions_than_the_drivers_are_refused(cluster, worker, problem):
    cluster.answers = [WORKER, worker]
    with pytest.raises(EnvironmentMismatchError, match="host node7 .*") as caught:
        check_cluster(cluster)
    assert problem in str(caught.value)


def test_other_patch_versions_of_python_and_keras_are_accepted(cluster):
    python, keras_version = HERE.python.rsplit(".", 1)[0], HERE.packages["keras"]
    patched = replace(
        other_keras(".".join(keras_version.split(".")[:2]) + ".99"), python=f"{python}.99"
    )
    cluster.answers = [patched]
    assert check_cluster(cluster) == [patched]


def test_all_problems_are_named_at_once(cluster):
    cluster.answers = [replace(lacking("numpy"), python="2.7.18"), replace(WORKER, host="node8")]
    with pytest.raises(EnvironmentMismatchError) as caught:
        check_cluster(cluster)
    assert "has no numpy" in str(caught.value)
    assert "runs Python 2.7.18" in str(caught.value)
    assert "node8" not in str(caught.value)


def test_a_warning_names_another_kspark_that_is_installed_on_a_worker(cluster, caplog):
    old = replace(WORKER, installed_kspark="0.0.1")
    same = replace(WORKER, host="node8", installed_kspark=kspark.__version__)
    cluster.answers = [old, same, replace(WORKER, host="node9")]
    with caplog.at_level(logging.WARNING, "kspark"):
        check_cluster(cluster)
    assert caplog.messages == [
        "host node7 (/opt/python) has kspark 0.0.1 installed. Its tasks run the driver's kspark "
        f"{kspark.__version__} instead."
    ]


def test_the_gpus_of_all_answers_of_a_host_are_returned(cluster):
    cluster.answers = [replace(WORKER, gpus=(gpu,)) for gpu in ("10", "9", "10")]
    (found,) = check_cluster(cluster)
    assert found.gpus == ("9", "10")


def test_a_warning_names_gpus_that_executors_of_a_host_share(cluster, caplog):
    of_first, of_second = replace(WORKER, parent=7), replace(WORKER, parent=8)
    elsewhere = replace(WORKER, host="node8", parent=9, gpus=("0",))
    cluster.answers = [
        *(replace(of_first, gpus=gpus) for gpus in (("0",), ("1",), ("0",))),
        *(replace(of_second, gpus=gpus) for gpus in (("1",), ("2",))),
        elsewhere,
    ]
    with caplog.at_level(logging.WARNING, "kspark"):
        check_cluster(cluster)
    (message,) = caplog.messages
    assert message.startswith("2 executors on host node7 give GPU 1 to their tasks")
    assert "spark.worker.resource.gpu.discoveryScript" in message


def test_an_application_is_checked_once_for_each_backend(cluster):
    for backend in ("tensorflow", "tensorflow", "jax", "jax"):
        check_cluster_once(cluster, backend)
    assert len(cluster.jobs) == 2


def test_an_application_that_failed_the_check_is_checked_again(cluster):
    cluster.answers = [lacking("keras")]
    for _ in range(2):
        with pytest.raises(EnvironmentMismatchError):
            check_cluster_once(cluster, "tensorflow")
    assert len(cluster.jobs) == 2


def test_each_fit_asks_for_workers_of_its_own_backend(cluster):
    """Also if the application was checked before, and another backend has been checked since."""
    check_cluster_once(cluster, "tensorflow")
    cluster.warm.clear()
    check_cluster_once(cluster, "tensorflow")
    assert cluster.warm == ["tensorflow"]


def test_settings_that_do_not_go_with_training_are_named(cluster, caplog):
    """By `check_cluster` each time, by fits once."""
    cluster.sparkContext.master = cluster.conf["spark.master"] = "yarn"
    cluster.conf["spark.decommission.enabled"] = "true"
    named = "spark.executor.decommission.forceKillTimeout"
    cluster.conf[named] = "30s"
    for once, count in ((False, 1), (True, 0), (False, 1)):
        caplog.clear()
        check.warn_of_settings(cluster, "tensorflow", once=once)
        assert caplog.text.count(f"{named} is 30s") == count
    check_cluster(cluster)
    assert caplog.text.count(f"{named} is 30s") == 2


def test_speculation_is_named_before_fits_refuse_it(cluster, caplog):
    cluster.sparkContext.master = cluster.conf["spark.master"] = "yarn"
    cluster.conf["spark.speculation"] = "true"
    check.warn_of_settings(cluster, "tensorflow", once=True)  # as fits do
    assert "spark.speculation" not in caplog.text
    check_cluster(cluster)
    assert caplog.text.count("spark.speculation is on, with which fits are refused") == 1


def test_the_memory_of_a_model_is_compared_with_that_of_an_executor(cluster, caplog):
    cluster.sparkContext.master = cluster.conf["spark.master"] = "yarn"
    cluster.conf["spark.executor.memoryOverhead"] = "1g"
    check_cluster(cluster)
    assert not caplog.messages
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(20_000)])
    model.compile("adam", "mse")
    check_cluster(cluster, model=model)
    (message,) = caplog.messages
    assert "Set spark.executor.memoryOverhead to " in message
