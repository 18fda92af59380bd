"""Reading a shard: every row once per pass, batches that never straddle windows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspark.shards import Chunk, Shard, SpoolMissingError, Window, spool
from kspark.shards.reading import cut
from kspark.shards.rows import class_weights

ROW = 24
"""Bytes of one row of `shard_of`: an id of 8, two floats of 4, a label of 8."""


def shard_of(count, directory):
    ids = np.arange(count)
    rows = Chunk([ids, np.stack([ids, -ids], 1).astype(np.float32)], [ids * 10])
    return Shard.open(spool(rows.pieces(1000), 0, "run", directory=str(directory)))


def rng(seed=0):
    return np.random.default_rng(seed)


def ids_of(window):
    order = slice(None) if window.order is None else window.order
    ids = window.x[0][order]
    # The other arrays have to say the same of every row.
    np.testing.assert_array_equal(window.x[1][order][:, 1], -ids)
    np.testing.assert_array_equal(window.y[0][order], ids * 10)
    return ids.tolist()


COUNTS = (1, 7, 64, 100, 1001)
BATCHES = (1, 8, 64, 5000)
WINDOWS = (1, 10 * ROW, 333 * ROW, 1 << 20)


@pytest.mark.parametrize("count", COUNTS)
def test_every_row_is_read_once_for_all_sizes(count, tmp_path):
    shard = shard_of(count, tmp_path)
    for batch, size, shuffle in itertools.product(BATCHES, WINDOWS, (False, True)):
        for start, stop in {(0, count), (count // 3, count), (0, count - count // 3)}:
            windows = list(
                shard.windows(
                    batch,
                    start=start,
                    stop=stop,
                    rng=rng() if shuffle else None,
                    window_bytes=size,
                )
            )
            seen = [i for w in windows for i in ids_of(w)]
            assert sorted(seen) == list(range(start, stop))
            if not shuffle:
                assert seen == list(range(start, stop))
            batches = 0
            for window in windows:
                assert window.first_batch == batches
                assert window.num_examples <= max(size // ROW, batch)
                batches += -(-window.num_examples // batch)
            assert all(w.num_examples % batch == 0 for w in windows[:-1])
            assert batches == -(-(stop - start) // batch)


def test_windows_are_as_large_as_allowed(tmp_path):
    shard = shard_of(100, tmp_path)
    sizes = [w.num_examples for w in shard.windows(4, window_bytes=30 * ROW)]
    assert sizes == [28, 28, 28, 16]
    shuffled = [w.num_examples for w in shard.windows(4, rng=rng(), window_bytes=30 * ROW)]
    assert shuffled == sizes


def test_a_range_that_fits_is_one_window_with_a_permutation(tmp_path):
    shard = shard_of(50, tmp_path)
    (plain,) = shard.windows(8, start=10, stop=30)
    (mixed,) = shard.windows(8, start=10, stop=30, rng=rng())
    assert plain.x[0].tolist() == mixed.x[0].tolist() == list(range(10, 30))
    assert plain.order is None
    assert sorted(mixed.order.tolist()) == list(range(20))
    assert mixed.order.tolist() != list(range(20))
    assert mixed.order.dtype == np.int32
    assert plain.key == mixed.key == (shard.handle.path, 10, 30)


def test_a_single_large_batch_is_one_window(tmp_path):
    (window,) = shard_of(50, tmp_path).windows(64, rng=rng(), window_bytes=1)
    assert window.key is not None


def test_parts_of_a_large_shard_have_no_key(tmp_path):
    shard = shard_of(100, tmp_path)
    for source in (None, rng()):
        assert {w.key for w in shard.windows(10, rng=source, window_bytes=30 * ROW)} == {None}


def test_what_is_written_to_a_window_does_not_reach_the_files(tmp_path):
    shard = shard_of(10, tmp_path)
    for size in (None, 2 * ROW):
        for window in shard.windows(2, window_bytes=size):
            window.x[0][:] = -1
    assert shard.read().x[0].tolist() == list(range(10))


def test_a_window_outlives_its_files(tmp_path):
    shard = shard_of(10, tmp_path)
    (window,) = shard.windows(2)
    shard.delete()
    assert window.x[0].tolist() == list(range(10))


def test_a_file_that_was_cut_off_is_missing(tmp_path):
    shard = shard_of(10, tmp_path)
    with open(Path(shard.handle.path, shard.handle.x[0].file), "r+b") as file:
        file.truncate(3)
    with pytest.raises(SpoolMissingError, match="no longer complete"):
        next(shard.windows(2))


@pytest.mark.parametrize("size", [30 * ROW, 1 << 20])
def test_the_generator_alone_decides_the_order(size, tmp_path):
    shard = shard_of(200, tmp_path)

    def seen(source):
        windows = shard.windows(10, rng=source, window_bytes=size)
        return [i for w in windows for i in ids_of(w)]

    assert seen(rng(1)) == seen(rng(1))
    assert seen(rng(1)) != seen(rng(2))
    source = rng(3)
    assert seen(source) != seen(source)


def test_a_shuffled_window_has_rows_from_all_parts_of_a_large_shard(tmp_path):
    shard = shard_of(4000, tmp_path)
    window = next(shard.windows(10, rng=rng(), window_bytes=640 * ROW))
    ids = np.array(ids_of(window))
    quarters = np.bincount(ids // 1000, minlength=4)
    assert window.num_examples == 640
    assert (quarters > 0).all()
    # Not run by run: neighbours in the shard are seldom neighbours in the batch.
    assert (np.diff(ids) == 1).mean() < 0.05


def test_bad_ranges_and_batch_sizes_are_refused_before_anything_is_read(tmp_path):
    shard = shard_of(10, tmp_path)
    for start, stop in ((-1, 5), (6, 5), (0, 11)):
        with pytest.raises(ValueError, match="within the shard's 10 rows"):
            shard.windows(2, start=start, stop=stop)
    with pytest.raises(ValueError, match="batch_size"):
        shard.windows(0)
    assert list(shard.windows(2, start=5, stop=5)) == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 150),
    st.integers(1, 40),
    st.integers(1, 100 * ROW),
    st.one_of(st.none(), st.integers(0, 9)),
)
def test_every_row_is_read_once_for_random_sizes(tmp_path, count, batch, size, seed):
    shard = shard_of(count, tmp_path)
    source = None if seed is None else rng(seed)
    windows = list(shard.windows(batch, rng=source, window_bytes=size))
    assert sorted(i for w in windows for i in ids_of(w)) == list(range(count))
    assert all(w.num_examples % batch == 0 for w in windows[:-1])
    assert [w.first_batch for w in windows] == list(
        itertools.accumulate([0, *(w.num_examples // batch for w in windows[:-1])])
    )[: len(windows)]


def test_cut_divides_runs_into_equal_groups():
    runs = [(0, 3), (10, 14), (20, 21), (30, 30), (40, 50)]
    assert list(cut(runs, 4)) == [
        [(0, 3), (10, 11)],
        [(11, 14), (20, 21)],
        [(40, 44)],
        [(44, 48)],
        [(48, 50)],
    ]
    assert list(cut([(0, 4)], 4)) == [[(0, 4)]]
    assert list(cut([], 4)) == []


def test_a_chunk_is_divided_into_pieces_of_a_given_size():
    rows = Chunk([np.zeros((10, 2), np.float32)], [np.arange(10)])
    assert rows.nbytes == 160
    pieces = list(rows.pieces(64))
    assert [p.num_examples for p in pieces] == [4, 4, 2]
    assert [p.y[0].tolist() for p in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [p.num_examples for p in rows.pieces(1)] == [1] * 10


def test_a_chunk_becomes_a_window_without_a_copy():
    rows = Chunk([np.arange(3)], [np.arange(3)], [np.ones(3)])
    window = rows.window()
    assert (window.order, window.key, window.first_batch, window.num_examples) == (None, None, 0, 3)
    assert [a is b for a, b in zip(window.x, rows.x, strict=True)] == [True]
    assert window.sample_weight[0] is rows.sample_weight[0]


def test_class_weights_match_a_calculation_by_hand():
    table = {0: 0.5, 2: 3.0}
    assert class_weights(np.array([0, 1, 2]), table).tolist() == [0.5, 1.0, 3.0]
    assert class_weights(np.array([[2.0], [0.0]]), table).tolist() == [3.0, 0.5]
    one_hot = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert class_weights(one_hot, table).tolist() == [3.0, 0.5, 1.0]
    assert class_weights(np.array([0.2, 1.9]), table).tolist() == [0.5, 3.0]
    assert class_weights(np.array([0]), table).dtype == np.float32


def test_class_weights_multiply_the_sample_weights_of_a_window():
    window = Window([np.arange(2)], [np.array([1, 0])], key=("path", 0, 2), first_batch=3)
    weighted = window.with_class_weight({1: 4.0})
    assert weighted.sample_weight[0].tolist() == [4.0, 1.0]
    assert weighted.first_batch == 3
    assert weighted.key is not None
    assert weighted.key != window.key
    assert window.sample_weight == []
    window.sample_weight = [np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)]
    assert window.with_class_weight({1: 4.0}).sample_weight[0].tolist() == [[4, 8], [3, 4]]
    window.key = None
    assert window.with_class_weight({1: 4.0}).key is None
    with pytest.raises(ValueError, match="2 targets"):
        Window([np.arange(1)], [np.arange(1)] * 2).with_class_weight({})
