"""Run the benchmark and print its table in Markdown."""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import inference
from benchmarks.common import mnist
from benchmarks.common.options import add_data, add_only, add_timeout, matching, new_parser
from benchmarks.common.runs import Case, Result, measure_all, run_case
from benchmarks.common.tables import failure_of, median, number, versions, with_ratio

BASELINE = "keras"
STEPS = ("fit", "refit", "first", "warm")
ROWS = (24_000, 240_000)
SCORED = ("narrow", "arrays", "vectors")
OTHERS = {
    "noop": "function that does nothing",
    "products": "matrix products alone",
    "predict_on_batch": "`predict_on_batch`",
    "predict": "`predict`",
}
"""Ways of scoring that kspark is compared with, and their titles."""

OF_FILES = {
    "Parquet to Parquet": ("files", "transform"),
    "start of the first epoch": ("files_start", "frame_start"),
}
"""What is measured of files: the way of files, and that of DataFrames."""


def arguments() -> argparse.Namespace:
    parser = new_parser(inference.__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="epochs per fit; default: 3")
    parser.add_argument("--repeats", type=int, default=5, help="runs per case; default: 5")
    add_only(parser)
    add_data(parser)
    add_timeout(parser)
    return parser.parse_args()


def cases() -> dict[str, Case]:
    """All cases by name. That of Elephas needs the variable `ELEPHAS_PYTHON`."""
    cases: dict[str, Case] = {BASELINE: {"engine": "keras"}, "kspark": {"engine": "kspark"}}
    if "ELEPHAS_PYTHON" in os.environ:
        cases["elephas"] = {"engine": "elephas"}
    for rows in ROWS:
        cases[f"memory/{rows}"] = {"engine": "memory", "rows": rows}
    for kind in SCORED:
        cases[f"scoring/{kind}"] = {"engine": "scoring", "rows": kind}
    cases["scoring/files"] = {"engine": "files"}
    return cases


def measure(epochs: int, timeout: float, case: Case) -> Result:
    """Measure one repeat of one case."""
    name = case["engine"] if case["engine"] in ("elephas", "scoring", "files") else "case"
    return run_case(f"benchmarks.inference.{name}", {**case, "epochs": epochs}, timeout)


def table(results: dict[str, list[Result]]) -> list[str]:
    """The lines of the table of seconds."""
    base = results.get(BASELINE, [])
    lines = [
        "| | DataFrame, s | fit, s | ratio | fit again, s | ratio "
        "| transform, first, s | ratio | warm, s | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, repeats in results.items():
        if "/" in name:
            continue
        if reason := failure_of(repeats):
            lines.append(f"| {name} | failed: {reason} | | | | | | | | |")
            continue
        cells = [number(median(repeats, "frame"), "{:.2f}")]
        for step in STEPS:
            cells += with_ratio(median(repeats, step), median(base, step), "{:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def scoring_table(results: dict[str, list[Result]]) -> list[str]:
    """The lines of the table of scoring."""
    chosen = {f"scoring/{n}": results[f"scoring/{n}"] for n in SCORED if f"scoring/{n}" in results}
    if not chosen:
        return []
    titles = " | ".join(f"{title}, s | kspark / this" for title in OTHERS.values())
    lines = [
        f"| | first `transform`, s | first / warm | warm, s | {titles} |",
        f"|---|{'--:|' * (3 + 2 * len(OTHERS))}",
    ]
    for name, repeats in chosen.items():
        if reason := failure_of(repeats):
            lines.append(f"| {name} | failed: {reason} |{' |' * (2 + 2 * len(OTHERS))}")
            continue
        warm = median(repeats, "kspark")
        cells = [*with_ratio(median(repeats, "first"), warm, "{:.2f}"), number(warm, "{:.2f}")]
        for other in OTHERS:
            seconds = median(repeats, other)
            cells += [number(seconds, "{:.2f}"), with_ratio(warm, seconds, "{:.2f}")[1]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def file_lines(results: dict[str, list[Result]]) -> list[str]:
    """Sentences that compare files with DataFrames of the same files."""
    repeats = results.get("scoring/files", [])
    if not repeats:
        return []
    if reason := failure_of(repeats):
        return [f"Files: failed: {reason}"]
    lines = []
    for title, (ours, other) in OF_FILES.items():
        seconds, ratio = with_ratio(median(repeats, ours), median(repeats, other), "{:.2f}")
        frame = number(median(repeats, other), "{:.2f}")
        lines.append(f"Files, {title}: {seconds} s, a DataFrame: {frame} s, ratio {ratio}.")
    return lines


def memory_lines(results: dict[str, list[Result]]) -> list[str]:
    """Sentences that compare the memory of workers with few and with many rows."""
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
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        origin = mnist.write(Path(folder), args.data)
        chosen = {
            name: {**case, "data": folder} for name, case in matching(cases(), args.only).items()
        }
        results = measure_all(chosen, partial(measure, args.epochs, args.timeout), args.repeats)
    print(f"{origin}. {args.epochs} epochs, medians of {args.repeats}. {versions()}.\n")
    parts = [table(results), scoring_table(results), file_lines(results)]
    parts.append(memory_lines(results))
    print("\n\n".join("\n".join(lines) for lines in parts if lines))


if __name__ == "__main__":
    main()
