"""Every block of Python in the README, and in the pages that continue its example, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted((Path(__file__).parents[3] / "docs").glob("*.md"))


def blocks(document: Path) -> list[str]:
    return BLOCK.findall(document.read_text(encoding="utf-8"))


@pytest.fixture
def run_blocks(run_python, tmp_path: Path):
    """Run blocks one after the other, as one script. Returns its output."""

    def run(code: list[str]) -> str:
        script = tmp_path / "blocks.py"
        script.write_text("\n".join(code), encoding="utf-8")
        return run_python("-W", "error:::__main__", script)

    return run


@pytest.mark.thorough
def test_the_readme_runs_from_top_to_bottom(run_blocks, project: Path) -> None:
    code = blocks(project / "README.md")
    assert len(code) >= 2

    output = run_blocks(code)

    # What the first example prints.
    accuracy = float(re.findall(r"^0\.\d+$", output, re.MULTILINE)[0])
    assert accuracy > 0.7  # of 180 rows, after 10 epochs from random weights


@pytest.mark.thorough
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.name)
def test_a_page_runs_after_the_readme(run_blocks, project: Path, page: Path) -> None:
    run_blocks([*blocks(project / "README.md"), *blocks(page)])
