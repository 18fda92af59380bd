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

MODES = ("synchronous", "asynchronous", "hogwild")
BASELINE = "keras"
BATCH_SIZE = 64


def cases() -> dict[str, Case]:
    """Everything that can be measured, by name."""
    found: dict[str, Case] = {
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
            case: Case = {"engine": "kspark", "mode": mode, "frequency": frequency}
            found[f"{mode}/{frequency}"] = case
    if "ELEPHAS_PYTHON" in os.environ:
        for mode in MODES:
            for frequency in ("epoch",) if mode == "synchronous" else ("epoch", "batch"):
                case = {"engine": "elephas", "mode": mode, "frequency": frequency}
                found[f"elephas/{mode}/{frequency}"] = case
    return {name: {"batch_size": BATCH_SIZE, **case} for name, case in found.items()}


def measure(epochs: int, timeout: float, case: Case) -> Result:
    """One repeat of one case."""
    if case["engine"] != "elephas":
        return run_case("training_case.py", {**case, "epochs": epochs}, timeout)
    result = run_case("training_elephas.py", {**case, "epochs": epochs}, timeout)
    if "failed" not in result and epochs > 1:
        short = run_case("training_elephas.py", {**case, "epochs": 1}, timeout)
        if "failed" not in short:
            result["warm"] = (result["whole"] - short["whole"]) / (epochs - 1)
    return result


def table(results: dict[str, list[Result]]) -> list[str]:
    """The results as lines of Markdown."""
    base = results.get(BASELINE, [])
    lines = [
        "| | warm epoch, s | ratio | whole fit, s | ratio | accuracy | MB per epoch |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in results.items():
        if reason := failure_of(found):
            lines.append(f"| {name} | failed: {reason} | | | | | |")
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


def main() -> None:
    args = arguments(__doc__, epochs=10, repeats=5)
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        origin = mnist.write(Path(folder), args.data)
        selected = {n: {**c, "data": folder} for n, c in chosen(cases(), args.only).items()}
        results = measure_all(selected, partial(measure, args.epochs, args.timeout), args.repeats)
    print(f"{origin}. {args.epochs} epochs, medians of {args.repeats}. {versions()}.\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
