"""Writing a shard: the files, the handle, and what a failure leaves behind."""

from __future__ import annotations

import os
import stat
import weakref

import numpy as np
import pytest

from kspark.shards import (
    ArraySpec,
    Chunk,
    InputSpec,
    LabelStats,
    Shard,
    ShardHandle,
    SpoolMissingError,
    StoredArray,
    merge_label_stats,
    remove_spools,
    spool,
    spool_directory,
)
from kspark.shards.marks import MARK


@pytest.fixture(autouse=True)
def local_dirs(tmp_path, monkeypatch):
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    monkeypatch.setenv("SPARK_LOCAL_DIRS", ",".join(folders))
    return folders


def chunk(*x, y=(), w=()):
    return Chunk([np.asarray(a) for a in x], [np.asarray(a) for a in y], [np.asarray(a) for a in w])


def files_under(folder):
    return sorted(name for _, _, names in os.walk(folder) for name in names)


def test_several_arrays_in_several_chunks_survive_a_round_trip():
    images = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    ids = np.array([[7], [1], [2], [9], [4]], np.int64)
    flags = np.array([True, False, True, True, False])
    weights = np.array([0.5, 1, 2, 3, 4], np.float32)
    parts = [slice(0, 2), slice(2, 5)]
    handle = spool(
        (chunk(images[p], ids[p], y=[flags[p]], w=[weights[p]]) for p in parts), 3, "run"
    )
    rows = Shard.open(handle).read()
    for found, expected in zip(rows.arrays, (images, ids, flags, weights), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert (handle.index, handle.num_examples) == (3, 5)
    assert [s.shape for s in handle.arrays] == [(2, 3), (1,), (), ()]
    assert [s.dtype for s in handle.arrays] == ["float32", "int64", "bool", "float32"]
    assert handle.nbytes == 5 * (24 + 8 + 1 + 4)


def test_names_come_from_the_spec_or_are_numbered():
    spec = InputSpec((ArraySpec("user"), ArraySpec("item")), (ArraySpec("rating"),))
    rows = chunk([1], [2], y=[[3]], w=[[4]])
    named = spool([rows], 0, "run", spec=spec)
    assert [s.name for s in named.arrays] == ["user", "item", "rating", "sample_weight0"]
    bare = spool([rows], 0, "run")
    assert [s.name for s in bare.arrays] == ["x0", "x1", "y0", "sample_weight0"]


def test_non_contiguous_and_big_endian_arrays_are_stored_by_value():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    handle = spool([chunk(matrix.T, matrix.T.astype(">f8"))], 0, "run")
    left, right = Shard.open(handle).read().x
    np.testing.assert_array_equal(left, matrix.T)
    np.testing.assert_array_equal(right, matrix.T)


def test_half_floats_and_text_survive_a_round_trip():
    words = np.array([["a", "ü"], ["", "long " * 9]], object)
    handle = spool([chunk(np.array([1.5, 2.5], np.float16), words)], 0, "run")
    assert [s.dtype for s in handle.x] == ["float16", "string"]
    half, text = Shard.open(handle).read().x
    assert half.tolist() == [1.5, 2.5]
    assert text.dtype == object
    assert text.tolist() == words.tolist()


def test_text_is_read_across_record_batches():
    words = np.array([f"w{i}" for i in range(10_000)], object)
    handle = spool((chunk(words[i : i + 999]) for i in range(0, 10_000, 999)), 0, "run")
    shard = Shard.open(handle)
    for start, stop in ((0, 10_000), (4095, 4097), (4096, 8192), (8191, 9999), (9999, 10_000)):
        assert shard.read(start, stop).x[0].tolist() == words[start:stop].tolist()


def test_integers_widen_when_floats_follow():
    chunks = [chunk(np.array([1, 2])), chunk(np.array([2.5], np.float32)), chunk(np.array([7]))]
    handle = spool(chunks, 0, "run")
    assert handle.x[0].dtype == "float32"
    assert Shard.open(handle).read().x[0].tolist() == [1, 2, 2.5, 7]
    assert files_under(handle.path) == ["x0.bin"]


def test_small_integers_widen_to_a_common_type():
    handle = spool([chunk(np.array([200], np.uint8)), chunk(np.array([-1], np.int16))], 0, "run")
    assert handle.x[0].dtype == "int16"
    assert Shard.open(handle).read().x[0].tolist() == [200, -1]


def test_an_empty_partition_becomes_an_empty_shard():
    handle = spool([], 4, "run")
    assert handle.num_examples == 0
    assert handle.arrays == ()
    shard = Shard.open(ShardHandle.from_json(handle.to_json()))
    assert list(shard.windows(8)) == []
    assert shard.read().num_examples == 0


def test_handle_survives_json():
    rows = chunk(
        [1.0, np.inf], np.array(["a", "b"], object), y=[[0, 3], np.array(["c", "d"], object)]
    )
    handle = spool([rows], 2, "run")
    assert ShardHandle.from_json(handle.to_json()) == handle
    assert handle.stats[1] is None
    assert handle.to_json().startswith(b"{")
    assert not handle.to_json().startswith(b'{"failure"')


def test_label_statistics_describe_range_and_type():
    def stats(*parts):
        return spool([chunk([0] * len(p), y=[np.asarray(p)]) for p in parts], 0, "run").stats

    assert stats([3, 0], [-1, 2]) == (LabelStats(-1.0, 3.0, True, True),)
    assert stats([1.0, 2.0], [2.5]) == (LabelStats(1.0, 2.5, False, True),)
    assert stats([1.0, np.nan], [4.0]) == (LabelStats(1.0, 4.0, True, False),)
    assert stats([1.0, -np.inf, np.nan]) == (LabelStats(1.0, 1.0, True, False),)
    assert stats([np.nan]) == (LabelStats(None, None, True, False),)
    assert stats([True, False]) == (LabelStats(0.0, 1.0, True, True),)


def test_statistics_cover_labels_only_and_merge_over_shards():
    first = spool([chunk([99], y=[[1], [0.5]], w=[[7.5]])], 0, "run")
    empty = spool([], 1, "run")
    last = spool([chunk([99], y=[[5], [np.nan]], w=[[7.5]])], 2, "run")
    assert len(first.stats) == 2
    assert merge_label_stats([empty, first, empty, last]) == (
        LabelStats(1.0, 5.0, True, True),
        LabelStats(0.5, 0.5, False, False),
    )
    assert merge_label_stats([empty]) == ()
    assert merge_label_stats([spool([chunk([1])], 0, "run")]) == ()


def test_merged_statistics_of_text_are_none():
    text = spool([chunk([1], y=[np.array(["a"], object)])], 0, "run")
    assert merge_label_stats([text, text]) == (None,)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (chunk(np.zeros((2, 4))), r"same shape.*\(3,\) up to row 2, then \(4,\)"),
        (chunk(np.zeros((2, 3)), [1, 2]), "1 arrays of x up to row 2, then 2"),
        (chunk(np.zeros((2, 3)), y=[[1, 2]]), "0 arrays of y up to row 2, then 1"),
        (chunk(np.full((2, 3), "a", object)), "must be numbers.*object from row 2"),
        (chunk(np.full((2, 3), 1j)), "must be numbers.*complex128 from row 2"),
    ],
)
def test_chunks_that_do_not_agree_are_refused(second, words):
    with pytest.raises(ValueError, match=words):
        spool([chunk(np.zeros((2, 3))), second], 0, "run")


def test_arrays_must_be_numbers_or_text():
    with pytest.raises(ValueError, match="must be numbers.*<U1"):
        spool([chunk(["a", "b"])], 0, "run")
    with pytest.raises(ValueError, match="must be text.*int64 from row 1"):
        spool([chunk(np.array(["a"], object)), chunk(np.array([1]))], 0, "run")


def test_arrays_of_a_chunk_must_be_equally_long():
    with pytest.raises(ValueError, match=r"arrays of equal length.*\(2,\), \(3,\)"):
        spool([chunk([1, 2], y=[[1, 2, 3]])], 0, "run")


def test_a_failed_attempt_leaves_nothing_behind(local_dirs):
    def chunks():
        yield chunk([1])
        raise RuntimeError("the data source broke")

    with pytest.raises(RuntimeError, match="data source"):
        spool(chunks(), 0, "run")
    assert os.listdir(spool_directory("run", 0)) == [MARK]


def test_a_shard_appears_only_when_it_is_complete():
    seen = []

    def chunks():
        yield chunk([1])
        seen.extend(n for n in os.listdir(spool_directory("run", 0)) if n.startswith("shard"))
        yield chunk([2])

    handle = spool(chunks(), 0, "run")
    assert seen == []
    assert set(os.listdir(spool_directory("run", 0))) == {MARK, os.path.basename(handle.path)}


def test_two_attempts_of_one_task_write_separate_shards():
    first, second = (spool([chunk([n])], 0, "run") for n in (1, 2))
    assert first.path != second.path
    assert Shard.open(first).read().x[0].tolist() == [1]
    Shard.remove(first)
    assert Shard.open(second).read().x[0].tolist() == [2]


def test_chunks_are_freed_after_they_are_written():
    alive = []

    def chunks():
        for _ in range(3):
            rows = chunk(np.zeros(10))
            alive.append(weakref.ref(rows))
            yield rows
            del rows
            assert sum(ref() is not None for ref in alive) <= 1

    assert spool(chunks(), 0, "run").num_examples == 30


def test_shards_are_spread_over_the_local_directories(local_dirs):
    paths = [spool([chunk([1])], index, "run").path for index in range(4)]
    assert [p.startswith(local_dirs[i % 2]) for i, p in enumerate(paths)] == [True] * 4
    other = spool([chunk([1])], 0, "other")
    remove_spools("run")
    assert not any(os.path.exists(p) for p in paths)
    assert os.path.exists(other.path)
    remove_spools("run")


def test_only_the_owner_can_access_the_files():
    handle = spool([chunk([1])], 0, "run")
    for path in (handle.path, os.path.dirname(handle.path)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_the_temporary_directory_is_used_without_spark(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARK_LOCAL_DIRS")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "c"))
    assert spool_directory("run", 5) == str(tmp_path / "c" / "kspark-run")


def test_a_given_directory_is_used(tmp_path):
    handle = spool([chunk([1])], 0, "run", directory=str(tmp_path / "here"))
    assert os.path.dirname(handle.path) == str(tmp_path / "here")


@pytest.mark.parametrize("run_id", ["", "..", ".", "a/b", "a b", "x" * 129, "../x"])
def test_a_run_id_cannot_be_a_path(run_id):
    with pytest.raises(ValueError, match="run_id"):
        spool_directory(run_id)


def test_missing_and_truncated_files_raise_an_error():
    handle = spool([chunk(np.arange(10)), chunk(np.arange(10))], 6, "run")
    path = os.path.join(handle.path, "x0.bin")
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(SpoolMissingError, match=f"Shard 6 .* on host {handle.host}"):
        Shard.open(handle)
    with pytest.raises(SpoolMissingError, match="no longer complete"):
        Shard(handle).read(5, 20)
    os.unlink(path)
    with pytest.raises(FileNotFoundError):
        Shard.open(handle)
    with pytest.raises(SpoolMissingError, match="Shard 6"):
        list(Shard(handle).windows(4))


def test_state_is_kept_with_the_run_when_a_shard_is_deleted():
    shard = Shard.open(spool([chunk([1])], 3, "run"))
    path = shard.state_path("optimizer")
    with open(path, "wb") as file:
        file.write(b"state")
    assert Shard.open(shard.handle).read().x[0].tolist() == [1]
    shard.delete()
    again = Shard.open(spool([chunk([1])], 3, "run"))
    assert again.handle.path != shard.handle.path
    assert again.state_path("optimizer") == path
    assert os.path.exists(path)
    assert Shard.open(spool([chunk([1])], 4, "run")).state_path("optimizer") != path
    remove_spools("run")
    assert not os.path.exists(path)
    for name in ("", ".", "..", "a/b", "../x"):
        with pytest.raises(ValueError, match="file name"):
            shard.state_path(name)


def test_memory_per_row_includes_the_size_of_python_strings():
    numbers = Shard.open(spool([chunk(np.zeros((4, 5), np.float32), [1, 2, 3, 4])], 0, "run"))
    assert numbers.row_bytes == 28
    words = Shard.open(spool([chunk(np.full((4, 2), "a", object))], 0, "run"))
    assert words.row_bytes > 2 * 64


def test_stored_array_knows_its_size():
    stored = StoredArray("x", "float32", (2, 3), "x0.bin", 0)
    assert stored.items == 6
    assert StoredArray("x", "float32", (), "x0.bin", 0).items == 1


def test_bytes_come_back_as_they_were(tmp_path):
    rows = np.array([b"a\0", b"", "é".encode("latin-1")], object)
    handle = spool([Chunk([rows]), Chunk([rows[::-1]])], 0, "bytes", directory=str(tmp_path))
    assert handle.x[0].dtype == "bytes"
    found = Shard.open(handle).read().x[0]
    assert found.tolist() == [*rows.tolist(), *rows[::-1].tolist()]
