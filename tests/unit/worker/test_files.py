"""A task that scores files, as Spark would call it."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kspark.adapters import Columns
from kspark.adapters.feeds import plan_frame
from kspark.errors import ClusterError, Failure
from kspark.files.commit import Output
from kspark.files.table import ParquetFiles
from kspark.shards import ArraySpec, InputSpec
from kspark.worker.files import ScoringTask, Written, score_shard
from kspark.worker.inference import InferenceTask
from kspark.worker.scores import Values

SPEC = InputSpec((ArraySpec("x", (1,), "float32"),))
SCHEMA = pa.schema([("id", pa.int64()), ("p", pa.float64())])


@pytest.fixture
def scoring(tmp_path):
    """Ten rows in two shards, and an output."""
    pq.write_table(pa.table({"id": np.arange(10), "x": np.arange(10.0)}), tmp_path / "in.parquet")
    files = ParquetFiles.open([str(tmp_path / "in.parquet")])
    output = Output(str(tmp_path / "out"), name="job")
    output.begin()
    plan = plan_frame(Columns("x", None, None), SPEC)
    selection = files.selection([files.column("id"), files.column("x")])
    inference = InferenceTask("files", 4, 1)
    task = ScoringTask(
        inference, plan, selection, SCHEMA, Values(), output.attempts, files.split(2)
    )
    return task, output


def run(task, index, spec):
    (result,) = score_shard(task, spec, index, iter([index]))
    return result


def test_attempts_beside_each_other_write_files_of_their_own(scoring, tools, tmp_path):
    task, output = scoring
    results = [run(task, index, tools.spec()) for index in (0, 1, 1)]
    assert [(r.shard, r.rows) for r in results] == [(0, 5), (1, 5), (1, 5)]
    assert len({r.name for r in results}) == 3
    output.commit([results[0].name, results[2].name])
    parts = sorted(name for name in os.listdir(tmp_path / "out") if name.startswith("part-"))
    assert parts == ["part-00000-job.parquet", "part-00001-job.parquet"]
    tables = [pq.read_table(tmp_path / "out" / name) for name in parts]
    assert [i for table in tables for i in table["id"].to_pylist()] == list(range(10))
    assert tables[0].schema.equals(SCHEMA)


def test_a_shard_without_rows_writes_no_file(scoring, tools):
    task, output = scoring
    task.shards[0] = ()
    assert run(task, 0, tools.spec()) == Written(0, "", 0)
    assert not output.system.get_file_info(output.attempts.path + "/0").is_file


def test_an_error_of_the_model_is_returned_and_one_of_the_files_is_tried_again(
    scoring, tools, tmp_path, monkeypatch
):
    task, _ = scoring
    monkeypatch.setattr(tools.replica, "predict", lambda self, window, size: 1 / 0)
    result = run(task, 0, tools.spec())
    assert isinstance(result, Failure) and result.kind == "ZeroDivisionError"
    (tmp_path / "in.parquet").unlink()
    with pytest.raises(ClusterError, match="cannot read"):
        run(task, 0, tools.spec())
