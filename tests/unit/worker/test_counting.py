"""The rows that a task has counted, as the driver on the same host reads them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.shards import Window
from kspark.worker import counting
from kspark.worker.counting import RowCounter, counted, rows_counted


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "WRITE_SECONDS", 0.0)
    return str(tmp_path)


def window(rows):
    return Window([np.arange(rows)], [np.arange(rows)], [])


def test_parts_are_whole_batches_in_order_and_each_is_counted_when_it_is_done(folder):
    seen, before = [], []
    with RowCounter(folder, "model") as counter:
        for part in counter.parts(window(103), 10):
            before.append(rows_counted(folder))
            seen.append(part.x[0])
            assert part.y[0].tolist() == part.x[0].tolist()
        counter.add(7)
    assert np.concatenate(seen).tolist() == list(range(103))
    assert all(len(rows) % 10 == 0 for rows in seen[:-1])
    assert before == [sum(map(len, seen[:i])) for i in range(len(seen))]
    assert rows_counted(folder) == 110


@pytest.mark.parametrize(
    "made", [window(0), window(10), Window([np.arange(30)], order=np.arange(3))]
)
def test_a_window_that_is_not_divided_is_passed_on_as_it_is(folder, made):
    with RowCounter(folder, "model") as counter:
        assert [part is made for part in counter.parts(made, 10)] == [True]
    assert rows_counted(folder) == made.num_examples


@pytest.mark.parametrize("absent", ["", "/no/such/folder"])
def test_nothing_is_counted_while_nobody_looks(absent):
    made = window(103)
    with RowCounter(absent, "model") as counter:
        assert [part is made for part in counter.parts(made, 10)] == [True]
    assert rows_counted(absent or "/no/such/folder") == 0


def test_tasks_are_added_and_two_models_that_score_the_same_rows_are_not(folder, monkeypatch):
    def run(stage, partition, key, rows):
        task = SimpleNamespace(stageId=lambda: stage, partitionId=lambda: partition)
        monkeypatch.setattr(counting, "TaskContext", SimpleNamespace(get=lambda: task))
        batches = iter([(np.arange(rows), np.arange(rows)), (np.arange(1), np.arange(1))])
        assert len(list(counted(folder, key, batches))) == 2

    run(3, 0, "a", 9)
    run(3, 1, "a", 19)
    run(3, 0, "a", 9)  # The task runs again.
    run(3, 0, "b", 4)
    run(4, 0, "a", 99)
    assert rows_counted(folder) == 10 + 20 + 100
