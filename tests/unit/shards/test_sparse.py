"""Sparse rows in memory and on disk: the same rows as the dense array, in fewer bytes."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark.shards import (
    Chunk,
    Shard,
    ShardHandle,
    SparseRows,
    SpoolMissingError,
    dense,
    joined,
    spool,
)
from kspark.shards.files import COPY_BYTES
from kspark.shards.sparse import NARROW, saves_memory, side_by_side

WIDTH = 2 * NARROW


@pytest.fixture(autouse=True)
def local_dirs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return tmp_path


def rows(count, seed=0, width=WIDTH, dtype=np.float32):
    """A dense array with about 3 entries in a row."""
    random = np.random.default_rng(seed)
    values = random.integers(1, 99, (count, width))
    return np.where(random.random((count, width)) < 3 / width, values, 0).astype(dtype)


def spooled(*chunks, index=0):
    return spool([Chunk([c]) if not isinstance(c, Chunk) else c for c in chunks], index, "run")


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert dense(found).tobytes() == np.ascontiguousarray(expected).tobytes()


MATRICES = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int16, np.bool_]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6),
    fill=st.just(0),
)


@given(MATRICES, st.data())
def test_sparse_rows_are_those_of_the_array(array, data):
    sparse = SparseRows.of(array)
    assert (len(sparse), sparse.ndim, sparse.shape) == (len(array), array.ndim, array.shape)
    assert sparse.dense_nbytes == array.nbytes
    assert_same(sparse, array)
    part = data.draw(st.slices(len(array)))
    assert_same(sparse[part], array[part])
    assert_same(sparse[part].toarray(), array[part])
    if len(array):
        numbers = data.draw(st.lists(st.integers(0, len(array) - 1), max_size=9))
        chosen = np.array(numbers, np.int32)
        assert_same(sparse[chosen], array[chosen])
        assert_same(sparse[part][np.arange(len(array[part]))], array[part])


@given(st.lists(MATRICES, min_size=1, max_size=3), st.integers(0, 5))
def test_parts_are_put_side_by_side(parts, count):
    flat = [p[:count].reshape(min(count, len(p)), int(np.prod(p.shape[1:]))) for p in parts]
    length = min(map(len, flat))
    flat = [p[:length] for p in flat]
    found = side_by_side([flat[0], *map(SparseRows.of, flat[1:])])
    assert_same(found, np.concatenate(flat, axis=1))


def test_bits_of_negative_zero_and_nan_are_kept():
    array = np.array([[0.0, -0.0, np.nan], [0.0, 0.0, -np.inf]])
    assert_same(SparseRows.of(array), array)


def test_rows_survive_casts_shapes_and_pickle():
    array = rows(4, width=12)
    sparse = SparseRows.of(array)
    assert_same(sparse.astype(np.int64), array.astype(np.int64))
    assert_same(sparse.reshape(4, 3, 2, 2), array.reshape(4, 3, 2, 2))
    assert_same(pickle.loads(pickle.dumps(sparse[1:3])), array[1:3])
    with pytest.raises(ValueError, match="cannot become"):
        sparse.reshape(4, 13)


def test_rows_that_are_narrow_or_rather_dense_are_better_dense():
    assert not SparseRows.of(rows(9, width=NARROW - 1)).saves_memory
    assert SparseRows.of(rows(9)).saves_memory
    assert not SparseRows.of(np.ones((9, WIDTH))).saves_memory
    assert saves_memory(1, 300, 49, 8)
    assert not saves_memory(1, 300, 66, 8)


def test_a_shard_of_sparse_rows_gives_the_rows_of_the_array():
    array, labels = rows(50), np.arange(50)
    parts = [Chunk([SparseRows.of(array[p])], [labels[p]]) for p in (slice(0, 7), slice(7, 50))]
    handle = spooled(*parts)
    assert ShardHandle.from_json(handle.to_json()) == handle
    (stored,) = handle.x
    assert (stored.dtype, stored.shape, stored.entries) == ("float32", (WIDTH,), (array != 0).sum())
    sizes = {f: os.path.getsize(os.path.join(handle.path, f)) for f in stored.files}
    assert stored.files == sizes
    assert sum(sizes.values()) == stored.nbytes < array.nbytes / 50
    shard = Shard.open(handle)
    assert shard.row_bytes == handle.nbytes / 50
    for start, stop in ((0, 50), (3, 11), (49, 50), (50, 50)):
        chunk = shard.read(start, stop)
        assert isinstance(chunk.x[0], SparseRows)
        assert_same(chunk.x[0], array[start:stop])
        assert chunk.y[0].tolist() == labels[start:stop].tolist()


@pytest.mark.parametrize("seed", [None, 3])
def test_windows_of_sparse_and_dense_rows_have_the_same_batches(seed):
    array = rows(100, seed=1)
    shards = [Shard.open(spooled(SparseRows.of(array))), Shard.open(spooled(array))]
    for limit in (1e9, 20):  # one window, and several of 20 rows
        found = []
        for shard in shards:
            rng = None if seed is None else np.random.default_rng(seed)
            nbytes = int(np.ceil(limit * shard.row_bytes))
            windows = list(shard.windows(4, rng=rng, window_bytes=nbytes, batches=(2, 23)))
            assert len(windows) == (1 if limit > 100 else 5)
            found.append([dense(w.x[0][w.numbers]) for w in windows])
        for sparse, same in zip(*found, strict=True):
            assert_same(sparse, same)


def test_only_the_bytes_of_the_wanted_rows_are_read(monkeypatch):
    array = rows(1000, seed=2)
    shard = Shard.open(spooled(SparseRows.of(array)))
    read = []
    monkeypatch.setattr(
        "kspark.shards.files.as_bytes", lambda v: (read.append(v.nbytes), v.view(np.uint8).data)[1]
    )
    assert_same(shard.read(500, 510).x[0], array[500:510])
    assert sum(read) == SparseRows.of(array[500:510]).nbytes


def test_the_first_rows_decide_how_all_are_stored():
    few, many = rows(20), np.ones((3, WIDTH), np.float32)
    for parts in ((few, many), (many, few)):
        handle = spooled(*map(SparseRows.of, parts))
        assert (handle.x[0].entries is None) == (parts[0] is many)
        assert_same(Shard.open(handle).read().x[0], np.concatenate(parts))
    handle = spooled(SparseRows.of(few), many, SparseRows.of(few))  # an array among them
    assert handle.x[0].entries == 2 * (few != 0).sum() + many.size
    assert_same(Shard.open(handle).read().x[0], np.concatenate([few, many, few]))


def test_sparse_rows_in_a_dense_file_become_dense_a_few_at_a_time(monkeypatch):
    made = []
    whole = SparseRows.toarray
    monkeypatch.setattr(
        SparseRows, "toarray", lambda self: (made.append(self.dense_nbytes), whole(self))[1]
    )
    width, count = 1 << 20, 9
    empty = np.zeros(count + 1, np.int64)
    sparse = SparseRows(np.empty(0, np.float32), np.empty(0, np.int32), empty, (width,))
    handle = spooled(np.ones((1, width), np.float32), sparse)
    assert handle.nbytes == (count + 1) * 4 * width
    assert max(made) <= COPY_BYTES
    assert sum(made) == sparse.dense_nbytes


def test_entries_widen_when_others_follow():
    whole, fractions = rows(5, dtype=np.int64), rows(5, dtype=np.float32) / 2
    handle = spooled(SparseRows.of(whole), SparseRows.of(fractions))
    assert handle.x[0].dtype == "float32"
    expected = np.concatenate([whole.astype(np.float32), fractions])
    assert_same(Shard.open(handle).read().x[0], expected)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"same shape.*\(512,\) up to row 5, then \(513,\)"):
        spooled(SparseRows.of(rows(5)), SparseRows.of(rows(5, width=WIDTH + 1)))


def test_rows_without_entries_are_stored():
    empty = np.zeros((3, WIDTH))
    assert_same(Shard.open(spooled(SparseRows.of(empty))).read(1, 3).x[0], empty[1:])


@pytest.mark.parametrize("ending", ["", ".indices", ".starts"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_missing_or_short_file_is_noticed(ending, cut):
    handle = spooled(SparseRows.of(rows(50)))
    shard = Shard.open(handle)
    path = os.path.join(handle.path, handle.x[0].file + ending)
    os.truncate(path, os.path.getsize(path) - 1) if cut else os.unlink(path)
    with pytest.raises(SpoolMissingError, match="missing or incomplete"):
        Shard.open(handle)
    with pytest.raises(SpoolMissingError, match="no longer complete"):
        shard.read()


def test_chunks_are_joined_cut_and_sent_as_those_of_arrays_are():
    array, labels = rows(10), np.arange(10)
    sparse = Chunk([SparseRows.of(array), array[:, :2]], [labels])
    assert sparse.nbytes == SparseRows.of(array).nbytes + array[:, :2].nbytes + labels.nbytes
    back = Chunk.of_block(pickle.loads(pickle.dumps(sparse.taken(np.array([3, 1])).block)))
    assert not any(isinstance(part, SparseRows) for part in sparse.block[0])
    assert_same(back.x[0], array[[3, 1]])
    both = joined([sparse, Chunk([array.astype(np.float64), array[:, :2]], [labels])])
    assert isinstance(both.x[0], SparseRows)
    assert_same(both.x[0], np.concatenate([array, array.astype(np.float64)]))
    pieces = list(sparse.dense_pieces(3 * array[0].nbytes))
    assert max(len(piece.x[0]) for piece in pieces) <= 3
    assert_same(np.concatenate([piece.x[0] for piece in pieces]), array)
    assert [len(piece.x[0]) for piece in sparse.pieces(sparse.nbytes // 2)] == [5, 5]
