"""What is drawn, and how it is judged; without Spark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.chaos import faults, program
from benchmarks.chaos.__main__ import Run
from benchmarks.chaos.faults import MARK, LocalCluster
from benchmarks.chaos.scenarios import EPOCHS, FAULTS, TIMEOUT, draw


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
        ("synchronous", {"error": "WorkerError: gone"}, "WRONG"),
        ("synchronous", {"accuracy": 0.97, "left": ["thread kspark-1"]}, "WRONG"),
        ("synchronous", None, "WRONG"),
    ],
)
def test_verdicts(tmp_path, mode, result, word):
    scenario = next(
        s for s in (draw(0, n) for n in range(100)) if (s.mode, s.fault) == (mode, "kill a worker")
    )
    run = Run(scenario, tmp_path, 1.0)
    run.struck = True
    run.output.write_text("Traceback\nValueError: no\n")
    if result is not None:
        run.result.write_text(json.dumps({"left": [], **result}))
    assert run.judge(0).word == word
    assert run.judge(None).word == "WRONG"


@pytest.mark.parametrize(
    ("fault", "struck", "result", "word"),
    [
        ("disk full", True, {"error": "WorkerError: no space"}, "clear error"),
        ("disk full", False, {"error": "WorkerError: no space"}, "WRONG"),
        ("kill an executor", True, {"error": "WorkerError: gone"}, "WRONG"),
        ("kill the driver", False, {"accuracy": 0.97}, "not struck"),
        ("die after a push", True, {"accuracy": 0.97}, "right"),
        ("die after a push", False, {"accuracy": 0.97}, "not struck"),
        ("die after a push", False, {"accuracy": 0.5}, "not struck"),
    ],
)
def test_errors_are_right_for_some_faults_only_and_every_fault_must_happen(
    tmp_path, fault, struck, result, word
):
    run = Run(replace(draw(0, 0), fault=fault), tmp_path, 1.0)
    run.result.write_text(json.dumps({"left": [], **result}))
    if fault == "die after a push":
        if struck:
            run.died.touch()
    else:
        run.struck = struck
    assert run.judge(0).word == word


def test_some_stops_are_longer_than_the_timeout():
    long = [draw(1, number).seconds > TIMEOUT for number in range(100)]
    assert 15 < sum(long) < 50


class Gone:
    """A cluster whose processes have ended when they get a signal, except for the last one."""

    def __init__(self, *workers):
        self._found, self.sent = list(workers), []

    def workers(self):
        return [self._found[0]] if self._found else []

    def send(self, process, number):
        self.sent.append((process, number))
        return len(self._found) == 1 or self._found.pop(0) is None


def test_a_fault_looks_for_another_process_if_the_first_has_ended(monkeypatch):
    monkeypatch.setattr(faults, "FIND_SECONDS", 5.0)
    cluster = Gone(7, 8)
    assert faults.strike(cluster, "stop a worker", 3, 0.0)
    assert cluster.sent == [(7, signal.SIGSTOP), (8, signal.SIGSTOP), (8, signal.SIGCONT)]


def test_a_fault_that_reaches_no_process_has_not_happened(monkeypatch):
    monkeypatch.setattr(faults, "FIND_SECONDS", 0.0)
    assert not faults.strike(Gone(), "kill a worker", 3, 0.0)
    assert not faults.strike(Gone(7, 8), "kill a worker", 3, 0.0)


def test_a_process_dies_once_and_after_its_exchange(tmp_path, monkeypatch):
    exits, done = [], []
    monkeypatch.setattr(program.os, "_exit", exits.append)
    callback = program.DiesAfterPush(2, str(tmp_path / "died"))
    exchange = program.followed(lambda number: done.append(number) or number, callback.die)
    assert [exchange(1), exchange(2)] == [1, 2]
    assert (done, exits) == ([1, 2], [1])
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize(
    ("epoch", "partition", "dies"), [(2, 0, True), (1, 0, False), (2, 1, False)]
)
def test_the_exchanges_of_one_epoch_and_shard_are_followed(
    tmp_path, monkeypatch, epoch, partition, dies
):
    kinds = ("AggregatorClient", "SharedGradients", "SharedWeights", "ShardState")
    names = ("push", "reduce", "exchange", "add", "save")
    exits = []
    kind = type("Kind", (), dict.fromkeys(names, lambda self: None))
    for each in kinds:
        monkeypatch.setattr(program, each, kind)
    monkeypatch.setattr(program.os, "_exit", exits.append)
    monkeypatch.setattr(
        program,
        "TaskContext",
        SimpleNamespace(get=lambda: SimpleNamespace(partitionId=lambda: partition)),
    )
    program.DiesAfterPush(2, str(tmp_path / "died")).on_epoch_begin(epoch)
    for name in names:
        getattr(kind(), name)()
    assert exits == ([1] if dies else [])


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
        assert not cluster.send(other.pid, signal.SIGKILL)
        assert cluster.send(mine.pid, signal.SIGKILL)
        assert mine.wait(20) == -signal.SIGKILL
        assert not cluster.send(mine.pid, signal.SIGKILL)
        assert cluster.everything() == []
        assert other.poll() is None
        other.kill()
