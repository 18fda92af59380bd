"""Command-line options that several benchmarks have."""

from __future__ import annotations

import argparse
import fnmatch
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

Case = TypeVar("Case")


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` shows a benchmark's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_only(parser: argparse.ArgumentParser) -> None:
    """Add `--only`, which selects cases."""
    parser.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="run the cases whose names match a shell pattern; default: all",
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout`, the limit for one measured process."""
    parser.add_argument(
        "--timeout", type=float, default=400.0, help="seconds allowed per process; default: 400"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, the folder of published data sets."""
    folder = os.environ.get("KSPARK_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(folder) if folder else None,
        help="folder of the published files; default: $KSPARK_DATA, else data made on the spot",
    )


def matching(cases: Mapping[str, Case], patterns: list[str]) -> dict[str, Case]:
    """The cases whose names match one of the patterns."""
    return {
        name: case
        for name, case in cases.items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
