"""Summaries of repeated measurements as cells of Markdown tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from typing import Any

Result = dict[str, Any]


def failure_of(results: list[Result]) -> str | None:
    """The reason of the first failure, safe for a table's cell, or `None`."""
    reasons = [result["failed"] for result in results if "failed" in result]
    return reasons[0].replace("|", "/") if reasons else None


def median(results: list[Result], key: str) -> float | None:
    """The median of a figure over the repeats that have it."""
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def number(value: float | None, form: str) -> str:
    """A number as text, or a dash."""
    return "–" if value is None else form.format(value)


def with_ratio(value: float | None, base: float | None, form: str) -> tuple[str, str]:
    """A number as text, and its ratio to the baseline's number."""
    ratio = value / base if value is not None and base else None
    return number(value, form), number(ratio, "{:.2f}")


def versions() -> str:
    """The number of cores and the versions of the libraries."""
    names = ("keras", "tensorflow", "pyspark", "numpy")
    installed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {installed}"
