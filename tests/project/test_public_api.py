"""Signatures that programs of users rely on stay as `tests/fixtures/public_api.json` has them.

The file lists, for every public name, parameters with their kinds and defaults, methods,
properties and Params. A difference is either a mistake, or a decision about the public API. If it
is a decision, write the file again and commit it with the change, so that a review shows it:

    python tests/fixtures/generate_public_api.py
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[1] / "fixtures" / "generate_public_api.py"
"""Describes the public API; has `MODULES`, `public_api` and the `FILE` it writes."""

NOTHING = "nothing"


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dictionaries with its path; an empty dictionary is a leaf."""
    if not isinstance(tree, dict) or not tree:
        yield path, tree
        return
    for name, value in tree.items():
        yield from flat(value, f"{path}.{name}" if path else name)


def differences(recorded: Any, found: Any) -> list[str]:
    """A line per name that is not what was recorded."""
    left, right = dict(flat(recorded)), dict(flat(found))
    return [
        f"{name}: recorded {left.get(name, NOTHING)}, found {right.get(name, NOTHING)}"
        for name in sorted({*left, *right})
        if left.get(name, NOTHING) != right.get(name, NOTHING)
    ]


def test_public_signatures_are_the_recorded_ones():
    script = runpy.run_path(str(SCRIPT))
    recorded = json.loads(script["FILE"].read_text(encoding="utf-8"))
    changed = differences(recorded, script["public_api"]())
    hint = "to change them on purpose, run tests/fixtures/generate_public_api.py:"
    assert not changed, "\n".join([hint, *changed])


def test_differences_name_what_is_new_changed_and_missing():
    recorded = {"kspark": {"fit": "(x)", "save": "(path)", "same": "()"}}
    found = {"kspark": {"fit": "(x, y)", "load": "(path)", "same": "()"}}
    assert differences(recorded, found) == [
        "kspark.fit: recorded (x), found (x, y)",
        "kspark.load: recorded nothing, found (path)",
        "kspark.save: recorded (path), found nothing",
    ]
