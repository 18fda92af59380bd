"""The file of results, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.convergence.case import Case
from benchmarks.convergence.results import Results, measure_all, table


def test_an_interrupted_run_continues_with_the_missing_fits(tmp_path: Path) -> None:
    one, two = Case(), Case(shards=2)
    asked: list[tuple[int, int]] = []

    def measure(c: Any, seed: int) -> dict[str, Any]:
        asked.append((c.shards, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"accuracy": c.shards + seed / 10, "bytes": 8.0}

    path = tmp_path / "results.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measure_all({"one": one, "two": two}, 2, Results(path), measure)
    with path.open("a") as file:
        file.write('{"fit": "cut sho')
    found = measure_all({"one": one, "two": two}, 2, Results(path), measure)
    assert asked == [(4, 0), (2, 0), (4, 1), (4, 1), (2, 1)]
    assert [fit["accuracy"] for fit in found["two"]] == [2.0, 2.1]


def test_the_table_shows_mean_standard_deviation_and_bytes() -> None:
    fits = [{"accuracy": 0.9, "bytes": 1000.0}, {"accuracy": 0.92, "bytes": 3000.0}]
    lines = table({"a": fits, "b": fits[:1], "keras": [{"accuracy": 1.0}], "c": []})
    assert lines[2:] == [
        "| a | 0.9100 ± 0.0141 | 2,000 |",
        "| b | 0.9000 | 1,000 |",
        "| keras | 1.0000 | – |",
        "| c | not measured | |",
    ]


def test_a_case_with_a_failed_fit_shows_the_failure() -> None:
    fits = [{"accuracy": 0.9, "bytes": 1.0}, {"failed": "a | b"}]
    assert table({"x": fits})[2] == "| x | failed: a / b | |"
