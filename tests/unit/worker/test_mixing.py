"""The two stages that mix rows between shards, on files and without Spark."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from kspark.plan import Mixing, mixed_sizes
from kspark.shards import Chunk, Shard, ShardHandle, spool
from kspark.worker import mixing as worker
from kspark.worker.mixing import MixingTask, cut_shards, delete_shards, spool_blocks

SIZES = [23, 0, 9, 40]
HELD_OUT = 3
TRAIN = {k: max(n - HELD_OUT, 0) for k, n in enumerate(SIZES)}


@pytest.fixture(autouse=True)
def _local(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))


def rows(first, count, dtype="int64"):
    """Two inputs, one of them text, two targets and weights, which all tell the row's number."""
    ids = np.arange(first, first + count)
    text = np.array([[f"row {i}", "ü" * (i % 3)] for i in ids], object).reshape(count, 2)
    return Chunk(
        [np.stack([ids, ids + 0.5], axis=1).astype("float32"), text],
        [ids.astype(dtype), ids.astype("float32").reshape(-1, 1)],
        [ids.astype("float32") / 8],
    )


@pytest.fixture
def handles():
    firsts = np.cumsum([0, *SIZES])
    return [
        spool([rows(firsts[k], n)] if n else [], k, "fit").to_json() for k, n in enumerate(SIZES)
    ]


def cut(task, handles):
    """What the shuffle gets."""
    return [found for k, one in enumerate(handles) for found in cut_shards(task, k, iter([one]))]


def spooled(task, blocks):
    """What the tasks of the second stage return, whatever the order in which blocks arrive."""
    arrived = [blocks[i] for i in np.random.default_rng(len(blocks)).permutation(len(blocks))]
    shards = [
        sorted((b for b in arrived if b[0][0] == k), key=lambda b: b[0]) for k in range(len(SIZES))
    ]
    return [next(spool_blocks(task, k, iter(found))) for k, found in enumerate(shards)]


def mixed(task, handles):
    documents = spooled(task, cut(task, handles))
    return [Shard.open(ShardHandle.from_json(document)) for document in documents]


def ids_of(chunk):
    """The numbers of rows, if all arrays agree on them."""
    ids = chunk.y[0].tolist()
    expected = rows(0, sum(SIZES))
    for found, array in zip(chunk.arrays, expected.arrays, strict=True):
        assert found.tolist() == array[ids].tolist()
    return ids


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("nbytes", [1, 10**6])
def test_all_arrays_of_each_training_row_go_to_one_place(handles, monkeypatch, parts, nbytes):
    monkeypatch.setattr(worker, "CHUNK_BYTES", nbytes)
    monkeypatch.setattr(worker, "BLOCK_BYTES", nbytes)
    made = [MixingTask("fit", Mixing(1, period, TRAIN, parts)) for period in (0, 0, 1)]
    found = [[ids_of(shard.read()) for shard in mixed(task, handles)] for task in made]
    assert found[0] == found[1] != found[2]
    firsts = np.cumsum([0, *SIZES])
    trained = [i for k, n in TRAIN.items() for i in range(firsts[k], firsts[k] + n)]
    for ids in found:
        assert {k: len(one) for k, one in enumerate(ids)} == mixed_sizes(TRAIN)
        assert sorted(i for one in ids for i in one) == trained
        # Each shard has its share of every partition, and not one after the other.
        for one in ids:
            sources = np.searchsorted(firsts, one, side="right") - 1
            assert np.bincount(sources, minlength=4).tolist() == pytest.approx(
                [n / 4 for n in TRAIN.values()], abs=1
            )
            assert (np.diff(sources) < 0).any()


def test_rows_of_different_dtypes_are_written_in_a_common_one():
    """Partitions may have integers and floating point numbers, for instance for labels."""
    chunks = [rows(0, 4), rows(4, 4, "float32")]
    handles = [spool([chunk], k, "fit").to_json() for k, chunk in enumerate(chunks)]
    task = MixingTask("fit", Mixing(0, 0, {0: 4, 1: 4}))
    blocks = cut(task, handles)
    for target in (0, 1):
        found = sorted((b for b in blocks if b[0][0] == target), key=lambda b: b[0])
        handle = ShardHandle.from_json(next(spool_blocks(task, target, iter(found))))
        assert handle.y[0].dtype == "float32"
        assert Shard.open(handle).num_examples == 4


def test_more_shards_than_rows(handles):
    train = {0: 0, 1: 0, 2: 2, 3: 0}
    shards = mixed(MixingTask("fit", Mixing(0, 0, train)), handles)
    assert [shard.num_examples for shard in shards] == [1, 1, 0, 0]


def test_every_new_shard_learns_that_files_are_gone(handles):
    gone = ShardHandle.from_json(handles[2])
    os.unlink(os.path.join(gone.path, gone.x[0].file))
    task = MixingTask("fit", Mixing(0, 0, TRAIN))
    for document in spooled(task, cut(task, handles)):
        missing = json.loads(document)["missing"]
        assert (missing["shard"], missing["host"]) == (2, missing["home"])


def test_a_shard_with_fewer_rows_than_before_is_an_error(handles):
    task = MixingTask("fit", Mixing(0, 0, TRAIN | {2: 10}))
    for document in spooled(task, cut(task, handles)):
        failure = json.loads(document)["failure"]
        assert failure["kind"] == "ValueError"
        assert "Partition 2 was read again" in failure["message"]


def test_the_shards_of_the_period_before_are_deleted_first(handles, tmp_path):
    before = mixed(MixingTask("fit", Mixing(0, 0, TRAIN)), handles)
    state = before[0].state_path("state")
    os.mkdir(state)
    here = tuple(shard.handle.path for shard in before)
    task = MixingTask("fit", Mixing(0, 1, TRAIN), (*here, "/nowhere/shard-of-another-host"))
    blocks = cut_shards(task, 1, iter([handles[1]]))
    assert list(blocks) == []  # an empty partition makes room, too
    assert not any(os.path.exists(shard.handle.path) for shard in before)
    assert os.path.exists(state)
    assert len(os.listdir(tmp_path / "kspark-fit")) == len(handles) + 2  # and state and mark


def test_only_the_rows_on_this_host_are_deleted(handles):
    first, last = ShardHandle.from_json(handles[0]), ShardHandle.from_json(handles[2])
    elsewhere = replace(last, mark="another")
    documents = [first.to_json(), elsewhere.to_json()]
    assert list(delete_shards(0, iter(documents))) == [0]
    assert [os.path.exists(one.path) for one in (first, last)] == [False, True]
