"""Make the package `benchmarks` importable, which is not part of the installed kspark.

Only this package is loaded from the project's directory. The directory itself stays out of
`sys.path`, because Python would import kspark's sources from there instead of the installed
package that is tested.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def load_benchmarks() -> None:
    """Register the package in `sys.modules`. Its modules are found through its path."""
    spec = spec_from_file_location(
        "benchmarks", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"There is no package in {FOLDER}.")
    sys.modules["benchmarks"] = package = module_from_spec(spec)
    spec.loader.exec_module(package)


load_benchmarks()
