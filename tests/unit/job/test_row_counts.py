"""The folder in which tasks count rows while somebody looks; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark import temporary
from kspark.job import action_progress
from kspark.job.action_progress import ActionProgress
from kspark.job.row_counts import ScoringCounts


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return the folders of counts."""
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob(f"{temporary.ROWS}*"))


def test_those_who_look_at_the_same_time_share_a_folder(folders, monkeypatch):
    rows = [0]
    monkeypatch.setattr("kspark.job.row_counts.rows_counted", lambda folder: rows[0])
    first = ScoringCounts()
    rows[0] = 5
    second = ScoringCounts()
    rows[0] = 12
    assert (first.read(), second.read()) == (12, 7)
    assert len(folders()) == 1
    first.close()
    first.close()
    assert len(folders()) == 1
    second.close()
    assert folders() == []
    again = ScoringCounts()
    assert len(folders()) == 1
    again.close()
    assert folders() == []


class Interrupted:
    """A thread that is interrupted in one of its methods."""

    def __init__(self, where):
        self.where = where

    def start(self):
        if self.where == "start":
            raise KeyboardInterrupt

    def join(self):
        if self.where == "join":
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["start", "join"])
def test_an_interrupt_leaves_no_folder(folders, monkeypatch, where):
    closed = []
    engine = SimpleNamespace(shows_progress=False, thread=lambda run, name: Interrupted(where))
    jobs = SimpleNamespace(close=lambda: closed.append(True), ended_tasks=lambda: (0, 0))
    monkeypatch.setattr(action_progress, "engine_of", lambda spark: engine)
    monkeypatch.setattr(action_progress, "new_jobs", lambda spark: jobs)
    spark = SimpleNamespace(sparkContext=SimpleNamespace(master="local[2]"))
    progress = ActionProgress(spark, 1, "Scoring")
    progress.display.moves = True
    progress.run_on = lambda spark: None
    with pytest.raises(KeyboardInterrupt), progress:
        assert len(folders()) == 1
    assert closed == [True]
    assert folders() == []
