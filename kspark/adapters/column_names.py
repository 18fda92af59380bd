"""Names of columns as the user gives them, and the errors about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kspark.errors import invalid

Names = str | Sequence[str]

AS_STRINGS = "`df.columns = df.columns.astype(str)` makes strings of numbers"
"""Advice for a table of pandas whose columns are named by numbers."""

SHOWN_NAMES = 20
"""The most names of columns that an error lists."""


def as_names(value: Any, argument: str) -> tuple[str, ...]:
    """Return one or several column names as a tuple."""
    is_many = isinstance(value, Iterable) and not isinstance(value, str)
    names = tuple(value) if is_many else (value,)
    if not names or not all(isinstance(name, str) and name for name in names):
        rule = "one or several names of columns"
        if any(isinstance(name, int | np.integer) for name in names):
            rule += f", which are strings ({AS_STRINGS})"
        raise invalid(argument, rule, value)
    return names


def is_other(value: Any, usual: Any) -> bool:
    """Whether an argument that names columns has a value other than `None` and the usual one."""
    return value is not None and not (isinstance(value, str) and value == usual)


def missing(name: str, available: Sequence[Any], argument: str | None = None) -> ValueError:
    """Make the error for a column that does not exist, with the argument that names it."""
    which = f", which `{argument}` names" if argument else ""
    found = f"There is no column {name!r}{which}."
    texts = [one for one in available if isinstance(one, str)]
    advice = "" if len(texts) == len(available) else f". Names must be strings: {AS_STRINGS}"
    if len(available) <= SHOWN_NAMES:
        return ValueError(f"{found} The columns are: {list(available)}{advice}")
    near = difflib.get_close_matches(name, texts, SHOWN_NAMES // 4)
    closest = f". The nearest names are: {near}" if near else ""
    first = list(available[:SHOWN_NAMES])
    return ValueError(f"{found} The {len(available)} columns begin with {first}{closest}{advice}")
