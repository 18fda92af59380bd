"""The worked examples of CONTRIBUTING.md run, or are quoted from the code."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kspark import adapters, optimizers
from kspark.aggregator import Aggregator, Delta
from kspark.shards import ArraySpec, InputSpec
from kspark.weights import TRAINABLE, Weight, WeightSpec

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(block).strip("\n").splitlines()
    for block in re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
]
QUOTED = {lines[0].removeprefix("# "): lines[1:] for lines in BLOCKS if ".py" in lines[0]}
SPEC = WeightSpec((Weight("w", (3,), "float32", TRAINABLE),))


def names_of(title: str) -> dict[str, Any]:
    """What the block that begins with `# title` defines."""
    (source,) = ("\n".join(lines) for lines in BLOCKS if lines[0] == f"# {title}")
    names: dict[str, Any] = {"__name__": "contributed"}
    exec(compile(source, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return names


def library_files_that_name(*names: str) -> set[str]:
    """Files of the library with one of the names as a variable, an argument or an attribute."""
    found = set()
    for path in (ROOT / "kspark").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            fields = {getattr(node, field, None) for field in ("id", "arg", "attr")}
            if fields & set(names):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def bare(line: str) -> str:
    """A line without indentation and without the comma that ends an item of a list."""
    return line.strip().removesuffix(",")


@pytest.mark.parametrize("file", QUOTED)
def test_quoted_lines_are_in_the_code(file):
    code = set(map(bare, (ROOT / file).read_text(encoding="utf-8").splitlines()))
    assert [line for line in QUOTED[file] if bare(line) not in code] == []


def test_a_setting_appears_in_the_five_files_of_the_example():
    quoted = {file for file, lines in QUOTED.items() if "on_nonfinite" in "".join(lines)}
    assert len(quoted) == 5
    assert library_files_that_name("on_nonfinite", "onNonfinite") == quoted


def test_the_rule_of_the_example_damps_deltas():
    rule = names_of("rule")["Damped"](rate=0.25)
    aggregator = Aggregator(SPEC, np.zeros(3, "f4"), rule, "synchronous")
    aggregator.merge([Delta(0, np.array([4, 8, -4], "f4"), 10)], num_steps=1)
    assert aggregator.weights.tolist() == [1, 2, -1]
    assert optimizers.serialize(rule) == {"class_name": "Damped", "config": {"rate": 0.25}}


def test_the_codec_of_the_example_keeps_signs_and_nan():
    codec = names_of("codec")["Signs"]()
    vector, out = np.array([3, -1, 2], "f4"), np.empty(3, "f4")
    payload = codec.encode(vector)
    assert payload.size == codec.payload_size(3, vector.dtype) == 7
    codec.decode(payload, out)
    assert out.tolist() == [2, -2, 2]
    codec.decode(codec.encode(np.array([np.nan, np.inf, -3], "f4")), out)
    assert np.isnan(out).tolist() == [True, True, False]
    assert out[2] == -3


def test_the_input_of_the_example_is_adapted(monkeypatch):
    names = names_of("input")
    kind = (names["is_bunch"], names["adapt_bunch"])
    monkeypatch.setattr(adapters, "KINDS", (kind, *adapters.KINDS))
    arrays = {"data": np.zeros((5, 2), "f4"), "target": np.arange(5)}
    members = {"__module__": "sklearn.utils", **arrays}
    rows = type("Bunch", (dict,), members)()
    spec = InputSpec((ArraySpec("x", (2,), "float32"),), (ArraySpec("y", (), "int64"),))
    spark = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
    assert adapters.adapt(spark, rows, spec=spec).num_examples == 5
