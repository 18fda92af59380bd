"""The resources of the tasks of a call: those of the session's settings, or of a profile.

A profile is the argument `resources` of `SparkModel`. It holds for all jobs of a call, which find
it here: one function submits them all (`ClassicEngine.collect`).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import pyspark
from pyspark.resource import ResourceProfile
from pyspark.sql import SparkSession

from kspark.cluster.connection import explaining_loss
from kspark.errors import ClusterError, invalid

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[ResourceProfile | None] = ContextVar("kspark_resources", default=None)

_known: weakref.WeakKeyDictionary[ResourceProfile, Any] = weakref.WeakKeyDictionary()
"""The profile in the JVM for one that was made without a JVM. Spark takes one per stage only."""

FRAMES_FROM = (4, 0)
"""The first version of Spark in which functions over DataFrames take a profile."""


def checked_profile(value: Any) -> ResourceProfile | None:
    """Return the value of `resources`, if it is one.

    Raises:
        ValueError: If it is no `ResourceProfile`.
    """
    if value is None or isinstance(value, ResourceProfile):
        return value
    raise invalid("resources", "a `pyspark.resource.ResourceProfile`, or None", value)


@contextmanager
def applied(profile: ResourceProfile | None) -> Iterator[None]:
    """Run the jobs of the block on a profile; on the session's settings if it is `None`."""
    token = _current.set(profile)
    try:
        yield
    finally:
        _current.reset(token)


def on_resources(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method of a model to run its jobs on the model's `resources`.

    The method explains errors of Spark that say that the server of Spark Connect is gone.
    """

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        profile = checked_profile(getattr(args[0], "resources", None))
        with applied(profile), explaining_loss():
            return method(*args, **kwargs)

    return wrapper


def current_profile() -> ResourceProfile | None:
    """Return the profile of the call that runs, or `None`."""
    return _current.get()


def on_profile(results: Any) -> Any:
    """Let the tasks of results run on the profile of the call, if it has one.

    Args:
        results: RDD, or `kspark.cluster.results.PackedResults`. Others, such as the first row of
            a DataFrame, are not computed by tasks of kspark, and stay as they are.

    Returns:
        The same results.

    Raises:
        ClusterError: If this cluster manager does not support the profile.
    """
    profile = _current.get()
    if profile is None or not hasattr(results, "withResources"):
        return results
    try:
        results.withResources(_known.get(profile, profile))
        if profile not in _known:
            _known[profile] = results.getResourceProfile()
    except Exception as error:
        raise ClusterError(
            "Spark refuses the profile in `resources`. A profile of task resources only needs "
            "YARN, Kubernetes or a standalone cluster; one of executor resources also needs "
            f"spark.dynamicAllocation.enabled=true. Spark says: {str(error)[:500]}"
        ) from error
    return results


def frame_arguments() -> dict[str, Any]:
    """Return the arguments for `DataFrame.mapInArrow` that put it on the profile of the call.

    Raises:
        ValueError: If this version of Spark has no such argument.
    """
    profile = _current.get()
    if profile is None:
        return {}
    if tuple(int(part) for part in pyspark.__version__.split(".")[:2]) < FRAMES_FROM:
        rule = (
            f"None to predict a DataFrame with Spark {pyspark.__version__}: functions over "
            "DataFrames take a profile from Spark 4.0 on. Give the session "
            "spark.task.resource.gpu.amount instead"
        )
        raise invalid("resources", rule, profile)
    return {"profile": profile}


def refuse_over_connect() -> None:
    """Refuse a profile over Spark Connect.

    Raises:
        ValueError: If the call has one.
    """
    if _current.get() is not None:
        rule = "None over Spark Connect, whose server decides about the resources of its tasks"
        raise invalid("resources", rule, _current.get())


def task_amount(spark: SparkSession, name: str) -> float:
    """Return how much of a resource a task of this call takes.

    Args:
        spark: `SparkSession`.
        name: String, `"cpus"`, or a resource such as `"gpu"`.
    """
    profile = _current.get()
    if profile is not None and name in profile.taskResources:
        return float(profile.taskResources[name].amount)
    if profile is not None and name != "cpus":
        return 0.0  # A profile says all that its tasks get.
    key = "spark.task.cpus" if name == "cpus" else f"spark.task.resource.{name}.amount"
    return float(spark.conf.get(key, None) or (1 if name == "cpus" else 0))


def executor_amount(spark: SparkSession, name: str) -> float:
    """Return how much of a resource each executor has for the tasks of this call."""
    profile = _current.get()
    if profile is not None and name in profile.executorResources:
        return float(profile.executorResources[name].amount)
    return float(spark.conf.get(f"spark.executor.resource.{name}.amount", None) or 0)
