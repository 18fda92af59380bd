"""Rows of different shapes: on disk and back, beside rows of one shape, and in batches."""

import numpy as np
import pyarrow as pa
import pytest

from kspark.shards import RAGGED, Chunk, Shard, joined, spool
from kspark.shards.ragged import alike, as_rows, decoded, encoded, one_per_row
from kspark.shards.ragged_files import MAX_BLOCK, RaggedWriter, read_ragged
from kspark.shards.sparse import memory_of


@pytest.fixture(autouse=True)
def local_dirs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))


def objects(*values):
    return one_per_row(values, len(values))


def same(left, right):
    """Whether two values are equal, with dtypes and shapes."""
    if not isinstance(left, np.ndarray):
        return type(left) is type(right) and left == right
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == object:
        return all(map(same, left.flat, right.flat))
    return bool((left == right).all())


KINDS = {
    "numbers": objects(np.array([1, 2], "int16"), None, np.array([], "int16")),
    "matrices": objects(np.ones((2, 3), "float32"), np.zeros((1, 3), "float32")),
    "images": objects(np.ones((2, 3, 3), "uint8"), None, np.zeros((0, 2, 3), "uint8")),
    "matrices of two types": objects(np.ones((2, 3), "float32"), np.zeros((1, 3), "float32"), None),
    "lists of lists": objects(objects(np.array([1, 2]), np.array([3])), np.array([[4, 5]])),
    "text": objects(objects("a", None), objects(), None, objects("ab")),
    "bytes": objects(b"a\0", None),
    "one value": objects("a", None, "b"),
    "nulls": objects(None, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_back_as_they_were(kind):
    rows = KINDS[kind]
    found = decoded(encoded(rows))
    assert same(found, rows)
    handle = spool([Chunk([rows]), Chunk([rows[:1]])], 0, "run", is_loose=True)
    assert [one.dtype for one in handle.x] == [RAGGED]
    (read,) = Shard.open(handle).read().x
    assert same(read, np.concatenate([rows, rows[:1]]))


def test_whole_numbers_and_fractions_go_together_but_not_with_text():
    found = decoded(encoded(objects(np.array([1]), np.array([1.5, 2]))))
    assert [row.tolist() for row in found] == [[1.0], [1.5, 2.0]]
    with pytest.raises(ValueError, match="must be numbers that fit one type, all text or all"):
        encoded(objects(np.array([1]), objects("a")))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (np.arange(6, dtype="int32").reshape(3, 2), np.arange(3, dtype="int32").reshape(1, 3)),
        (np.arange(6, dtype="int16").reshape(3, 2), KINDS["numbers"]),
        (np.array(["a", "b"], object), KINDS["one value"]),
        (np.array([["a", "b"]], object), np.array([["a"]], object)),
        (np.array([1.0, 2.0]), objects(np.float64(3), None)),
    ],
)
def test_rows_of_one_shape_may_precede_others(first, then):
    count = 2 * MAX_BLOCK // len(first)
    chunks = [Chunk([first])] * count + [Chunk([then])] + [Chunk([first])] * count
    handle = spool(chunks, 0, "run", is_loose=True)
    expected = np.concatenate([as_rows(chunk.x[0]) for chunk in chunks])
    (read,) = Shard.open(handle).read().x
    assert same(read, expected)
    seen = [w.x[0] for w in Shard.open(handle).windows(8, window_bytes=2000)]
    assert len(seen) > 2
    assert same(np.concatenate(seen), expected)
    assert same(joined(chunks).x[0], expected)


def test_large_rows_are_stored_in_small_blocks_and_may_be_changed_in_place(tmp_path):
    rows = objects(*(np.full((n % 3 + 1, 100_000), n, "float32") for n in range(20)))
    writer = RaggedWriter(str(tmp_path / "rows"))
    writer.write(rows[:7])
    writer.write(rows[7:])
    writer.close()
    with pa.OSFile(str(tmp_path / "rows")) as source:
        assert pa.ipc.open_file(source).num_record_batches == 20
    found = read_ragged(str(tmp_path / "rows"), [(15, 18), (2, 4)])
    assert same(found, rows[[15, 16, 17, 2, 3]])
    found[0] += 1
    assert (found[0] == 16).all()


def test_other_rows_keep_their_one_shape():
    chunks = [Chunk([np.ones((2, 3))]), Chunk([np.ones((2, 4))])]
    with pytest.raises(ValueError, match="must have the same shape"):
        spool(chunks, 0, "run")
    chunks = [Chunk([np.ones(2)]), Chunk([np.array(["a"], object)])]
    with pytest.raises(ValueError, match="must be numbers"):
        spool(chunks, 0, "run", is_loose=True)
    with pytest.raises(ValueError, match="must be text"):
        spool(chunks[::-1], 0, "run", is_loose=True)


def test_a_batch_of_one_shape_is_one_array():
    assert alike(objects(np.array([1, 2]), np.array([3, 4]))).tolist() == [[1, 2], [3, 4]]
    assert alike(objects(np.int32(1), np.int32(2))).dtype == np.int32
    for rows in (objects(np.array([1]), None), objects("a", "b"), objects(1, "a"), objects()):
        assert alike(rows) is rows


@pytest.mark.parametrize(
    "rows",
    [
        ([2**70], [1, 2]),
        (np.array([2**64 - 1], "uint64"), np.array([-1, 2])),
        (np.ones(2, "longdouble"), np.ones(1)),
        (np.array([1]), np.array([[1]])),
    ],
    ids=str,
)
def test_numbers_that_arrow_does_not_hold_are_refused(rows):
    with pytest.raises(ValueError, match=r"must be numbers that fit one type, .*the same depth"):
        encoded(objects(*rows))


def test_memory_counts_the_arrays():
    assert memory_of(objects(*(np.zeros(1000) for _ in range(10)))) > 80_000
    assert memory_of(objects(objects(*["a"] * 1000))) > 50_000
