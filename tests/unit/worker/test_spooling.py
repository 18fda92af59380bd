"""Write a partition to local disk once more."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from kspark.shards import Chunk
from kspark.worker import spooling
from kspark.worker.spooling import Again, spool_again, spool_shard


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (100.0, 10.0),
        (104.0, 6.0),  # the work took four seconds of them
        (111.0, 0.0),
    ],
)
def test_a_task_keeps_its_slot_for_some_seconds(now, seconds):
    assert Again(hold=10.0, until=200.0).seconds(100.0, now) == seconds


def test_a_task_that_computes_a_handle_again_long_after_is_not_held():
    """The clock of an executor may be ahead of the driver's."""
    assert Again(hold=10.0, until=110.0).seconds(125.0, 126.0) == 9.0
    assert Again(hold=10.0, until=110.0).seconds(900.0, 901.0) == 0.0


def test_files_of_before_are_deleted_and_the_slot_is_kept_at_last(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    before = tmp_path / "kspark-run" / "shard-00000-before"
    before.mkdir(parents=True)
    slept = []
    clock = SimpleNamespace(time=lambda: 100.0, sleep=slept.append)
    monkeypatch.setattr(spooling, "time", clock)
    again = Again((str(before), str(tmp_path / "elsewhere")), 10.0, 110.0)
    write = partial(spool_shard, "run", False)
    found = spool_again(again, write, 0, iter([Chunk([np.arange(3)])]))
    assert json.loads(next(found))["num_examples"] == 3
    assert (before.exists(), slept) == (False, [])
    assert list(found) == []
    assert slept == [10.0]
