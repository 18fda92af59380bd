"""The tool that keeps the modules without I/O at full coverage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "check_coverage.py"


def measured(lines=(), branches=()):
    return {"missing_lines": list(lines), "missing_branches": [list(b) for b in branches]}


FILES = {
    "/env/site-packages/kspark/errors.py": measured(),
    "/env/site-packages/kspark/wire/frames.py": measured(),
    "/env/site-packages/kspark/wire/decoder.py": measured([3, 9], [(8, 9), (12, -7)]),
    "/env/site-packages/kspark/wiretap.py": measured([1]),
}


@pytest.fixture
def check(tmp_path):
    def run(*names, branch_coverage=True, files=FILES):
        report = tmp_path / "coverage.json"
        meta = {"branch_coverage": branch_coverage}
        report.write_text(json.dumps({"meta": meta, "files": files}), encoding="utf-8")
        command = [sys.executable, str(TOOL), str(report), *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    return run


def test_covered_files_pass(check):
    status, lines = check("errors.py", "wire/frames.py")
    assert (status, lines) == (0, ["Every line and branch is covered in errors.py wire/frames.py"])


def test_gaps_of_a_folder_are_listed_by_file(check):
    status, lines = check("errors.py", "wire")
    assert (status, lines) == (1, ["wire/decoder.py: not covered: 3, 9, 8->9, 12->exit"])


def test_a_name_without_a_file_fails(check):
    status, lines = check("errors.py", "cable")
    assert (status, lines) == (1, ["cable: no file of this name was measured"])


def test_a_report_without_branches_fails(check):
    status, lines = check("errors.py", branch_coverage=False)
    assert status == 1
    assert lines == ["The report has no branches. Run coverage with `branch = true`."]


def test_the_folder_of_the_project_may_have_the_name_of_the_package(check):
    files = {"/home/kspark/kspark/errors.py": measured([5])}
    assert check("errors.py", files=files) == (1, ["errors.py: not covered: 5"])
