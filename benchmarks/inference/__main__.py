"""Seconds of a Spark ML pipeline's steps, beside Keras in one process and Elephas.

    python benchmarks/inference.py
    ELEPHAS_PYTHON=/path/to/python python benchmarks/inference.py

48,000 x 784 rows, a 784-128-128-10 perceptron, Adam, batches of 64, three
epochs, two workers. Every repeat of a case runs in a fresh process. Measured are:

* DataFrame: NumPy arrays to a DataFrame of vectors and labels, cached and counted.
* fit: three epochs from that DataFrame. It starts Spark's Python workers and their
  import of TensorFlow; fit again, of a new model, finds them. Plain Keras: `model.fit` on
  the arrays.
* transform: predictions of all rows, and one aggregate over them. First, and warm:
  the median of three more. Plain Keras: `model.predict(batch_size=4096)`.
* memory: the largest resident size of a Python worker of Spark that fits and transforms
  24,000 rows, and of one that has ten times as many. The rows are made in Spark, so
  that the driver holds none.

The table holds medians over the repeats; ratios are against plain Keras in the same run.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import mnist
from runs import (
    Case,
    Result,
    arguments,
    chosen,
    failure_of,
    measure_all,
    median,
    pair,
    run_case,
    shown,
    versions,
)

BASELINE = "keras"
SCRIPTS = {"elephas": "inference_elephas.py"}
STEPS = ("frame", "fit", "refit", "first", "warm")
ROWS = (24_000, 240_000)


def cases() -> dict[str, Case]:
    """Everything that can be measured, by name."""
    found: dict[str, Case] = {BASELINE: {"engine": "keras"}, "kspark": {"engine": "kspark"}}
    if "ELEPHAS_PYTHON" in os.environ:
        found["elephas"] = {"engine": "elephas"}
    for rows in ROWS:
        found[f"memory/{rows}"] = {"engine": "memory", "rows": rows}
    return found


def measure(timeout: float, case: Case) -> Result:
    """One repeat of one case."""
    return run_case(SCRIPTS.get(case["engine"], "inference_case.py"), case, timeout)


def table(results: dict[str, list[Result]]) -> list[str]:
    """The seconds as lines of Markdown."""
    base = results.get(BASELINE, [])
    lines = [
        "| | DataFrame, s | fit, s | ratio | fit again, s | ratio "
        "| transform, first, s | ratio | warm, s | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in results.items():
        if name.startswith("memory/"):
            continue
        if reason := failure_of(found):
            lines.append(f"| {name} | failed: {reason} | | | | | | | | |")
            continue
        cells = [shown(median(found, "frame"), "{:.2f}")]
        for step in STEPS[1:]:
            cells += pair(median(found, step), median(base, step), "{:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def memory_lines(results: dict[str, list[Result]]) -> list[str]:
    """The memory of workers with few and with many rows, as sentences."""
    few, many = (results.get(f"memory/{rows}", []) for rows in ROWS)
    if not few or not many:
        return []
    if reason := failure_of(few + many):
        return [f"Memory: failed: {reason}"]
    lines = []
    for step in ("fit", "transform"):
        small, large = median(few, step), median(many, step)
        if small is not None and large is not None:
            lines.append(
                f"Memory of a Python worker, {step}: {small / 1e6:,.0f} MB with {ROWS[0]:,} rows, "
                f"{large / 1e6:,.0f} MB with {ROWS[1]:,}: {large / small - 1:+.0%}."
            )
    return lines


def main() -> None:
    args = arguments(__doc__, repeats=5)
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        origin = mnist.write(Path(folder), args.data)
        selected = {n: {**c, "data": folder} for n, c in chosen(cases(), args.only).items()}
        results = measure_all(selected, partial(measure, args.timeout), args.repeats)
    print(f"{origin}. Medians of {args.repeats}. {versions()}.\n")
    print("\n".join([*table(results), "", *memory_lines(results)]))


if __name__ == "__main__":
    main()
