"""Checks of the numbers that rules are made with."""

from __future__ import annotations

from numbers import Real
from typing import Any

from kspark.errors import invalid, invalid_type


def number(name: str, value: Any, rule: str) -> float:
    """A finite number as a Python float, which never widens a float32 vector.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, rule, value)
    if not abs(float(value)) < float("inf"):
        raise invalid(name, rule, value)
    return float(value)


def positive(name: str, value: Any) -> float:
    """A finite number above zero.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    checked = number(name, value, "a finite number > 0")
    if checked <= 0:
        raise invalid(name, "a finite number > 0", value)
    return checked


def not_negative(name: str, value: Any) -> float:
    """A finite number, zero or above.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    checked = number(name, value, "a finite number >= 0")
    if checked < 0:
        raise invalid(name, "a finite number >= 0", value)
    return checked


def decay(name: str, value: Any) -> float:
    """A number in [0, 1): what is kept of the past at each step.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    checked = number(name, value, "a number >= 0 and < 1")
    if not 0 <= checked < 1:
        raise invalid(name, "a number >= 0 and < 1", value)
    return checked


def flag(name: str, value: Any) -> bool:
    """A boolean.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, bool):
        raise invalid_type(name, "True or False", value)
    return value
