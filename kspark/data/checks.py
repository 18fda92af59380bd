"""Checks of the arguments of Elephas' functions, before any of them runs."""

from __future__ import annotations

from typing import Any

from kspark.adapters.refusals import shown
from kspark.errors import Described, invalid_type


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], rule: str) -> None:
    """Check the type of an argument.

    Args:
        name: String, name of the argument.
        value: Its value, which the error does not print.
        kind: The type or types that it may have.
        rule: String, what it must be, with the code that makes it.

    Raises:
        TypeError: If it has another one.
    """
    if not isinstance(value, kind):
        raise invalid_type(name, rule, Described(shown(value)))


def check_has(name: str, value: Any, method: str, rule: str) -> None:
    """Check that an argument has a method; see `check_kind`.

    Raises:
        TypeError: If it has none.
    """
    if not hasattr(value, method) or getattr(value, "ndim", 1) == 0:
        raise invalid_type(name, rule, Described(shown(value)))
