"""Sparse matrices and vectors become `SparseRows`, with the values of the dense array."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from pyspark.ml.linalg import Vectors
from pyspark.mllib.linalg import Vectors as OldVectors
from pyspark.mllib.regression import LabeledPoint

from kspark.adapters import Columns, adapt, readable
from kspark.adapters.base import CHUNK_BYTES
from kspark.adapters.columns import to_numpy
from kspark.adapters.conform import Place, conform
from kspark.adapters.feeds import plan_frame
from kspark.adapters.rdd import RowReader, cut_partition
from kspark.adapters.sparse import (
    compressed,
    is_matrix,
    row_bytes,
    rows_of_matrix,
    stack_rows,
    to_rows,
    with_first_rows,
)
from kspark.adapters.tables import head
from kspark.shards import ArraySpec, Chunk, InputSpec, Shard, SparseRows, dense, spool
from kspark.shards.spec import raw_arrays

WIDTH = 600
PLACE = Place("`x`", partition=2, first_row=100)
SPARK = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
SPEC = InputSpec((ArraySpec("x", (WIDTH,), "float32"),), (ArraySpec("y"),))
BARE = InputSpec(SPEC.inputs)

VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("size", pa.int32()),
        pa.field("indices", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("values", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ]
)


def array(count=20, seed=0, width=WIDTH):
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, width))
    return np.where(random.random((count, width)) < 4 / width, values, 0)


def vector(row, *, mllib=False):
    places = np.flatnonzero(row)
    return (OldVectors if mllib else Vectors).sparse(len(row), places, row[places])


def struct(row):
    places = np.flatnonzero(row)
    return {"type": 0, "size": len(row), "indices": places, "values": row[places]}


def dense_struct(row):
    return {"type": 1, "size": None, "indices": None, "values": row}


def column(rows, dense_at=()):
    kinds = [dense_struct if i in dense_at else struct for i in range(len(rows))]
    return pa.array([kind(row) for kind, row in zip(kinds, rows, strict=True)], VECTOR)


def assert_sparse(found, expected):
    assert isinstance(found, SparseRows)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.toarray(), expected, strict=True)


# Matrices of SciPy


@pytest.mark.parametrize("form", ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_every_format_of_scipy_gives_its_rows(form, kind):
    expected = array()
    matrix = getattr(sp, f"{form}_{kind}")(expected)
    assert is_matrix(matrix)
    assert_sparse(rows_of_matrix(matrix, PLACE), expected)


def test_a_csr_matrix_is_not_copied_and_stays_as_it_is():
    matrix = sp.csr_matrix(array())
    rows = rows_of_matrix(matrix, PLACE)
    assert np.shares_memory(rows.data, matrix.data)
    assert np.shares_memory(rows[3:7].indices, matrix.indices)


def test_an_entry_that_is_there_twice_is_the_sum():
    entries = (np.array([1.0, 2.0, 4.0]), np.array([5, 5, 2]), np.array([0, 3]))
    matrix = sp.csr_matrix(entries, shape=(1, WIDTH))
    rows = rows_of_matrix(matrix, PLACE)
    assert_sparse(rows, matrix.toarray())
    assert (rows.indices.tolist(), rows.data.tolist()) == ([2, 5], [4.0, 3.0])
    assert matrix.nnz == 3


def test_a_sparse_vector_of_scipy_is_refused_as_a_matrix():
    with pytest.raises(ValueError, match="`x` must hold a sparse matrix, with one row per exam"):
        rows_of_matrix(sp.coo_array(array()[0]), PLACE)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.coo_array, lambda a: [sp.csc_array(a)]])
def test_a_matrix_becomes_examples_with_the_values_of_the_array(make):
    expected = array().astype(np.float32)
    examples = adapt(SPARK, make(array()), np.arange(20), spec=SPEC)
    assert examples.num_examples == 20
    assert_sparse(examples.first.x[0], expected[:1])
    pieces = [list(examples._pieces(rows, start)) for start, rows in examples._slices()]
    found = [piece.x[0] for part in pieces for piece in part]
    assert [len(rows) for rows in found] == [10, 10]
    assert_sparse(found[1], expected[10:])


def test_matrices_are_inputs_beside_arrays_and_take_the_shape_of_the_input():
    a, b = array(6, width=24), np.arange(6)
    inputs = (ArraySpec("a", (2, 3, 4), "float64"), ArraySpec("b", (1,), "int32"))
    spec = InputSpec(inputs, (ArraySpec("y"),), x_structure="dict")
    for x in ({"a": sp.csr_array(a), "b": b}, [sp.lil_matrix(a), b]):
        first = adapt(SPARK, x, b, spec=spec).first.x
        assert_sparse(first[0], a[:1].reshape(1, 2, 3, 4))
        assert first[1].tolist() == [[0]]


def test_a_matrix_that_does_not_fit_is_refused():
    for x, match in (
        (array(width=WIDTH + 1), r"examples of shape \(600,\).*\(601,\)"),
        (array().astype(complex), "numbers. Received: complex128"),
    ):
        with pytest.raises(ValueError, match=match):
            adapt(SPARK, sp.csr_matrix(x), np.arange(20), spec=SPEC)
    with pytest.raises(ValueError, match=r"same number of rows. Received: \[20, 3\]"):
        adapt(SPARK, sp.csr_matrix(array()), np.arange(3), spec=SPEC)


def test_labels_and_weights_stay_dense():
    for name in ("y", "sample_weight"):
        data = {"x": array(), "y": np.arange(20), name: sp.csr_matrix(array())}
        with pytest.raises(TypeError, match=rf"`{name}` must be .*toarray\(\)"):
            adapt(SPARK, spec=SPEC, **data)


def test_fractions_for_integers_are_refused_with_their_row():
    rows = rows_of_matrix(sp.csr_matrix(np.diag([1, 2, 3, 4.5])), PLACE)
    rule = r"whole numbers that fit int32. Received: 4.5 in row 103 of partition 2"
    with pytest.raises(ValueError, match=rule):
        conform(rows, ArraySpec("x", (4,), "int32"), "float32", PLACE)
    assert conform(rows[:3], ArraySpec("x", (4,), "int32"), "float32", PLACE).dtype == np.int32
    with pytest.raises(ValueError, match="must hold text. Received: float64 values"):
        conform(rows, ArraySpec("x", (4,), "string"), "float32", PLACE)


def test_batches_may_be_matrices():
    batches = [(sp.csr_matrix(array(8, seed)), np.arange(8)) for seed in range(3)]
    stream = readable(iter(batches))
    assert stream.batch_size == 8
    np.testing.assert_array_equal(stream.example, array(8)[:1])
    examples = adapt(SPARK, stream, spec=SPEC)
    assert examples.num_examples == 24
    expected = np.concatenate([array(8, seed) for seed in range(3)]).astype(np.float32)
    assert_sparse(examples._chunk.x[0], expected)


def test_the_first_rows_of_matrices_stand_for_them():
    x = {"a": sp.coo_matrix(array()), "b": np.arange(20)}
    first = with_first_rows(x)
    np.testing.assert_array_equal(first["a"], array()[:1])
    assert first["b"] is x["b"]
    np.testing.assert_array_equal(with_first_rows([x["a"], x["b"]])[0], array()[:1])
    rows = [array(), array()]
    assert with_first_rows(rows) is rows


# Vectors of Spark in columns


@pytest.mark.parametrize("dense_at", [(), (0,), (3, 19)])
def test_a_column_of_vectors_stays_sparse_also_with_dense_ones_among_them(dense_at):
    expected = array()
    vectors = column(expected, dense_at)
    assert_sparse(to_rows(vectors, PLACE), expected)
    assert_sparse(to_rows(vectors.slice(4, 9), PLACE), expected[4:13])
    np.testing.assert_array_equal(to_numpy(vectors, PLACE), expected)


@pytest.mark.parametrize("rows", [array(width=20), np.ones((5, WIDTH))])
def test_vectors_that_are_narrow_or_full_become_dense(rows):
    found = to_rows(column(rows), PLACE)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, rows)
    assert row_bytes(column(rows)) >= rows[0].nbytes


def test_faults_in_wide_vectors_are_named_with_their_row():
    def found(change, row=3):
        rows = [struct(r) for r in array()]
        rows[row] = change(rows[row])
        return to_rows(pa.array(rows, VECTOR), PLACE)

    with pytest.raises(ValueError, match="no nulls. Received: null in row 103 of partition 2"):
        found(lambda row: None)
    rule = "examples of one length, 600 as in row 100. Received: length 601 in row 103"
    with pytest.raises(ValueError, match=rule):
        found(lambda row: {**row, "size": 601})
    for index in (600, -1):
        rule = f"vectors with indices from 0 to 599. Received: index {index} in row 103"
        with pytest.raises(ValueError, match=rule):
            found(lambda row, i=index: {**row, "indices": [i], "values": [1.0]})


def test_chunks_of_columns_are_bounded_by_the_bytes_that_they_take():
    count, width = 200, 1 << 18
    vectors = column(array(1, width=width)).take(pa.array(np.zeros(count, int)))
    rows = pa.RecordBatch.from_arrays([vectors, pa.array(np.arange(count))], ["features", "label"])
    plan = plan_frame(Columns("features", "label"), InputSpec((ArraySpec("x"),), SPEC.targets))
    (chunk,) = plan.chunks(rows, 0, 0)
    assert isinstance(chunk.x[0], SparseRows)
    assert chunk.nbytes < CHUNK_BYTES < chunk.x[0].dense_nbytes
    labels = pa.RecordBatch.from_arrays([pa.array(np.arange(count)), vectors], ["label", "v"])
    plan = plan_frame(Columns("label", "v"), InputSpec((ArraySpec("x"),), SPEC.targets))
    part = next(plan.chunks(labels, 0, 0))
    assert isinstance(part.y[0], np.ndarray)
    assert part.nbytes <= CHUNK_BYTES


def test_sparse_rows_among_nulls_are_made_dense_in_chunks_of_bounded_bytes():
    """A function of the user gets them one by one, and there is no sparse form of a null."""
    expected = array(24, width=1 << 17)
    rows = [None if i == 5 else struct(row) for i, row in enumerate(expected)]
    batch = pa.RecordBatch.from_arrays([pa.array(rows, VECTOR)], ["features"])
    plan = plan_frame(Columns("features", None), InputSpec(raw_arrays(["features"])))
    chunks = list(plan.chunks(batch, 0, 0))
    assert len(chunks) == 24 // (CHUNK_BYTES // expected[0].nbytes)
    found = [row for chunk in chunks for row in dense(chunk.x[0])]
    for i, (row, values) in enumerate(zip(found, expected, strict=True)):
        assert row is None if i == 5 else np.array_equal(row, values)


def test_a_sparse_column_beside_numbers_stays_sparse():
    expected = array()
    columns = {"age": pa.array(np.arange(20)), "words": column(expected)}
    spec = InputSpec((ArraySpec("x", (WIDTH + 1,), "float32"),))
    for names in (["age", "words"], ["words", "age"]):
        parts = {"age": np.arange(20.0)[:, None], "words": expected}
        joined = np.concatenate([parts[n] for n in names], axis=1).astype(np.float32)
        batch = pa.RecordBatch.from_arrays([columns[n] for n in names], names)
        (chunk,) = plan_frame(Columns(names, None), spec).chunks(batch, 0, 0)
        assert_sparse(chunk.x[0], joined)


def test_tables_with_vectors_stay_sparse_on_the_driver():
    expected = array()
    vectors = [vector(row) for row in expected]
    columns = Columns("f", "label")
    for table in (
        pa.table({"f": column(expected), "label": np.arange(20)}),
        pd.DataFrame({"f": vectors, "label": np.arange(20)}),
    ):
        examples = adapt(SPARK, table, spec=SPEC, columns=columns)
        assert isinstance(examples._chunk.x[0], SparseRows)
        assert_sparse(examples.first.x[0], expected[:1].astype(np.float32))
    assert_sparse(adapt(SPARK, vectors, np.arange(20), spec=SPEC)._chunk.x[0], expected)


# Rows of RDDs


@pytest.mark.parametrize("mllib", [False, True])
def test_rows_with_vectors_stay_sparse(mllib):
    expected = array()
    found = [(vector(row, mllib=mllib), i) for i, row in enumerate(expected)]
    found[4] = ((OldVectors if mllib else Vectors).dense(expected[4]), 4)
    (chunk,) = RowReader(SPEC, 0)(iter(found))
    assert_sparse(chunk.x[0], expected.astype(np.float32))
    assert chunk.y[0].tolist() == list(range(20))
    if mllib:
        points = [LabeledPoint(i, v) for v, i in found]
        (chunk,) = RowReader(SPEC, 0)(iter(points))
        assert_sparse(chunk.x[0], expected.astype(np.float32))


def test_rows_may_be_matrices_of_one_row():
    expected = array(3)
    rows = list(sp.csr_matrix(expected))
    assert_sparse(stack_rows(rows, PLACE), expected)
    with pytest.raises(ValueError, match="sparse matrices of one row"):
        stack_rows([sp.csr_matrix(expected)], PLACE)


def test_rows_that_are_narrow_or_of_several_widths():
    narrow = array(5, width=9)
    found = stack_rows([vector(row) for row in narrow], PLACE)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, narrow)
    with pytest.raises(
        ValueError, match="length, 600 as in row 100. Received: length 9 in row 101"
    ):
        stack_rows([vector(array()[0]), vector(narrow[0])], PLACE)


def test_pieces_of_rows_travel_without_the_class():
    rows = [(vector(row), i) for i, row in enumerate(array())]
    pieces = [piece for _, piece in cut_partition(SPEC, 2, 0, iter(rows))]
    assert all(isinstance(piece[0][0], tuple) for piece in pieces)
    found = [Chunk.of_block(piece).x[0] for piece in pieces]
    assert_sparse(found[1], array()[10:].astype(np.float32))


def test_what_the_driver_spools_for_the_tasks_is_sparse():
    handle = spool([Chunk([compressed(sp.csr_matrix(array()), PLACE)])], 0, "run")
    try:
        assert handle.x[0].entries == np.count_nonzero(array())
        np.testing.assert_array_equal(dense(Shard.open(handle).read().x[0]), array())
    finally:
        Shard.remove(handle)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_every_format_is_read_as_features_as_a_part_and_in_batches(form):
    matrix = sp.random(6, WIDTH, 0.01, random_state=0).asformat(form)
    expected, labels = matrix.toarray(), np.arange(6)
    examples = adapt(SPARK, matrix, labels, spec=SPEC)
    np.testing.assert_array_equal(dense(examples._chunk.x[0]), expected)
    np.testing.assert_array_equal(head(matrix), expected[:1])
    for parts in ({"a": matrix, "b": expected}, [matrix, expected], (matrix, expected)):
        first = head(parts, 2)
        for part in first.values() if isinstance(first, dict) else first:
            np.testing.assert_array_equal(part, expected[:1])
    stream = readable(iter([((matrix, expected), labels)]))
    for part in stream.example:
        np.testing.assert_array_equal(part, expected[:1])


@pytest.mark.parametrize("count", [1, 4])
def test_a_list_of_matrices_of_one_row_has_an_example_in_each(count):
    matrix = sp.random(4, WIDTH, 0.01, "csr", random_state=0)
    rows = [matrix[i] for i in range(count)]
    found = adapt(SPARK, rows, spec=BARE)._chunk.x[0]
    np.testing.assert_array_equal(dense(found), matrix[:count].toarray())
    np.testing.assert_array_equal(head(rows), matrix[:1].toarray())


def test_lists_of_other_matrices_are_refused():
    matrix = sp.random(4, WIDTH, 0.01, "csr", random_state=0)
    with pytest.raises(ValueError, match="must hold sparse matrices of one row"):
        adapt(SPARK, [matrix, matrix], spec=BARE)
    with pytest.raises(ValueError, match="without sparse matrices among them"):
        adapt(SPARK, [matrix[0], np.zeros((1, WIDTH))], spec=BARE)
