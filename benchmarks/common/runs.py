"""Measured processes: one per case and repeat, and what their numbers come to.

A case is a dictionary that says what to run. Its script runs it in a fresh
process and leaves a JSON document of numbers; processes run one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

Result = dict[str, Any]
Case = dict[str, Any]


def arguments(doc: str | None, **defaults: float) -> argparse.Namespace:
    """Options that all benchmarks have; numbers get their defaults from `defaults`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = os.environ.get("KSPARK_DATA", HERE.parent.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=folder, help="folder of MNIST's test files")
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds for one process")
    parser.add_argument("--only", nargs="+", default=["*"], help="names of cases, as patterns")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    # Ended from outside, it ends the process that is under way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    return parser.parse_args()


def chosen(cases: dict[str, Case], patterns: list[str]) -> dict[str, Case]:
    """The cases whose names match."""
    return {
        name: case
        for name, case in cases.items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }


def run_case(script: str, case: Case, timeout: float) -> Result:
    """One case in a fresh process: its numbers, or `{"failed": reason}`."""
    python = os.environ["ELEPHAS_PYTHON"] if case["engine"] == "elephas" else sys.executable
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        result = Path(folder) / "result.json"
        document = json.dumps({**case, "result": str(result)})
        reason = run_process([python, str(HERE / script), document], environment(python), timeout)
        if reason is None and result.exists():
            return json.loads(result.read_text(encoding="utf-8"))
    return {"failed": reason or "ended without a result"}


def environment(python: str) -> dict[str, str]:
    """Variables of a measured process: Spark's workers run the same Python and see this folder."""
    own = {"PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python, "TF_CPP_MIN_LOG_LEVEL": "3"}
    path = os.pathsep.join(
        p for p in (str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")) if p
    )
    return {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": path, **own}


def run_process(command: list[str], variables: dict[str, str], timeout: float) -> str | None:
    """Run a process, and end it with all it started if it takes too long.

    Returns:
        `None`, or why it failed.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, env=variables, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except BaseException as error:  # an interrupt, too, must not leave a Spark behind
            end_group(process)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"no result after {timeout:g} s"
            raise
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    return None if code == 0 else failure_in(lines)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever a process left running in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def failure_in(lines: list[str]) -> str:
    """The line of a process's output that says why it failed."""
    told = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    return (told or lines or ["no output"])[-1][:120]


def measure_all(
    cases: dict[str, Case], measure: Callable[[Case], Result], repeats: int
) -> dict[str, list[Result]]:
    """All repeats of all cases, interleaved; repeat k has seed k. What failed is not tried again.

    Args:
        cases: Cases by name.
        measure: Called with a case, for its numbers.
        repeats: Integer.
    """
    results: dict[str, list[Result]] = {name: [] for name in cases}
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
        for name, case in cases.items():
            if not any("failed" in result for result in results[name]):
                results[name].append(measure({**case, "seed": repeat}))
                print(f"{name}: {results[name][-1]}", file=sys.stderr, flush=True)
    return results


def failure_of(results: list[Result]) -> str | None:
    """Why a case failed, if it did, in words that fit into a table."""
    failed = [result["failed"] for result in results if "failed" in result]
    return failed[0].replace("|", "/") if failed else None


def median(results: list[Result], key: str) -> float | None:
    """Median of a number over the repeats that have it."""
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def pair(value: float | None, base: float | None, form: str) -> tuple[str, str]:
    """A number as text, and its ratio to the baseline's."""
    ratio = value / base if value is not None and base else None
    return shown(value, form), shown(ratio, "{:.2f}")


def shown(value: float | None, form: str) -> str:
    """A number as text, or a dash."""
    return "–" if value is None else form.format(value)


def versions() -> str:
    """What the numbers depend on."""
    names = ("keras", "tensorflow", "pyspark", "numpy")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {found}"
