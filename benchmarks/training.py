"""Seconds, accuracy and bytes of every mode, beside plain Keras and Elephas.

    python benchmarks/training.py
    python benchmarks/training.py --repeats 1 --epochs 3 --only "keras*" "synchronous/*"
    ELEPHAS_PYTHON=/path/to/python python benchmarks/training.py

48,000 x 784 training rows, a 784-128-128-10 perceptron, Adam, batches of 64,
two workers with one thread each; plain Keras may use all cores. Synchronous
training by the batch merges two batches into each step: plain Keras with batches
of 128 is the run that it equals. Every fit runs in a fresh process; the processes
run one after the other, each repeat through all cases, with a seed of its own.
What is measured:

* warm epoch: median time from the end of one epoch to the end of the next one,
  as a callback on the driver sees it; the first epoch is left out. For Elephas,
  which tells nothing of its epochs: the difference between a whole fit and one
  of a single epoch, divided by the remaining epochs.
* whole fit: from the call of `fit` to its return. Keras is imported, the rows are
  NumPy arrays in memory and Spark runs. For kspark and Elephas this includes
  handing the rows to Spark, starting its Python workers, and their import of
  TensorFlow.
* accuracy: of the model as `fit` leaves it, on the test rows.
* MB per epoch: between aggregator and replicas, both ways.

The table holds medians over the repeats. Ratios are against plain Keras as it
comes, in the same run.
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
from pathlib import Path
from typing import Any

import mnist

HERE = Path(__file__).resolve().parent
MODES = ("synchronous", "asynchronous", "hogwild")
BASELINE = "keras"
BATCH_SIZE = 64

Result = dict[str, Any]


def cases() -> dict[str, dict[str, Any]]:
    """Everything that can be measured, by name."""
    found: dict[str, dict[str, Any]] = {
        BASELINE: {"engine": "keras", "steps_per_execution": 1},
        "keras/steps_per_execution=50": {"engine": "keras", "steps_per_execution": 50},
        "keras/batch_size=128": {
            "engine": "keras",
            "steps_per_execution": 1,
            "batch_size": 2 * BATCH_SIZE,
        },
    }
    for mode in MODES:
        for frequency in ("epoch", "batch", 50):
            case = {"engine": "kspark", "mode": mode, "frequency": frequency}
            found[f"{mode}/{frequency}"] = case
    if "ELEPHAS_PYTHON" in os.environ:
        for mode in MODES:
            for frequency in ("epoch",) if mode == "synchronous" else ("epoch", "batch"):
                case = {"engine": "elephas", "mode": mode, "frequency": frequency}
                found[f"elephas/{mode}/{frequency}"] = case
    return {name: {"batch_size": BATCH_SIZE, **case} for name, case in found.items()}


def run_case(case: dict[str, Any], data: str, epochs: int, timeout: float) -> Result:
    """One fit in a fresh process: its numbers, or `{"failed": reason}`."""
    elephas = case["engine"] == "elephas"
    python = os.environ["ELEPHAS_PYTHON"] if elephas else sys.executable
    script = HERE / ("training_elephas.py" if elephas else "training_case.py")
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        result = Path(folder) / "result.json"
        document = json.dumps({**case, "epochs": epochs, "data": data, "result": str(result)})
        reason = run_process([python, str(script), document], environment(python), timeout)
        if reason is None and result.exists():
            return json.loads(result.read_text(encoding="utf-8"))
    return {"failed": reason or "ended without a result"}


def environment(python: str) -> dict[str, str]:
    """Variables of a measured process: Spark's workers run the same Python."""
    own = {"PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python, "TF_CPP_MIN_LOG_LEVEL": "3"}
    path = os.pathsep.join(p for p in (str(HERE.parent), os.environ.get("PYTHONPATH")) if p)
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


def measure(name: str, case: dict[str, Any], data: str, args: argparse.Namespace) -> Result:
    """One repeat of one case."""
    result = run_case(case, data, args.epochs, args.timeout)
    if case["engine"] == "elephas" and "failed" not in result and args.epochs > 1:
        short = run_case(case, data, 1, args.timeout)
        if "failed" not in short:
            result["warm"] = (result["whole"] - short["whole"]) / (args.epochs - 1)
    print(f"{name}: {result}", file=sys.stderr, flush=True)
    return result


def measure_all(
    chosen: dict[str, dict[str, Any]], data: str, args: argparse.Namespace
) -> dict[str, list[Result]]:
    """All repeats of all cases, interleaved. What failed once is not tried again."""
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    for repeat in range(args.repeats):
        print(f"repeat {repeat + 1} of {args.repeats}", file=sys.stderr, flush=True)
        for name, case in chosen.items():
            if not any("failed" in result for result in results[name]):
                seeded = {**case, "seed": repeat}
                results[name].append(measure(name, seeded, data, args))
    return results


def median(results: list[Result], key: str) -> float | None:
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def table(results: dict[str, list[Result]]) -> list[str]:
    """The results as lines of Markdown."""
    base = results.get(BASELINE, [])
    lines = [
        "| | warm epoch, s | ratio | whole fit, s | ratio | accuracy | MB per epoch |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in results.items():
        failed = [result["failed"] for result in found if "failed" in result]
        if failed:
            lines.append(f"| {name} | failed: {failed[0].replace('|', '/')} | | | | | |")
            continue
        exchanged = median(found, "bytes")
        cells = [
            *pair(median(found, "warm"), median(base, "warm"), "{:.3f}"),
            *pair(median(found, "whole"), median(base, "whole"), "{:.1f}"),
            shown(median(found, "accuracy"), "{:.4f}"),
            shown(None if exchanged is None else exchanged / 1e6, "{:.1f}"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def pair(value: float | None, base: float | None, form: str) -> tuple[str, str]:
    """A number of seconds, and its ratio to the baseline's."""
    ratio = value / base if value is not None and base else None
    return shown(value, form), shown(ratio, "{:.2f}")


def shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def versions() -> str:
    """What the numbers depend on."""
    names = ("keras", "tensorflow", "pyspark", "numpy")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {found}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = os.environ.get("KSPARK_DATA", HERE.parent.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=folder, help="folder of MNIST's test files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds for one fit")
    parser.add_argument("--only", nargs="+", default=["*"], help="names of cases, as patterns")
    return parser.parse_args()


def main() -> None:
    # Ended from outside, it ends the fit that is under way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    args = arguments()
    chosen = {
        name: case
        for name, case in cases().items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in args.only)
    }
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        origin = mnist.write(Path(folder), args.data)
        results = measure_all(chosen, folder, args)
    print(f"{origin}. {args.epochs} epochs, medians of {args.repeats}. {versions()}.\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
