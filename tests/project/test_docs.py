"""The documents agree with the project: tests, commands, examples, Params and links."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import keras
import pytest

from kspark.ml import KerasClassifier

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
EXAMPLES = PROJECT / "examples" / "README.md"
PAGES = sorted((PROJECT / "docs").glob("*.md"))
DOCUMENTS = [README, EXAMPLES, *PAGES]
HOW_IT_WORKS = PROJECT / "docs" / "how-it-works.md"
GUARANTEES = PROJECT / "docs" / "guarantees.md"
CALLBACKS = PROJECT / "docs" / "callbacks.md"
ARGUMENTS = PROJECT / "docs" / "arguments.md"
STAGES = PROJECT / "docs" / "stages.md"

TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
DEFAULT = re.compile(r"^\| `([a-z]\w+)` \| (?:`(.+?)`|–) \|", re.MULTILINE)
NOTE = re.compile(r"^\[\^([\w-]+)\]: (.*)$", re.MULTILINE)
NOTE_MARK = re.compile(r"\[\^([\w-]+)\](?!:)")
CALLBACK = re.compile(r"^\| `(\w+)` \| .*\[\^[\w-]+\] \|$", re.MULTILINE)
BULLET = re.compile(r"^\* .*(?:\n  .*)*", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| .*$", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(document: Path) -> str:
    return document.relative_to(PROJECT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def anchors(document: Path) -> set[str]:
    """What links to the headings of a document call them, as GitHub makes it."""
    headings = HEADING.findall(document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def cells(document: Path) -> list[str]:
    """The cells of all tables of a document."""
    lines = document.read_text(encoding="utf-8").splitlines()
    return [cell for line in lines if line.startswith("|") for cell in line.strip("| ").split("|")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_named_test_exists(document: Path) -> None:
    for file, function in TEST.findall(document.read_text(encoding="utf-8")):
        source = (PROJECT / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{file}::{function}"


def test_every_guarantee_has_a_footnote() -> None:
    text = GUARANTEES.read_text(encoding="utf-8")
    guarantees = BULLET.findall(text)
    assert len(guarantees) >= 60
    assert [guarantee for guarantee in guarantees if not NOTE_MARK.search(guarantee)] == []


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_every_footnote_is_used_and_names_a_test(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    notes = NOTE.findall(text)
    assert [note for note in notes if not TEST.match(note[1])] == []
    labels = [label for label, _ in notes]
    assert len(labels) == len(set(labels))
    assert set(NOTE_MARK.findall(text)) == set(labels)


@pytest.mark.parametrize(("document", "limit"), [(README, 150), (HOW_IT_WORKS, 120)])
def test_the_readme_and_how_it_works_are_short(document: Path, limit: int) -> None:
    assert len(document.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_cells_of_tables_are_short(document: Path) -> None:
    assert [cell for cell in cells(document) if len(cell.split()) > 40] == []


def test_the_table_of_examples_is_complete() -> None:
    listed = set(re.findall(r"\]\((\w+\.(?:py|ipynb))\)", EXAMPLES.read_text(encoding="utf-8")))
    files = EXAMPLES.parent.iterdir()
    assert listed == {file.name for file in files if file.suffix in {".py", ".ipynb"}}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_has_a_target(document: Path) -> None:
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = document.parent / path if path else document
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target), f"{path}#{anchor}"


def test_the_readme_gives_the_test_command_of_ci() -> None:
    commands = "\n".join(blocks(README, "bash"))
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert script[-1] in commands


def test_the_extras_of_the_first_command_exist() -> None:
    command = blocks(README, "bash")[0]
    extras = re.search(r'"\.\[([\w,]+)\]"', command)
    assert extras
    setup = (PROJECT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}": ' in setup for extra in extras[1].split(","))


def test_every_param_of_a_stage_is_documented_with_its_default() -> None:
    told = dict(DEFAULT.findall(STAGES.read_text(encoding="utf-8")))
    stage = KerasClassifier()
    values = {param.name: stage.value_of(param.name) for param in stage.params}
    assert told == {name: "" if value is None else str(value) for name, value in values.items()}


def test_every_callback_of_keras_is_documented_and_shown_by_a_test() -> None:
    kinds = {n for n, kind in vars(keras.callbacks).items() if isinstance(kind, type)}
    assert "EarlyStopping" in kinds
    rows = CALLBACK.findall(CALLBACKS.read_text(encoding="utf-8"))
    # Older versions of Keras do not have all of them.
    assert kinds - set(rows) == set()
    assert set(rows) - kinds <= {"OrbaxCheckpoint"}
    assert rows == sorted(rows, key=str.lower)


@pytest.mark.parametrize("method", ["compile", "fit", "evaluate", "predict"])
def test_every_argument_of_keras_is_described_and_shown_by_a_test_that_names_it(
    method: str,
) -> None:
    text = ARGUMENTS.read_text(encoding="utf-8")
    section = text.split(f"## `{method}`\n")[1].split("\n## ")[0]
    rows = {row[1]: NOTE_MARK.findall(row[0]) for row in ROW.finditer(section)}
    parameters = inspect.signature(getattr(keras.Model, method)).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    assert list(rows) == named
    tests = dict(NOTE.findall(text))
    for argument, marks in rows.items():
        files = {TEST.search(tests[mark])[1] for mark in marks}
        sources = [(PROJECT / file).read_text(encoding="utf-8") for file in files]
        assert any(re.search(rf"\b{argument}\b", source) for source in sources), argument
