"""Results of fits: the file that keeps them, their summaries and the table."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.convergence.case import Case

Result = dict[str, Any]
Measure = Callable[[Case, int], Result]


class Results:
    """Results of fits in a file with one JSON document per line.

    Args:
        path: Path of the file to read and to append to. If `None`, results are kept in memory
            only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Result] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            document = json.loads(line)
        except json.JSONDecodeError:
            return  # The run was interrupted while it wrote this line.
        self._known[document["fit"]] = document["result"]

    def get(self, case: Case, seed: int) -> Result | None:
        """The result of a fit, or `None` if it was not measured yet."""
        return self._known.get(case.key(seed))

    def put(self, case: Case, seed: int, result: Result) -> None:
        """Keep the result of a fit."""
        self._known[case.key(seed)] = result
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"fit": case.key(seed), "result": result}) + "\n")


def measure_all(
    cases: Mapping[str, Case], seeds: int, results: Results, measure: Measure
) -> dict[str, list[Result]]:
    """Measure all cases with all seeds, one seed after the other.

    Args:
        cases: Mapping from name to `Case`.
        seeds: Integer, number of seeds.
        results: `Results`. Fits with a result are not measured again.
        measure: Callable that maps a case and a seed to a result.

    Returns:
        The results of each case, by its name.
    """
    missing = [
        (name, case, seed)
        for seed in range(seeds)
        for name, case in cases.items()
        if results.get(case, seed) is None
    ]
    started = time.perf_counter()
    for done, (name, case, seed) in enumerate(missing):
        result = measure(case, seed)
        results.put(case, seed, result)
        left = (time.perf_counter() - started) / (done + 1) * (len(missing) - done - 1)
        progress = f"{done + 1}/{len(missing)}, {left / 60:.0f} min left"
        print(f"{progress}: {name}, seed {seed}: {result}", file=sys.stderr, flush=True)
    return {
        name: [fit for seed in range(seeds) if (fit := results.get(case, seed)) is not None]
        for name, case in cases.items()
    }


@dataclass(frozen=True)
class Summary:
    """The fits of one case.

    Attributes:
        accuracy: Mean of the accuracies.
        spread: Standard deviation of the accuracies, or `None` for a single fit.
        bytes: Mean bytes per example and epoch, or `None` for plain Keras.
    """

    accuracy: float
    spread: float | None
    bytes: float | None

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.4f}"
        return f"{self.accuracy:.4f}{spread}"


def summary(results: list[Result]) -> Summary | str:
    """Summarize the fits of one case. Returns a reason if a fit failed or none was measured."""
    failed = [result["failed"] for result in results if "failed" in result]
    if failed or not results:
        return f"failed: {failed[0]}".replace("|", "/") if failed else "not measured"
    values = [result["accuracy"] for result in results]
    sizes = [result["bytes"] for result in results if result.get("bytes") is not None]
    return Summary(
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        statistics.fmean(sizes) if sizes else None,
    )


def table(results: Mapping[str, list[Result]]) -> list[str]:
    """The lines of a table of summaries."""
    lines = ["| | test accuracy | bytes per example |", "|---|--:|--:|"]
    for name, fits in results.items():
        cell = summary(fits)
        if isinstance(cell, str):
            lines.append(f"| {name} | {cell} | |")
            continue
        size = "–" if cell.bytes is None else f"{cell.bytes:,.0f}"
        lines.append(f"| {name} | {cell} | {size} |")
    return lines
