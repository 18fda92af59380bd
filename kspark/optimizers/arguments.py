"""Checks of the arguments of rules."""

from __future__ import annotations

from numbers import Real
from typing import Any

from kspark.errors import invalid, invalid_type


def number(name: str, value: Any, rule: str) -> float:
    """Check that a value is a finite number, and return it as a Python float.

    Python floats do not change the dtype of a float32 vector.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, rule, value)
    if not abs(float(value)) < float("inf"):
        raise invalid(name, rule, value)
    return float(value)


def positive(name: str, value: Any) -> float:
    """Check that a value is a finite number above zero.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    checked = number(name, value, "a finite number > 0")
    if checked <= 0:
        raise invalid(name, "a finite number > 0", value)
    return checked


def not_negative(name: str, value: Any) -> float:
    """Check that a value is a finite number >= 0.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    checked = number(name, value, "a finite number >= 0")
    if checked < 0:
        raise invalid(name, "a finite number >= 0", value)
    return checked


def decay(name: str, value: Any) -> float:
    """Check that a value is a decay rate in [0, 1).

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    checked = number(name, value, "a number >= 0 and < 1")
    if not 0 <= checked < 1:
        raise invalid(name, "a number >= 0 and < 1", value)
    return checked


def flag(name: str, value: Any) -> bool:
    """Check that a value is a boolean.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, bool):
        raise invalid_type(name, "True or False", value)
    return value
