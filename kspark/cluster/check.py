"""Check the Python environment of a cluster's workers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.accelerators import in_order
from kspark.cluster.backend import keras_backend
from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.environment import WorkerEnvironment, environment, report_environment
from kspark.cluster.gpu_checks import check_gpu_settings, idle_gpus, shared_gpus
from kspark.cluster.memory import WorkerMemory
from kspark.cluster.preflight import problems_of_session, problems_of_speculation
from kspark.cluster.spark_job import Watch, run_once
from kspark.errors import EnvironmentMismatchError

logger = logging.getLogger("kspark")

COLD = (
    "Each Python worker imports Keras itself, which takes several seconds per worker, also for one "
    "that replaces another. If kspark is installed on all hosts, set "
    "spark.python.daemon.module=kspark.cluster.daemon before the session starts, and over Spark "
    "Connect also spark.executorEnv.KSPARK_WARM to the name of the backend. The import then takes "
    "place once per executor."
)
"""Message if workers do not start with Keras imported."""

_checked: set[tuple[str, str]] = set()
_told: set[tuple[str, str]] = set()


def check_cluster(
    spark: SparkSession, backend: str | None = None, model: Any = None
) -> list[WorkerEnvironment]:
    """Check that the workers have the Python version and the packages that training needs.

    kspark itself need not be installed there, because the driver sends its own code. If another
    version is installed there, a warning says so. Other warnings name GPUs that executors share, or
    that no task gets, and settings of Spark with which fits are refused, do work again, or take
    more memory than an executor has.

    Example:

    ```python
    for worker in kspark.check_cluster(spark, model=model):
        print(worker.host, worker.python, worker.kspark, worker.packages)
    ```

    Args:
        spark: `SparkSession`.
        backend: String, the Keras backend that must be installed. Defaults to `None`, the
            backend of Keras on the driver.
        model: `keras.Model` that is going to be trained, of which the memory of the workers is
            estimated. Its optimizer is built. Defaults to `None`: the estimate is without weights.

    Returns:
        List of `WorkerEnvironment`, one per worker that answered, without duplicates.

    Raises:
        EnvironmentMismatchError: If a worker runs another version of Python, Keras or kspark,
            or lacks Keras, NumPy, PyArrow or the backend. The message names the hosts and the
            remedy.
    """
    backend = backend or keras_backend()
    workers = checked_workers(spark, backend)
    for problem in problems_of_speculation(spark):
        logger.warning(problem)
    warn_of_settings(spark, backend, model)
    return workers


def warn_of_settings(
    spark: SparkSession, backend: str, model: Any = None, *, once: bool = False
) -> None:
    """Warn about settings that do not go with training a model; see `problems_of_session`.

    Args:
        spark: `SparkSession`.
        backend: String, the Keras backend.
        model: `keras.Model`, or `None`.
        once: Boolean, whether an application gets each warning only once. Defaults to `False`.
    """
    for problem in problems_of_session(spark, WorkerMemory.of(spark, backend, model)):
        key = (engine_of(spark).application, problem)
        if not (once and key in _told):
            logger.warning(problem)
        _told.add(key)


def checked_workers(
    spark: SparkSession, backend: str, watch: Watch | None = None
) -> list[WorkerEnvironment]:
    """Do what `check_cluster` does, and let `watch` see the job."""
    engine = engine_of(spark)
    check_gpu_settings(spark)
    engine.use_warm_workers(backend)
    results = engine.on_every_slot(ship(report_environment, backend))
    answers = run_once(spark, results, "kspark: check the workers", watch)
    found = merged(answers)
    problems = [text for a in found for text in problems_of(a, backend)]
    if problems:
        raise EnvironmentMismatchError(
            "The workers cannot run this model:\n  "
            + "\n  ".join(problems)
            + "\nInstall the missing packages on every host, or set PYSPARK_PYTHON (or "
            "spark.pyspark.python) to a Python that has them, or ship an environment with "
            "--archives (see `venv-pack` or `conda-pack`)."
        )
    for worker in found:
        warn_of_other_kspark(worker)
    for problem in [*shared_gpus(answers), *idle_gpus(spark)]:
        logger.warning(problem)
    if sys.platform == "linux" and not all(worker.warm for worker in found):
        logger.info(COLD)
    return found


def merged(answers: Iterable[WorkerEnvironment]) -> list[WorkerEnvironment]:
    """Return one answer per host and interpreter, with the GPUs of all its answers."""
    found: dict[tuple[str, str], WorkerEnvironment] = {}
    for answer in answers:
        before = found.get((answer.host, answer.executable), answer)
        gpus = tuple(in_order({*before.gpus, *answer.gpus}))
        found[answer.host, answer.executable] = replace(answer, gpus=gpus)
    return list(found.values())


def problems_of(worker: WorkerEnvironment, backend: str) -> list[str]:
    """Describe what prevents one worker from training, one text per problem."""
    where = place_of(worker)
    here = environment(backend)
    problems = [
        f"{where} has no {name}; the driver has {here.packages.get(name)}"
        for name, version in worker.packages.items()
        if version is None
    ]
    if worker.python.rsplit(".", 1)[0] != here.python.rsplit(".", 1)[0]:
        problems.append(f"{where} runs Python {worker.python}, the driver {here.python}")
    keras_there, keras_here = worker.packages.get("keras"), here.packages.get("keras")
    if keras_there and keras_here and keras_there.split(".")[:2] != keras_here.split(".")[:2]:
        problems.append(f"{where} has keras {keras_there}, the driver {keras_here}")
    if worker.kspark != here.kspark:
        problems.append(f"{where} runs kspark {worker.kspark}, the driver {here.kspark}")
    return problems


def warn_of_other_kspark(worker: WorkerEnvironment) -> None:
    """Warn if another version of kspark is installed on a worker than the one that it runs."""
    if worker.installed_kspark not in (None, worker.kspark):
        logger.warning(
            "%s has kspark %s installed. Its tasks run the driver's kspark %s instead.",
            place_of(worker),
            worker.installed_kspark,
            worker.kspark,
        )


def place_of(worker: WorkerEnvironment) -> str:
    """Return the host and the interpreter of a worker, for messages."""
    return f"host {worker.host} ({worker.executable})"


def check_cluster_once(spark: SparkSession, backend: str, watch: Watch | None = None) -> None:
    """Call `check_cluster` unless this application passed it with this backend before.

    Args:
        spark: `SparkSession`.
        backend: String, the Keras backend.
        watch: `Watch` of the job. Defaults to `None`.
    """
    engine = engine_of(spark)
    key = (engine.application, backend)
    engine.use_warm_workers(backend)
    if key not in _checked:
        checked_workers(spark, backend, watch)
        _checked.add(key)
