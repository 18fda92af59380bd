"""What the documents say of the project is so: tests, layers, commands, links."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from kspark.ml import KerasClassifier

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
DESIGN = PROJECT / "docs" / "design.md"
STAGES = PROJECT / "docs" / "stages.md"

TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
DEFAULT = re.compile(r"^\| `([a-z]\w+)` \| (?:`(.+?)`|–) \|", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def named_units(text: str) -> set[str]:
    """Modules and packages of kspark in a line of text: `plan.py` and `wire/` are units."""
    return {name or package for name, package in re.findall(r"(\w+)\.py|(\w+)/", text)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    for file, function in TEST.findall(document.read_text(encoding="utf-8")):
        source = (PROJECT / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{file}::{function}"


def test_every_rule_names_a_test() -> None:
    table = DESIGN.read_text(encoding="utf-8").split("## Update rules")[1].split("\n## ")[0]
    rules = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rules) >= 8
    assert [line for line in rules if not TEST.search(line)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_the_picture_of_the_layers_is_the_one_that_is_tested() -> None:
    layers = runpy.run_path(str(PROJECT / "tests" / "test_layers.py"))["LAYERS"]
    picture = next(text for text in blocks(DESIGN, "") if re.search(r"^ 0 +errors", text, re.M))
    drawn: list[set[str]] = []
    for line in picture.splitlines():
        if line[:2].strip():
            drawn.insert(0, set())
        drawn[0] |= named_units(line)
    written = [set(layer) for layer in layers[: len(drawn)]]
    assert drawn == written


def test_the_test_command_is_the_one_that_runs() -> None:
    commands = "\n".join(blocks(PROJECT / "README.md", "bash"))
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert script[-1] in commands


def test_the_extras_of_the_first_command_exist() -> None:
    command = blocks(PROJECT / "README.md", "bash")[0]
    extras = re.search(r'"\.\[([\w,]+)\]"', command)
    assert extras
    setup = (PROJECT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}": ' in setup for extra in extras[1].split(","))


def test_every_param_of_a_stage_is_told_with_its_default() -> None:
    told = dict(DEFAULT.findall(STAGES.read_text(encoding="utf-8")))
    stage = KerasClassifier()
    values = {param.name: stage.value_of(param.name) for param in stage.params}
    assert told == {name: "" if value is None else str(value) for name, value in values.items()}
