"""Tell which argument was meant by a name that a method does not have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from kspark.errors import nearest
from kspark.plan.settings import SETTINGS

P = ParamSpec("P")
R = TypeVar("R")

READING = ("workers", "use_multiprocessing", "max_queue_size")
"""Arguments of Keras 2, which say how its own threads and processes read the data."""

CERTAIN = 0.7
"""How similar the name of a setting of `SparkModel` must be, which most names do not mean."""


def explains_unknown_arguments(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method of `SparkModel` to explain arguments that it does not have.

    Its signature stays the same, for `help`, for completion and for type checkers.

    Raises:
        TypeError: If the method is called with the name of an argument that it does not have.
    """
    names = [name for name in inspect.signature(method).parameters if name != "self"]

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in names:
                raise TypeError(f"`{method.__name__}` has no argument `{name}`.{hint(name, names)}")
        return method(*args, **kwargs)

    return wrapper


def hint(name: str, names: list[str]) -> str:
    """Return a sentence about the argument that was meant, or nothing if no name is similar.

    Args:
        name: String, the name that was received.
        names: List of strings, the arguments of the method.
    """
    if name in READING:
        return " kspark reads the data in its own tasks: leave it out."
    meant = name if name in SETTINGS else nearest(name, [*names, *SETTINGS])
    if meant is None or (meant not in names and nearest(name, [meant], CERTAIN) is None):
        return ""
    if meant in names:
        return f" Did you mean `{meant}`?"
    if meant == name:
        return f" It is an argument of `SparkModel`: `SparkModel(model, {name}=...)`."
    return f" Did you mean `{meant}`? It is an argument of `SparkModel`."
