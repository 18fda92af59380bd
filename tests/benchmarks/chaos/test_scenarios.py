"""What is drawn, and how it is judged; without Spark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from benchmarks.chaos.__main__ import Run
from benchmarks.chaos.faults import MARK, LocalCluster
from benchmarks.chaos.scenarios import EPOCHS, FAULTS, draw


def test_a_seed_always_draws_the_same_and_every_fault_comes_as_often():
    drawn = [draw(3, number) for number in range(2 * len(FAULTS))]
    assert drawn == [draw(3, number) for number in range(2 * len(FAULTS))]
    assert drawn != [draw(4, number) for number in range(2 * len(FAULTS))]
    assert sorted(scenario.fault for scenario in drawn) == sorted(2 * FAULTS)
    assert all(0 < scenario.epoch < EPOCHS - 1 for scenario in drawn)


@pytest.mark.parametrize(
    ("mode", "result", "word"),
    [
        ("synchronous", {"counts": [1, 1, 1]}, "right"),
        ("synchronous", {"counts": [0.5, 0.99, 1]}, "WRONG"),
        ("asynchronous", {"counts": [1, 1.01, 1.5]}, "WRONG"),
        ("hogwild", {"counts": [0.9, 0.99, 1]}, "right"),
        ("hogwild", {"counts": [1, 1, 1.2]}, "WRONG"),
        ("synchronous", {"accuracy": 0.97}, "right"),
        ("synchronous", {"accuracy": 0.5}, "WRONG"),
        ("synchronous", {"error": "WorkerError: gone"}, "clear error"),
        ("synchronous", {"accuracy": 0.97, "left": ["thread kspark-1"]}, "WRONG"),
        ("synchronous", None, "WRONG"),
    ],
)
def test_verdicts(tmp_path, mode, result, word):
    scenario = next(s for s in (draw(0, n) for n in range(100)) if s.mode == mode)
    run = Run(scenario, tmp_path, 1.0)
    run.output.write_text("Traceback\nValueError: no\n")
    if result is not None:
        run.result.write_text(json.dumps({"left": [], **result}))
    assert run.judge(0).word == word
    assert run.judge(None).word == "WRONG"


def test_files_of_kspark_that_are_left_are_wrong(tmp_path):
    run = Run(draw(0, 0), tmp_path, 1.0)
    run.result.write_text(json.dumps({"left": [], "counts": [1, 1, 1]}))
    (run.disk / "kspark-abc").mkdir()
    assert "disk/kspark-abc" in run.judge(0).detail


def test_only_processes_with_the_mark_get_signals(tmp_path):
    code = "import sys; print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    mine, other = (
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARK: mark}, **pipes)
        for mark in ("a", "b")
    )
    with mine, other:
        for process in (mine, other):
            process.stdout.readline()
        cluster = LocalCluster("a", tmp_path)
        assert cluster.everything() == [mine.pid]
        cluster.send(other.pid, signal.SIGKILL)
        cluster.send(mine.pid, signal.SIGKILL)
        assert mine.wait(20) == -signal.SIGKILL
        assert cluster.everything() == []
        assert other.poll() is None
        other.kill()
