"""Every block of Python in the README runs, in the order of the text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.thorough
def test_the_readme_runs_from_top_to_bottom(run_python, project: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall((project / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")

    output = run_python("-W", "error:::__main__", script)

    # What the first example prints.
    accuracy = float(re.findall(r"^0\.\d+$", output, re.MULTILINE)[0])
    assert accuracy > 0.7  # of 180 rows, after 10 epochs from random weights
