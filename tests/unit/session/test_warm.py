"""Which sessions get warm workers, and how their fork server is started."""

import os
import signal
import subprocess
import sys
import types

import pytest

from kspark.session import warm

LOCAL = {"spark.master": "local[2]"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers start warm on Linux only")


@pytest.fixture(autouse=True)
def no_settings_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("PYSPARK_SUBMIT_ARGS", raising=False)


@pytest.fixture
def started(monkeypatch):
    """The processes that would be started: their arguments and environment."""
    calls = []

    def start(arguments, **options):
        calls.append((arguments, options["env"]))
        return types.SimpleNamespace()

    monkeypatch.setattr(warm, "_servers", {})
    monkeypatch.setattr(warm.atexit, "register", lambda *call: None)
    monkeypatch.setattr(warm.subprocess, "Popen", start)
    return calls


@pytest.mark.parametrize(
    "settings",
    [
        {"spark.master": "spark://host:7077"},
        {"spark.master": "yarn"},
        {**LOCAL, "spark.python.daemon.module": "pyspark.daemon"},
        {**LOCAL, "spark.python.use.daemon": "false"},
    ],
)
def test_other_hosts_and_the_choice_of_the_user_are_left_alone(settings, tmp_path):
    assert warm.warm_settings(settings, tmp_path) == {}


@pytest.mark.parametrize("name", [warm.MODULE, warm.PYTHONPATH, warm.USES_DAEMON])
def test_a_choice_in_the_files_of_spark_is_left_alone(name, tmp_path, monkeypatch):
    (tmp_path / "spark-defaults.conf").write_text(f"{name} something\n")
    assert warm.warm_settings(LOCAL, tmp_path) == {}
    (tmp_path / "spark-defaults.conf").unlink()
    assert warm.warm_settings(LOCAL, tmp_path)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"--conf {name}=something pyspark-shell")
    assert warm.warm_settings(LOCAL, tmp_path) == {}


def test_a_folder_that_no_path_can_name_is_not_used(tmp_path):
    assert warm.warm_settings(LOCAL, tmp_path / "a:b") == {}


def test_a_second_session_has_its_files_even_if_somebody_removed_them(tmp_path):
    first = warm.warm_settings(LOCAL, tmp_path)
    module = tmp_path / "python" / "kspark_daemon.py"
    module.unlink()
    assert warm.warm_settings(LOCAL, tmp_path) == first
    assert module.exists()


def test_the_server_has_what_the_workers_will_have(tmp_path, started, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    own = {"spark.executorEnv.SOME": "thing", "spark.task.cpus": "3"}
    settings = {**LOCAL, **own, **warm.warm_settings({**LOCAL, **own}, tmp_path)}
    warm.start_fork_server(settings, sys.executable)
    warm.start_fork_server(settings, sys.executable)
    ((arguments, environment),) = started
    path = str(tmp_path / "python" / "forks")
    assert arguments[0] == sys.executable
    assert arguments[2:] == ["--serve", path, warm.keras_backend()]
    expected = {
        "OMP_NUM_THREADS": "3",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "YES",
        "SOME": "thing",
    }
    assert {name: environment[name] for name in expected} == expected
    assert set(filter(None, sys.path)) <= set(environment["PYTHONPATH"].split(os.pathsep))


def test_another_python_gets_no_server(tmp_path, started):
    settings = {**LOCAL, **warm.warm_settings(LOCAL, tmp_path)}
    warm.start_fork_server(settings, "/another/python")
    warm.start_fork_server(LOCAL, sys.executable)
    assert started == []


def test_the_server_ends_with_the_process_that_started_it():
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    warm._stop(server, os.getpid() + 1)  # in a forked child
    assert server.poll() is None
    warm._stop(server, os.getpid())
    assert server.returncode == -signal.SIGTERM
