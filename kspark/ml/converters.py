"""What turns the values that users set into the values that `Param`s hold, or refuses them.

A converted value is plain data that JSON gives back as it was, because Spark stores
Params as JSON, or one of `unsaved`; and converting it once more changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from kspark.errors import invalid, invalid_type
from kspark.ml.unsaved import CallbackMaker, Callbacks
from kspark.plan.checks import check_class_weight
from kspark.plan.settings import Setting

Converter = Callable[[Any], Any]


def checked(name: str, check: Callable[..., Any], **limits: Any) -> Converter:
    """What a check accepts; also floats without a fraction for integers, as elsewhere in Spark.

    Args:
        name: String, name of the Param, for errors.
        check: One of `kspark.plan.checks`.
        **limits: Further arguments of the check.
    """

    def convert(value: Any) -> Any:
        return check(name, without_fraction(value), **limits)

    return convert


def setting(name: str, declared: Setting) -> Converter:
    """What a setting of `SparkModel` accepts, as plain data. A name stays a name.

    Args:
        name: String, name of the Param, for errors.
        declared: `Setting`.
    """

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            declared.check(name, value)
            return str(value)
        plain = declared.plain(declared.check(name, without_fraction(value)))
        return list(plain) if isinstance(plain, tuple) else plain

    return convert


def without_fraction(value: Any) -> Any:
    """A float that is a whole number as an integer; every other value as it is."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return value


def text(name: str) -> Converter:
    """Strings."""

    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise invalid_type(name, "a string", value)
        return str(value)

    return convert


def column_names(name: str) -> Converter:
    """The name of a column, or a list of names."""
    rule = "the name of a column, or a list of names"

    def convert(value: Any) -> str | list[str]:
        if isinstance(value, str) and value:
            return str(value)
        if not is_names(value):
            raise invalid_type(name, rule, value)
        return [str(v) for v in value]

    return convert


def columns_by_name(name: str, *, also_plain: bool) -> Converter:
    """A dictionary from input or output to its column(s); or what `column_names` takes."""
    plain = column_names(name)

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping) and value:
            return {text(name)(key): plain(names) for key, names in value.items()}
        if not also_plain:
            raise invalid_type(name, "a dictionary from input name to column(s)", value)
        return plain(value)

    return convert


def is_names(value: Any) -> bool:
    """Whether a value is a sequence of at least one non-empty string."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return False
    return all(isinstance(v, str) and v for v in value)


def class_weight(value: Any) -> dict[str, float]:
    """Weights by class; the keys are strings, as JSON has no others."""
    if isinstance(value, Mapping):
        value = {int(k) if isinstance(k, str) and k.isdecimal() else k: w for k, w in value.items()}
    return {str(k): w for k, w in (check_class_weight("classWeight", value) or {}).items()}


def thresholds(value: Any) -> list[float]:
    """Numbers >= 0, of which at most one is 0, as everywhere in Spark ML."""
    rule = "a list of numbers >= 0, at most one of them 0"
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        raise invalid_type("thresholds", rule, value)
    if not len(value) or not all(isinstance(v, Real) for v in value):
        raise invalid_type("thresholds", rule, value)
    numbers = [float(v) for v in value]
    if not all(0 <= n < float("inf") for n in numbers) or numbers.count(0.0) > 1:
        raise invalid("thresholds", rule, value)
    return numbers


def verbosity(value: Any) -> int | str:
    """Keras' `verbose`: `"auto"`, 0, 1 or 2."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, Integral) or value not in (0, 1, 2):
        raise invalid("verbose", '"auto", 0, 1 or 2', value)
    return int(value)


def callbacks(value: Any) -> Any:
    """A list of Keras callbacks, or a function that makes one; `fit` looks closer."""
    if not callable(value) and not isinstance(value, list | tuple):
        rule = "a list of `keras.callbacks.Callback`, or a function that returns one"
        raise invalid_type("callbacks", rule, value)
    if isinstance(value, CallbackMaker):
        return value
    return CallbackMaker(value) if callable(value) else Callbacks(value)
