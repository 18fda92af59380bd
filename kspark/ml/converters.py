"""Converters of `Param`s: check the value that a user sets, and turn it into the stored value.

Spark stores Params as JSON. So a converted value is plain data that JSON gives back unchanged, or
a value of `unsaved`. Converting a value twice gives the same result as converting it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from kspark.errors import invalid, invalid_type
from kspark.ml.naming import KERAS, naming
from kspark.ml.unsaved import CallbackMaker, Callbacks, StepValue
from kspark.plan.checks import (
    check_class_weight,
    check_frequency,
    check_integer,
    check_reshuffle,
)
from kspark.plan.settings import SETTINGS
from kspark.replica.steps import checked as checked_step

Converter = Callable[[Any], Any]


def checked(name: str, check: Callable[..., Any], **limits: Any) -> Converter:
    """Make a converter of a check. Floats without a fraction count as integers, as in Spark.

    Args:
        name: String, name of the Param, for errors.
        check: Function of `kspark.plan.checks`.
        **limits: Further arguments of the check.
    """

    def convert(value: Any) -> Any:
        return check(name, without_fraction(value, check), **limits)

    return convert


def setting(name: str) -> Converter:
    """Make the converter of a setting of `SparkModel`. Strings stay strings; errors name the Param.

    Args:
        name: String, name of the setting.
    """
    declared = SETTINGS[name]

    @naming(KERAS)
    def convert(value: Any) -> Any:
        if isinstance(value, str):
            declared.check(name, value)
            return str(value)
        plain = declared.plain(declared.check(name, without_fraction(value, declared.check)))
        return list(plain) if isinstance(plain, tuple) else plain

    return convert


def without_fraction(value: Any, check: Callable[..., Any]) -> Any:
    """Turn a float without a fraction into an integer, for a check of integers."""
    whole = getattr(check, "func", check) in (check_integer, check_frequency, check_reshuffle)
    if whole and isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return value


def text(name: str) -> Converter:
    """Make a converter for strings."""

    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise invalid_type(name, "a string", value)
        return str(value)

    return convert


def column_names(name: str) -> Converter:
    """Make a converter for the name of a column, or a list of names."""
    rule = "the name of a column, or a list of names"

    def convert(value: Any) -> str | list[str]:
        if isinstance(value, str) and value:
            return str(value)
        if not is_names(value):
            raise invalid_type(name, rule, value)
        return [str(v) for v in value]

    return convert


def columns_by_name(name: str, *, also_plain: bool) -> Converter:
    """Make a converter for a dictionary from input or output to column(s).

    Args:
        name: String, name of the Param, for errors.
        also_plain: Boolean, whether to accept the values of `column_names`, too.
    """
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
    """Convert weights by class. The keys become strings, because JSON has no other keys."""
    if isinstance(value, Mapping):
        value = {int(k) if isinstance(k, str) and k.isdecimal() else k: w for k, w in value.items()}
    return {str(k): w for k, w in (check_class_weight("classWeight", value) or {}).items()}


def thresholds(value: Any) -> list[float]:
    """Convert a list of numbers >= 0, of which at most one is 0, as in all of Spark ML."""
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
    """Convert Keras' `verbose`: `"auto"`, 0, 1 or 2."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, Integral) or value not in (0, 1, 2):
        raise invalid("verbose", '"auto", 0, 1 or 2', value)
    return int(value)


def step(name: str) -> Converter:
    """Make a converter for a function of a batch, its import name, or a Keras layer.

    Args:
        name: String, name of the Param, for errors.
    """

    def convert(value: Any) -> Any:
        if isinstance(value, StepValue):
            return value
        checked_step(name, value)
        return value if isinstance(value, str) else StepValue(name, value)

    return convert


def callbacks(value: Any) -> Any:
    """Convert a list of Keras callbacks, or a function that returns one. `fit` checks the list."""
    if not callable(value) and not isinstance(value, list | tuple):
        rule = "a list of `keras.callbacks.Callback`, or a function that returns one"
        raise invalid_type("callbacks", rule, value)
    if isinstance(value, CallbackMaker):
        return value
    return CallbackMaker(value) if callable(value) else Callbacks(value)
