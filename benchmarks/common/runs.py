"""Run each case of a benchmark in a fresh process, one process at a time.

A case is a dictionary that says what to run. It goes to the process as JSON, and the
process writes its figures to a JSON file. This module needs no kspark, so that it can be
imported where only Elephas is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

Result = dict[str, Any]
Case = dict[str, Any]


def run_case(module: str, case: Case, timeout: float) -> Result:
    """Run one case in a fresh process.

    Args:
        module: String, name of a module that calls `answer`.
        case: Dictionary of JSON data. An `engine` of `"elephas"` selects the Python named by
            the environment variable `ELEPHAS_PYTHON`.
        timeout: Float, seconds after which the process is killed.

    Returns:
        The figures that the process wrote, or `{"failed": reason}`.
    """
    python = os.environ["ELEPHAS_PYTHON"] if case["engine"] == "elephas" else sys.executable
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        result = Path(folder) / "result.json"
        # On Linux and macOS, processes of one machine read the same `perf_counter`.
        started = {"result": str(result), "launched": time.perf_counter()}
        document = json.dumps({**case, **started})
        reason = run_process([python, "-m", module, document], environment(python), timeout)
        if reason is None and result.exists():
            return json.loads(result.read_text(encoding="utf-8"))
    return {"failed": reason or "ended without a result"}


def answer(run: Callable[[Case], Result]) -> None:
    """In a measured process: run the case that `run_case` sent, and write its figures."""
    case = json.loads(sys.argv[1])
    Path(case["result"]).write_text(json.dumps(run(case)), encoding="utf-8")


def environment(python: str = sys.executable) -> dict[str, str]:
    """Environment variables for a process that runs Spark.

    Spark's workers run the same Python as the driver, and find the package `benchmarks`
    wherever the benchmark was started.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run_process(command: list[str], variables: dict[str, str], timeout: float) -> str | None:
    """Run a process. Kill it and all that it started if it takes too long.

    Returns:
        `None`, or the reason why the process failed.
    """
    # SIGTERM, too, must kill the process that runs and the Spark that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, env=variables, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return f"no result after {timeout:g} s"
            raise
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    return None if code == 0 else failure_in(lines)


def failure_in(lines: list[str]) -> str:
    """The line of a process's output that names the error, cut to 120 characters."""
    errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines or ["no output"])[-1][:120]


def measure_all(
    cases: dict[str, Case], measure: Callable[[Case], Result], repeats: int
) -> dict[str, list[Result]]:
    """Measure all cases several times. A case that failed is not measured again.

    Every repeat goes through all cases before the next repeat begins, so that other load on
    the machine affects all cases alike.

    Args:
        cases: Cases by name.
        measure: Callable that maps a case to its figures. The case's `seed` is the number of
            the repeat.
        repeats: Integer.

    Returns:
        The results of each case, by its name.
    """
    results: dict[str, list[Result]] = {name: [] for name in cases}
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
        for name, case in cases.items():
            if not any("failed" in result for result in results[name]):
                results[name].append(measure({**case, "seed": repeat}))
                print(f"{name}: {results[name][-1]}", file=sys.stderr, flush=True)
    return results
