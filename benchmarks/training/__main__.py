"""Run the benchmark and print its table in Markdown."""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import training
from benchmarks.common import mnist
from benchmarks.common.options import add_data, add_only, add_timeout, matching, new_parser
from benchmarks.common.runs import Case, Result, measure_all, run_case
from benchmarks.common.tables import failure_of, median, number, versions, with_ratio

MODES = ("synchronous", "asynchronous", "hogwild")
BASELINE = "keras"
TUNED = "keras/steps_per_execution=50"
COLUMNS = (("warm", "{:.3f}"), ("first", "{:.1f}"), ("script", "{:.1f}"), ("whole", "{:.1f}"))
BATCH_SIZE = 64


def arguments() -> argparse.Namespace:
    parser = new_parser(training.__doc__)
    parser.add_argument("--epochs", type=int, default=10, help="epochs per fit; default: 10")
    parser.add_argument("--repeats", type=int, default=5, help="fits per case; default: 5")
    add_only(parser)
    add_data(parser)
    add_timeout(parser)
    return parser.parse_args()


def cases() -> dict[str, Case]:
    """All cases by name. Those of Elephas need the variable `ELEPHAS_PYTHON`."""
    cases: dict[str, Case] = {
        BASELINE: {"engine": "keras"},
        TUNED: {"engine": "keras", "steps_per_execution": 50},
        "keras/reshuffled": {"engine": "keras", "reshuffled": True},
        "keras/batch_size=128": {"engine": "keras", "batch_size": 2 * BATCH_SIZE},
    }
    for mode in MODES:
        for frequency in ("epoch", "batch", 50):
            case: Case = {"engine": "kspark", "mode": mode, "frequency": frequency}
            cases[f"{mode}/{frequency}"] = case
    if "ELEPHAS_PYTHON" in os.environ:
        for mode in MODES:
            for frequency in ("epoch",) if mode == "synchronous" else ("epoch", "batch"):
                case = {"engine": "elephas", "mode": mode, "frequency": frequency}
                cases[f"elephas/{mode}/{frequency}"] = case
    return {name: {"batch_size": BATCH_SIZE, **case} for name, case in cases.items()}


def measure(epochs: int, timeout: float, case: Case) -> Result:
    """Measure one repeat of one case."""
    if case["engine"] != "elephas":
        return run_case("benchmarks.training.case", {**case, "epochs": epochs}, timeout)
    result = run_case("benchmarks.training.elephas", {**case, "epochs": epochs}, timeout)
    if "failed" not in result and epochs > 1:
        short = run_case("benchmarks.training.elephas", {**case, "epochs": 1}, timeout)
        if "failed" not in short:
            result["warm"] = (result["whole"] - short["whole"]) / (epochs - 1)
    return result


def table(results: dict[str, list[Result]]) -> list[str]:
    """The lines of the table."""
    base = results.get(BASELINE, [])
    tuned = results.get(TUNED, [])
    lines = [
        "| | warm epoch, s | ratio | of tuned | first epoch, s | ratio | from the start, s "
        "| ratio | whole fit, s | ratio | of tuned | accuracy | MB per epoch |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, repeats in results.items():
        if reason := failure_of(repeats):
            lines.append(f"| {name} | failed: {reason} |{' |' * 11}")
            continue
        nbytes = median(repeats, "bytes")
        cells = []
        for key, form in COLUMNS:
            value = median(repeats, key)
            cells += with_ratio(value, median(base, key), form)
            if key in ("warm", "whole"):
                cells.append(with_ratio(value, median(tuned, key), form)[1])
        cells.append(number(median(repeats, "accuracy"), "{:.4f}"))
        cells.append(number(None if nbytes is None else nbytes / 1e6, "{:.1f}"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        origin = mnist.write(Path(folder), args.data)
        chosen = {
            name: {**case, "data": folder} for name, case in matching(cases(), args.only).items()
        }
        results = measure_all(chosen, partial(measure, args.epochs, args.timeout), args.repeats)
    print(f"{origin}. {args.epochs} epochs, medians of {args.repeats}. {versions()}.\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
