"""Results that are kept, and what they come to."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def test_an_interrupted_run_goes_on(case: ModuleType, results: ModuleType, tmp_path: Path) -> None:
    one, two = case.Case(), case.Case(shards=2)
    asked: list[tuple[int, int]] = []

    def measure(c: Any, seed: int) -> dict[str, Any]:
        asked.append((c.shards, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"accuracy": c.shards + seed / 10, "bytes": 8.0}

    path = tmp_path / "results.jsonl"
    with pytest.raises(KeyboardInterrupt):
        results.measure_all({"one": one, "two": two}, 2, results.Results(path), measure)
    with path.open("a") as file:
        file.write('{"fit": "cut sho')
    found = results.measure_all({"one": one, "two": two}, 2, results.Results(path), measure)
    assert asked == [(4, 0), (2, 0), (4, 1), (4, 1), (2, 1)]
    assert [fit["accuracy"] for fit in found["two"]] == [2.0, 2.1]


def test_a_table_tells_mean_spread_and_bytes(results: ModuleType) -> None:
    fits = [{"accuracy": 0.9, "bytes": 1000.0}, {"accuracy": 0.92, "bytes": 3000.0}]
    lines = results.table({"a": fits, "b": fits[:1], "keras": [{"accuracy": 1.0}], "c": []})
    assert lines[2:] == [
        "| a | 0.9100 ± 0.0141 | 2,000 |",
        "| b | 0.9000 | 1,000 |",
        "| keras | 1.0000 | – |",
        "| c | not measured | |",
    ]


def test_a_failure_is_told_and_not_averaged(results: ModuleType) -> None:
    fits = [{"accuracy": 0.9, "bytes": 1.0}, {"failed": "a | b"}]
    assert results.table({"x": fits})[2] == "| x | failed: a / b | |"
