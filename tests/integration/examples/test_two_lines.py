"""Scripts with `model.fit` train on Spark after two lines more, to the same numbers.

The scripts run as they are, except that `fit` does not shuffle: the orders of the rows differ. With
one worker, kspark then promises the numbers of plain Keras.
"""

from __future__ import annotations

import difflib
import runpy
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from pyspark.sql import SparkSession

from kspark import SparkModel

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "two_lines"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.endswith("_spark"))

# The only lines that differ. Nothing is removed or changed.
ADDED = ["from kspark import SparkModel", "model = SparkModel(model)"]

LEARNED = {
    "callbacks": lambda names: names["accuracy"] > 0.9,
    "custom_loss": lambda names: names["loss"] < 0.2,
    "custom_train_step": lambda names: names["accuracy"] > 0.85,
    "image": lambda names: names["accuracy"] > 0.9,
    "mixed_precision": lambda names: names["accuracy"] > 0.9,
    "tabular": lambda names: names["results"]["accuracy"] > 0.9,
    "text": lambda names: names["accuracy"] > 0.9,
    "time_series": lambda names: names["error"] < 0.8 * names["persistence"],
    "transfer_learning": lambda names: names["accuracy"] > 0.8,
    "two_inputs": lambda names: names["results"]["van_accuracy"] > 0.85,
}
"""Whether what a script found shows that its model has learned something."""

NUMBERS = (int, float, np.number)

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a script in a directory of its own, and return its names."""
    for kind in (keras.Model, SparkModel):
        monkeypatch.setattr(kind, "fit", partialmethod(kind.fit, shuffle=False))
    policy = keras.config.dtype_policy()

    def run_script(name: str) -> dict[str, Any]:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        try:
            return runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        finally:
            keras.config.set_dtype_policy(policy)

    return run_script


def test_there_are_two_versions_of_each_script() -> None:
    assert set(NAMES) == set(LEARNED)
    assert {path.name for path in FOLDER.iterdir() if path.suffix == ".py"} == {
        f"{name}{end}.py" for name in NAMES for end in ("", "_spark")
    }
    listed = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"(two_lines/{name}.py)" not in listed] == []


@pytest.mark.parametrize("name", NAMES)
def test_two_lines_are_added_and_nothing_else_changes(name: str) -> None:
    plain, ours = ((FOLDER / f"{name}{end}.py").read_text("utf-8") for end in ("", "_spark"))
    lines = list(difflib.ndiff(plain.splitlines(), ours.splitlines()))
    assert [line for line in lines if not line.startswith("  ")] == [f"+ {line}" for line in ADDED]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_computes_the_same_as_with_plain_keras(
    one: SparkSession, run: Run, tmp_path: Path, name: str
) -> None:
    plain, ours = run(name), run(f"{name}_spark")

    assert type(ours["model"]) is SparkModel
    assert LEARNED[name](ours)
    assert ours["history"].epoch == plain["history"].epoch
    expected = numbers(plain)
    assert "history.loss" in expected
    found = numbers(ours)
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
    assert_same_files(tmp_path / name, tmp_path / f"{name}_spark")


def numbers(names: dict[str, Any]) -> dict[str, Any]:
    """All numbers that a script has computed, and those in its dictionaries and histories."""
    found = {}
    for name, value in names.items():
        parts = getattr(value, "history", value) if name in ("history", "first") else value
        for key, part in parts.items() if isinstance(parts, dict) else [("", parts)]:
            values = part if isinstance(part, list) else [part]
            is_array = isinstance(part, np.ndarray) and part.dtype.kind in "iuf"
            if is_array or all(isinstance(value, NUMBERS) for value in values):
                found[f"{name}.{key}" if key else name] = part
    return found


def assert_same_files(plain: Path, ours: Path) -> None:
    """The scripts have saved the same models and logs, up to rounding."""
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in plain.iterdir())
    for path in plain.glob("*.keras"):
        models = (keras.models.load_model(folder / path.name) for folder in (plain, ours))
        for one, other in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
