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
        "keras/steps_per_execution=50": {"engine": "keras", "steps_per_execution": 50},
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
    lines = [
        "| | warm epoch, s | ratio | whole fit, s | ratio | accuracy | MB per epoch |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, repeats in results.items():
        if reason := failure_of(repeats):
            lines.append(f"| {name} | failed: {reason} | | | | | |")
            continue
        nbytes = median(repeats, "bytes")
        cells = [
            *with_ratio(median(repeats, "warm"), median(base, "warm"), "{:.3f}"),
            *with_ratio(median(repeats, "whole"), median(base, "whole"), "{:.1f}"),
            number(median(repeats, "accuracy"), "{:.4f}"),
            number(None if nbytes is None else nbytes / 1e6, "{:.1f}"),
        ]
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
