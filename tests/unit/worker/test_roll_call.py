"""Tasks that tell the driver which executors answer; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from kspark.shards import Chunk, spool
from kspark.worker.roll_call import answer


def test_a_task_answers_for_the_disk_that_it_sees(tmp_path):
    here, there = (
        spool([Chunk([np.arange(3)])], 0, "run", directory=str(tmp_path / name)) for name in "ab"
    )
    (tmp_path / "b").rename(tmp_path / "elsewhere")
    counted = [[], []]
    answers = [SimpleNamespace(add=one.append) for one in counted]
    documents = [here.to_json(), there.to_json()]
    assert list(answer(documents, answers, 0, iter([1, 2]))) == []
    assert counted == [[1], []]
