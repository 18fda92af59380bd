"""A local `SparkSession` that works on a laptop, without a word of configuration.

What goes wrong with a plain `SparkSession.builder.getOrCreate()` there, and is
taken care of here:

* Python workers start as the `python3` of the `PATH`, not as the Python that
  runs the script, and miss its packages: `PYSPARK_PYTHON` is set.
* There is no Java, or one that this Spark does not run on: see `kspark.session.java`.
* The driver's address follows the network that the laptop is in: it is pinned
  to the loopback interface.
* Warnings, and a progress bar that fights with that of Keras: switched off.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyspark
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from kspark.errors import invalid
from kspark.session import java

__all__ = ["local_session"]

logger = logging.getLogger("kspark")

LOOPBACK = "127.0.0.1"
DEFAULT_MEMORY = "2g"

# Settings for every local session; `config` overrides them.
DEFAULTS = {
    "spark.driver.host": LOOPBACK,
    "spark.driver.bindAddress": LOOPBACK,
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # A new Python worker imports Keras and its backend again, which takes seconds.
    "spark.python.worker.reuse": "true",
    # Wide rows reach Python twice as fast in batches that fit into the processor's caches.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "500",
    # Shortened tracebacks are for functions of DataFrames only, and Spark does not share
    # a Python worker between functions that differ in this: with them, `fit` and
    # `transform` would each start workers of their own, and import Keras in each.
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
}

# Errors only, from the first line on; a setting like `spark.log.level` is read after
# the first warnings. The logger named here is the one whose level Spark gives to all
# others, with a notice, when it starts from Python.
LOG4J = """\
rootLogger.level = error
logger.python.name = org.apache.spark.api.python.PythonGatewayServer
logger.python.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
"""


def local_session(
    cores: int | None = None,
    *,
    executors: int | None = None,
    memory: str | None = None,
    app_name: str = "kspark",
    config: Mapping[str, object] | None = None,
) -> SparkSession:
    """Start Spark on this machine, or return the session that is running.

    A session that is already running (a notebook platform's own, or that of an
    earlier call) is returned as it is, never changed and never stopped. If it
    contradicts an argument that was given, that is an error.

    Sets the environment variables `PYSPARK_PYTHON` and `PYSPARK_DRIVER_PYTHON`
    to this Python, unless they are set. Stop the session with `spark.stop()`;
    otherwise it ends with the process.

    Example:

    ```python
    spark = local_session(2)
    ```

    Args:
        cores: Integer, tasks that run at the same time; with `executors`, in
            each executor. Defaults to all cores, with `executors` to `1`.
        executors: Integer, the number of executor processes, as on a real
            cluster (what Spark calls `local-cluster`). Defaults to `None`:
            tasks run in the driver's own process.
        memory: String, the heap of the JVM as in `"512m"` or `"4g"`, with
            `executors` that of each executor. Read when the process starts its
            first session. Defaults to `"2g"`.
        app_name: String, the name that Spark shows for the application.
            Defaults to `"kspark"`.
        config: Mapping of further Spark settings, which go before kspark's
            own: `{"spark.log.level": "WARN"}`.

    Returns:
        A `SparkSession`.

    Raises:
        ValueError: If an argument is wrong, or contradicts the running session.
        ClusterError: If there is no Java that this Spark runs on.
    """
    wanted = _wanted(cores, executors, memory, config)
    spark = SparkSession.getActiveSession()
    if spark is None:
        settings = {**_defaults(cores, executors, memory or DEFAULT_MEMORY), **wanted}
        spark = _start(settings, app_name, separate_processes=executors is not None)
    _check_running(spark, wanted)
    return spark


def _wanted(
    cores: int | None,
    executors: int | None,
    memory: str | None,
    config: Mapping[str, object] | None,
) -> dict[str, str]:
    """The Spark settings that the caller asked for, after a check of the arguments."""
    for name, value in (("cores", cores), ("executors", executors)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise invalid(name, "an integer >= 1, or `None`", value)
        if value is not None and value < 1:
            raise invalid(name, "an integer >= 1, or `None`", value)
    wanted = {}
    if memory is not None:
        _megabytes(memory)
        wanted["spark.driver.memory" if executors is None else "spark.executor.memory"] = memory
    if cores is not None or executors is not None:
        wanted["spark.master"] = _master(cores, executors, memory or DEFAULT_MEMORY)
    return {**wanted, **{key: _setting(value) for key, value in (config or {}).items()}}


def _master(cores: int | None, executors: int | None, memory: str) -> str:
    """Spark's name for this cluster."""
    if executors is None:
        return f"local[{cores or '*'}]"
    return f"local-cluster[{executors},{cores or 1},{_megabytes(memory)}]"


def _megabytes(memory: str) -> int:
    """`"2g"` and `"2048m"` as 2048."""
    match = re.fullmatch(r"(\d+)([mg])b?", str(memory).lower())
    if match is None or int(match.group(1)) == 0:
        raise invalid("memory", 'a string as "512m" or "4g"', memory)
    return int(match.group(1)) * (1024 if match.group(2) == "g" else 1)


def _setting(value: object) -> str:
    """A Python value the way Spark writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _defaults(cores: int | None, executors: int | None, memory: str) -> dict[str, str]:
    """The settings of a session about which the caller said nothing."""
    settings = {**DEFAULTS, "spark.master": _master(cores, executors, memory)}
    if executors is None:
        return {**settings, "spark.driver.memory": memory}
    # An executor that is killed cannot remove its files: keep them where we do.
    files = _private_directory() / "executors"
    return {**settings, "spark.executor.memory": memory, "spark.local.dir": str(files)}


def _start(settings: dict[str, str], app_name: str, *, separate_processes: bool) -> SparkSession:
    """Start a session with these settings; `_private_directory` outlives its JVM."""
    directory = _private_directory()
    log4j = directory / "log4j2.properties"
    log4j.write_text(LOG4J, encoding="utf-8")
    options = f"-Dlog4j2.configurationFile={log4j.as_uri()}"
    own = settings.get("spark.driver.extraJavaOptions", "")
    settings = {**settings, "spark.driver.extraJavaOptions": f"{options} {own}".strip()}
    builder = SparkSession.builder.appName(app_name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    _set_python(settings.get("spark.pyspark.python", sys.executable))
    with _environment(_launch_environment(directory, separate_processes)):
        spark: SparkSession = builder.getOrCreate()
    if separate_processes:
        # Executors hold files below the private directory, which is removed after this.
        atexit.register(_stop, spark, os.getpid())
    return spark


def _set_python(executable: str) -> None:
    """Make Spark start its Python workers with this Python, unless the user chose one."""
    if executable:
        os.environ.setdefault("PYSPARK_PYTHON", executable)
        os.environ.setdefault("PYSPARK_DRIVER_PYTHON", executable)


def _launch_environment(directory: Path, separate_processes: bool) -> dict[str, str | None]:
    """Variables that only the JVM needs to inherit."""
    variables = java.environment(java.find_java(pyspark.__version__), directory)
    if "SPARK_LOCAL_IP" not in os.environ:
        variables["SPARK_LOCAL_IP"] = LOOPBACK
    if separate_processes and os.name == "posix":
        variables["SPARK_HOME"] = str(_spark_home(directory))
    return variables


def _spark_home(directory: Path) -> Path:
    """A view of Spark's directory in which executors may write.

    Spark puts each executor's log into `work` of its own directory, which is
    site-packages, and leaves it there.
    """
    original = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)
    view = directory / "spark"
    view.mkdir(exist_ok=True)
    for entry in original.iterdir():
        link = view / entry.name
        if entry.name != "work" and not link.exists():
            link.symlink_to(entry)
    return view


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set, or unset, environment variables for the duration of a block."""
    before = {name: os.environ.get(name) for name in variables}
    _put(variables)
    try:
        yield
    finally:
        _put(before)


def _put(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@functools.cache
def _private_directory() -> Path:
    """A directory of this process, removed when it ends.

    One for all sessions: the JVM, and with it the environment it started in,
    outlives a `spark.stop()`.
    """
    directory = Path(tempfile.mkdtemp(prefix="kspark-session-"))
    atexit.register(_remove, directory, os.getpid())
    return directory


def _remove(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # A forked child leaves it to its parent.
        shutil.rmtree(directory, ignore_errors=True)


def _stop(spark: SparkSession, owner: int) -> None:
    if os.getpid() == owner:
        with contextlib.suppress(Py4JError, OSError):  # Its JVM may be gone already.
            spark.stop()


def _check_running(spark: SparkSession, wanted: Mapping[str, str]) -> None:
    """Refuse arguments that the running session contradicts."""
    for key, value in wanted.items():
        running = spark.conf.get(key, None)
        if key == "spark.driver.extraJavaOptions" and running and value in running:
            continue
        if running != value:
            raise ValueError(
                f"A Spark session with {key}={running} is running, and {value} was asked for. "
                "Call `stop()` on it first, or leave that argument out."
            )
