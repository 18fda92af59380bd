"""Tasks that read spooled shards."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace

import numpy as np
import pytest

from kspark.adapters.spooled import Group, Layout, StoredPlan
from kspark.shards import ArraySpec, Chunk, InputSpec, Shard, ShardHandle, spool
from kspark.worker.stored import cut_stored, find_missing, link_shard, read_stored
from kspark.worker.tasks import GONE, MissingShard


def plan(dtype=""):
    return StoredPlan.of(Layout(Group(("x",))), InputSpec((ArraySpec("x", None, dtype),)))


@pytest.fixture
def handle(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return spool([Chunk([np.arange(10)])], 1, "source")


def linked(handle, count=10, dtype=""):
    (document,) = link_shard("fit", plan(dtype), {1: count}, 1, [handle.to_json()])
    return json.loads(document)


def is_link(handle, made):
    file = made["x"][0]["file"]
    return os.path.samefile(f"{handle.path}/{file}", f"{made['path']}/{file}")


def test_a_fit_gets_links_or_converted_rows(handle):
    assert is_link(handle, linked(handle))
    for made, dtype in ((linked(handle, 4), "int64"), (linked(handle, 10, "float32"), "float32")):
        assert not is_link(handle, made)
        rows = Shard.open(ShardHandle.from_json(json.dumps(made).encode())).read().x[0]
        assert rows.dtype == dtype
        assert rows.tolist() == list(range(len(rows)))
    assert linked(handle, 4)["num_examples"] == 4


def test_an_empty_shard_stays_empty(tmp_path, handle):
    empty = spool([], 1, "source")
    assert linked(empty, 0)["num_examples"] == 0


def test_values_that_the_model_does_not_take_are_a_failure(handle):
    made = linked(handle, dtype="bool")
    assert made["failure"]["kind"] == "ValueError"
    assert "0 or 1. Received: 2 in row 2 of partition 1" in made["failure"]["message"]


def test_a_shard_with_fewer_rows_than_before_is_a_failure(handle):
    made = linked(handle, 11)
    assert "has 10 rows now instead of 11" in made["failure"]["message"]


def sizes(index, chunks):
    yield index, sum(chunk.num_examples for chunk in chunks)


def test_missing_files_are_told_with_the_host_that_wrote_them(handle):
    away = replace(handle, host="elsewhere", mark="another")
    documents = [handle.to_json()]
    assert list(read_stored(plan(), {1: 10}, sizes, 1, documents)) == [(1, 10)]
    assert list(find_missing(1, documents)) == []
    Shard.remove(handle)
    missing = {"shard": 1, "host": platform.node(), "home": handle.host, "lack": GONE}
    assert linked(handle) == {"missing": missing}
    found = list(read_stored(plan(), {1: 10}, sizes, 1, [away.to_json()]))
    assert found == [MissingShard(1, platform.node(), "elsewhere")]
    assert list(find_missing(1, documents)) == [1]
    assert list(find_missing(1, [away.to_json()])) == [1]


def test_pieces_have_all_rows(handle):
    pieces = list(cut_stored(plan(), {1: 10}, 3, 1, [handle.to_json()]))
    assert sorted(key[0] for key, _ in pieces) == [0, 1, 2]
    assert sorted(np.concatenate([piece[0][0] for _, piece in pieces])) == list(range(10))
