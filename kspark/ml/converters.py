"""What turns the values that users set into the values that `Param`s hold, or refuses them.

A converted value is plain data that JSON gives back as it was, because Spark stores
Params as JSON, or one of `unsaved`; and converting it once more changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from kspark import compression as codecs
from kspark import optimizers
from kspark.errors import invalid, invalid_type
from kspark.ml.unsaved import CallbackMaker, Callbacks
from kspark.plan.checks import (
    check_fraction,
    check_frequency,
    check_integer,
    check_mode,
    check_positive,
    checked_class_weight,
    checked_port,
)
from kspark.plan.learning_rate import check_number_of_epochs

Converter = Callable[[Any], Any]


def integer(name: str, least: int) -> Converter:
    """Integers from `least` on; also floats without a fraction, as elsewhere in Spark."""

    def convert(value: Any) -> int:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            value = int(value)
        check_integer(name, value, least)
        return int(value)

    return convert


def fraction(name: str) -> Converter:
    """Numbers >= 0 and < 1."""

    def convert(value: Any) -> float:
        check_fraction(name, value)
        return float(value)

    return convert


def positive(name: str) -> Converter:
    """Finite numbers above zero."""

    def convert(value: Any) -> float:
        check_positive(name, value)
        return float(value)

    return convert


def number_of_epochs(name: str) -> Converter:
    """Finite numbers >= 0, also fractions."""

    def convert(value: Any) -> float:
        check_number_of_epochs(name, value)
        return float(value)

    return convert


def boolean(name: str) -> Converter:
    """`True` or `False`."""

    def convert(value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise invalid_type(name, "True or False", value)
        return bool(value)

    return convert


def text(name: str) -> Converter:
    """Strings."""

    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise invalid_type(name, "a string", value)
        return str(value)

    return convert


def choice(name: str, *allowed: str) -> Converter:
    """One of some strings."""

    def convert(value: Any) -> str:
        if value not in allowed:
            raise invalid(name, "one of " + ", ".join(f'"{a}"' for a in allowed), value)
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


def mode(value: Any) -> str:
    """A mode of training."""
    check_mode(value)
    return str(value)


def frequency(value: Any) -> str | int:
    """`"epoch"`, `"batch"` or a number of batches."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    check_frequency(value)
    return str(value) if isinstance(value, str) else int(value)


def server_optimizer(value: Any) -> Any:
    """A server optimizer as its name, or as its configuration."""
    if isinstance(value, str):
        optimizers.get(value)
        return str(value)
    return optimizers.serialize(optimizers.get(value))


def compression(value: Any) -> Any:
    """A codec as its name, or as its configuration."""
    codec = codecs.get(value)
    return str(value) if isinstance(value, str) else codecs.serialize(codec)


def class_weight(value: Any) -> dict[str, float]:
    """Weights by class; the keys are strings, as JSON has no others."""
    if isinstance(value, Mapping):
        value = {int(k) if isinstance(k, str) and k.isdecimal() else k: w for k, w in value.items()}
    return {str(k): w for k, w in (checked_class_weight(value) or {}).items()}


def port(value: Any) -> int | list[int]:
    """A port, or the first and the last of several."""
    checked = checked_port(value)
    return list(checked) if isinstance(checked, tuple) else checked


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
