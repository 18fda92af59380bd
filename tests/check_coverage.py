"""Check that every line and branch of some modules is covered.

Reads the report that `coverage json` writes. Run it by `tox -e coverage`, or by hand:

    python tests/check_coverage.py coverage.json compression optimizers aggregator.py

A name is a file or folder below `kspark/`. The exit status is 1 if one of their files has
a line or branch that no test reached, or if a name stands for no file of the report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGE = "kspark"


def path_in_package(file: str) -> PurePosixPath:
    """Path of a measured file below the package, wherever the package is installed."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    last = max((i for i, part in enumerate(parts) if part == PACKAGE), default=-1)
    return PurePosixPath(*parts[last + 1 :])


def gaps_of(measured: Mapping[str, Any]) -> list[str]:
    """Lines and branches that no test reached. A branch is shown as `from->to`."""
    branches = [
        f"{start}->{'exit' if stop < 0 else stop}" for start, stop in measured["missing_branches"]
    ]
    return [*map(str, measured["missing_lines"]), *branches]


def complaints(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What keeps the named files and folders from full coverage.

    Args:
        report: Mapping, the content of the JSON report.
        names: Sequence of strings, files and folders below the package.

    Returns:
        List of strings, one per incomplete file and per name without a file.
    """
    if not report["meta"]["branch_coverage"]:
        return ["The report has no branches. Run coverage with `branch = true`."]
    files = {path_in_package(file): measured for file, measured in report["files"].items()}
    found = []
    for name in names:
        chosen = [path for path in files if path.is_relative_to(name)]
        if not chosen:
            found.append(f"{name}: no file of this name was measured")
        for path in sorted(chosen):
            if gaps := gaps_of(files[path]):
                found.append(f"{path}: not covered: {', '.join(gaps)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="file that `coverage json` has written")
    parser.add_argument("names", nargs="+", help="files and folders below kspark/")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text(encoding="utf-8"))
    found = complaints(report, arguments.names)
    for complaint in found:
        print(complaint)
    if not found:
        print("Every line and branch is covered in", *arguments.names)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
