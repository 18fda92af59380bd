"""Start a local `SparkSession` that works on a laptop without configuration.

It avoids these problems of a plain `SparkSession.builder.getOrCreate()`:

* Python workers run the `python3` of the `PATH`, not the Python that runs the
  script, and lack its packages. `local_session` sets `PYSPARK_PYTHON`.
* Java is missing, or this version of Spark does not run on it. `kspark.session.java`
  finds one that fits.
* The driver's address changes with the laptop's network. `local_session` binds
  the driver to the loopback interface.
* Warnings and Spark's progress bar mix with the output of Keras. They are off, unless the
  environment variable `KSPARK_LOG` is set; see `kspark.logs`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from kspark import logs, temporary
from kspark.classic import Py4JError
from kspark.cluster.accelerators import keep_from_driver
from kspark.cluster.interrupts import defers_interrupts
from kspark.errors import invalid
from kspark.session import java
from kspark.session.archive import archive_options
from kspark.session.starting import start
from kspark.session.warm import PYTHONPATH, start_fork_server, warm_settings

__all__ = ["local_session"]

logger = logging.getLogger("kspark")

LOOPBACK = "127.0.0.1"
DEFAULT_MEMORY = "2g"

# Settings of every local session; `config` overrides them.
DEFAULTS = {
    "spark.driver.host": LOOPBACK,
    "spark.driver.bindAddress": LOOPBACK,
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # A new Python worker imports Keras and its backend again, which takes seconds.
    "spark.python.worker.reuse": "true",
    # How long a cancelled task may go on. With Spark's default, an interrupt takes 2 s longer.
    "spark.python.task.killTimeout": "100ms",
    # Spark 4.3 otherwise passes the columns of files to functions in a slower way, see
    # `kspark.job.frame_scoring`.
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
    # Spark shortens tracebacks in functions over DataFrames but not over RDDs, and does not
    # share a Python worker between functions that differ in this. If it were on, `fit` and
    # `transform` would start separate workers, and each would import Keras.
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
}

# Java's optimizing compiler takes a third of the time that Spark needs to start on two cores. With
# ten times its default thresholds, it compiles what runs for long and little of what runs once.
LATE_OPTIMIZATION = (
    "-XX:+IgnoreUnrecognizedVMOptions -XX:Tier4InvocationThreshold=50000 "
    "-XX:Tier4MinInvocationThreshold=6000 -XX:Tier4CompileThreshold=150000 "
    "-XX:Tier4BackEdgeThreshold=400000"
)

# Wide rows reach Python faster in batches of a few megabytes than in batches of 10,000 rows. Narrow
# rows take almost twice as long to score in batches of 500 rows as in batches of 10,000.
BY_BYTES = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(2 << 20),
}
BY_ROWS = {"spark.sql.execution.arrow.maxRecordsPerBatch": "500"}
"""For versions of Spark before `BY_BYTES_FROM`, which do not limit bytes for all functions."""

BY_BYTES_FROM = (4, 1)
"""The first version of Spark that limits the bytes of the batches of all functions."""

COMBINED = ("spark.driver.extraJavaOptions", PYTHONPATH)
"""Settings to which the session adds its own values."""

# Log errors only, from the start: Spark reads a setting like `spark.log.level` only after it
# has logged the first warnings. When Spark starts from Python, it sets all other loggers to
# the level of the logger "python" and prints a notice if that changes them. Nothing is logged
# about failed tasks: the exception in Python says the same, and after an interrupt, tasks fail
# that nobody waits for.
LOG4J = """\
rootLogger.level = error
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = off
logger.context.name = org.apache.spark.TaskContextImpl
logger.context.level = off
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = off
logger.python.name = org.apache.spark.api.python.PythonGatewayServer
logger.python.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
"""


@defers_interrupts
def local_session(
    cores: int | None = None,
    *,
    executors: int | None = None,
    memory: str | None = None,
    app_name: str = "kspark",
    config: Mapping[str, object] | None = None,
) -> SparkSession:
    """Start Spark on this machine, or return the running session.

    A session that is already running (one of the notebook platform, or of an
    earlier call) is returned as it is. It is never changed and never stopped. An
    argument that contradicts it is an error.

    Sets the environment variables `PYSPARK_PYTHON` and `PYSPARK_DRIVER_PYTHON`
    to this Python, unless they are set. Stop the session with `spark.stop()`;
    otherwise it ends with the process.

    On Linux, a process of its own imports Keras while Spark starts, and workers are forks of it;
    see `kspark.cluster.daemon`. It keeps the memory that the import takes until this process
    ends. The setting `spark.python.daemon.module=pyspark.daemon` in `config` turns it off.

    If tasks take GPUs by `spark.task.resource.gpu.amount`, these are hidden from this process,
    unless `CUDA_VISIBLE_DEVICES` or `spark.driver.resource.gpu.amount` is set.

    Example:

    ```python
    spark = local_session(2)
    ```

    Args:
        cores: Integer, number of tasks that run at the same time; with `executors`,
            per executor. Defaults to all cores, or to `1` with `executors`.
        executors: Integer, number of executor processes, as on a real
            cluster (Spark's master `local-cluster`). Defaults to `None`:
            tasks run in the driver's process.
        memory: String, heap size of the JVM, such as `"512m"` or `"4g"`; with
            `executors`, of each executor. Only the first session of a process
            can set it. Defaults to `"2g"`.
        app_name: String, the name that Spark shows for the application.
            Defaults to `"kspark"`.
        config: Mapping of further Spark settings, such as
            `{"spark.log.level": "WARN"}`. They override kspark's own.

    Returns:
        A `SparkSession`.

    Raises:
        ValueError: If an argument is invalid or contradicts the running session.
        ClusterError: If there is no Java that this Spark runs on.
    """
    wanted = _wanted(cores, executors, memory, config)
    spark = SparkSession.getActiveSession()
    if spark is None:
        settings = {**_defaults(cores, executors, memory or DEFAULT_MEMORY), **wanted}
        settings.update(warm_settings(settings, _private_directory()))
        spark = _start(settings, app_name, separate_processes=executors is not None)
    _check_running(spark, wanted)
    keep_from_driver(spark)
    return spark


def _wanted(
    cores: int | None,
    executors: int | None,
    memory: str | None,
    config: Mapping[str, object] | None,
) -> dict[str, str]:
    """Check the arguments and return the Spark settings that they ask for."""
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
    for key, setting in (config or {}).items():
        # Spark writes booleans in lower case.
        wanted[key] = str(setting).lower() if isinstance(setting, bool) else str(setting)
    return wanted


def _master(cores: int | None, executors: int | None, memory: str) -> str:
    """Return the URL of Spark's master."""
    if executors is None:
        return f"local[{cores or '*'}]"
    return f"local-cluster[{executors},{cores or 1},{_megabytes(memory)}]"


def _megabytes(memory: str) -> int:
    """Convert `"2g"` or `"2048m"` to 2048 mebibytes."""
    match = re.fullmatch(r"(\d+)([mg])b?", str(memory).lower())
    if match is None or int(match.group(1)) == 0:
        raise invalid("memory", 'a string such as "512m" or "4g"', memory)
    return int(match.group(1)) * (1024 if match.group(2) == "g" else 1)


def _version(text: str) -> tuple[int, ...]:
    """Convert `"4.1.0.dev1"` to `(4, 1)`."""
    return tuple(int(part) for part in text.split(".")[:2])


def _defaults(cores: int | None, executors: int | None, memory: str) -> dict[str, str]:
    """Return the default settings of a session."""
    batches = BY_BYTES if _version(pyspark.__version__) >= BY_BYTES_FROM else BY_ROWS
    settings = {**DEFAULTS, **batches, "spark.master": _master(cores, executors, memory)}
    if executors is None:
        return {**settings, "spark.driver.memory": memory}
    # A killed executor cannot remove its files. This process removes its private directory.
    files = _private_directory() / "executors"
    return {
        **settings,
        "spark.executor.memory": memory,
        "spark.executor.extraJavaOptions": LATE_OPTIMIZATION,
        "spark.local.dir": str(files),
    }


def _start(settings: dict[str, str], app_name: str, *, separate_processes: bool) -> SparkSession:
    """Start a session with the given settings."""
    directory = _private_directory()
    found = java.find_java(pyspark.__version__)
    options = [LATE_OPTIMIZATION, archive_options(found, quiet=not logs.are_shown())]
    if not logs.are_shown():
        log4j = directory / "log4j2.properties"
        log4j.write_text(LOG4J, encoding="utf-8")
        options.append(f"-Dlog4j2.configurationFile={log4j.as_uri()}")
    options.append(settings.get("spark.driver.extraJavaOptions", ""))
    settings = {**settings, "spark.driver.extraJavaOptions": " ".join(filter(None, options))}
    builder = SparkSession.builder.appName(app_name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    if python := settings.get("spark.pyspark.python", sys.executable):
        os.environ.setdefault("PYSPARK_PYTHON", python)
        os.environ.setdefault("PYSPARK_DRIVER_PYTHON", python)
    variables = _launch_environment(found, directory, separate_processes)
    start_fork_server(settings, os.environ.get("PYSPARK_PYTHON", ""))
    with _environment(variables):
        spark = start(builder, {"spark.app.name": app_name, **settings})
    if separate_processes:
        # Stop executors before the private directory is removed: their files are inside it.
        atexit.register(_stop, spark, os.getpid())
    return spark


def _launch_environment(
    found: java.Java, directory: Path, separate_processes: bool
) -> dict[str, str | None]:
    """Return environment variables that only the JVM needs to inherit."""
    variables = java.environment(found, directory, quiet=not logs.are_shown())
    if "SPARK_LOCAL_IP" not in os.environ:
        variables["SPARK_LOCAL_IP"] = LOOPBACK
    if separate_processes and os.name == "posix":
        variables["SPARK_HOME"] = str(_spark_home(directory))
    return variables


def _spark_home(directory: Path) -> Path:
    """Create a directory of links to Spark's files, in which executors can write.

    Spark writes each executor's log into `work` of its own directory, which is
    in site-packages, and never removes it.
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
    """Set environment variables inside the block, or unset those whose value is `None`."""
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
    """Create a directory that is removed when this process ends.

    All sessions share it, because the JVM keeps running after `spark.stop()` and
    uses the environment that it was started with.
    """
    folder = temporary.Folder(temporary.SESSION)
    atexit.register(_remove, folder, os.getpid())
    return folder.path


def _remove(folder: temporary.Folder, owner: int) -> None:
    if os.getpid() == owner:  # A forked child leaves it to its parent.
        folder.remove()


def _stop(spark: SparkSession, owner: int) -> None:
    if os.getpid() == owner:
        with contextlib.suppress(Py4JError, OSError):  # The JVM may have ended already.
            spark.stop()


def _check_running(spark: SparkSession, wanted: Mapping[str, str]) -> None:
    """Raise an error if a requested setting differs from the running session's."""
    for key, value in wanted.items():
        running = spark.conf.get(key, None)
        if key in COMBINED and running and value in running:
            continue
        if running != value:
            raise ValueError(
                f"A Spark session with {key}={running} is running, and {value} was requested. "
                "Call `stop()` on it first, or omit the argument."
            )
