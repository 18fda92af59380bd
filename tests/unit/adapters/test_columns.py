"""Arrow columns to numpy: every type a feature may have, and errors that name the row."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from kspark.adapters.columns import is_vector, to_numpy
from kspark.adapters.conform import Place
from kspark.adapters.sparse import row_bytes

PLACE = Place("Column 'c'", partition=2, first_row=100)

VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("size", pa.int32()),
        pa.field("indices", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("values", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ]
)


def dense(*values):
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def sparse(size, **entries):
    places = {int(k[1:]): v for k, v in entries.items()}
    return {"type": 0, "size": size, "indices": list(places), "values": list(places.values())}


def found(values, kind=None):
    return to_numpy(pa.array(values, kind), PLACE)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.int8(), np.int8),
        (pa.int64(), np.int64),
        (pa.uint16(), np.uint16),
        (pa.float16(), np.float16),
        (pa.float32(), np.float32),
        (pa.float64(), np.float64),
    ],
)
def test_numbers_keep_their_dtype(kind, dtype):
    array = to_numpy(pa.array(np.array([1, 2, 3], dtype), kind), PLACE)
    assert array.dtype == dtype
    assert array.tolist() == [1, 2, 3]


def test_booleans_decimals_and_text_are_converted():
    assert found([True, False]).tolist() == [True, False]
    assert found([True, False]).dtype == bool
    money = found([Decimal("1.25"), Decimal("-3.50")])
    assert (money.dtype, money.tolist()) == (np.float64, [1.25, -3.5])
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        words = found(["a", "", "ü"], kind)
        assert (words.dtype, words.tolist()) == (object, ["a", "", "ü"])


@pytest.mark.parametrize("list_of", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)])
def test_lists_become_matrices(list_of):
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    column = pa.array(rows, list_of(pa.float32()))
    np.testing.assert_array_equal(to_numpy(column, PLACE), rows)
    np.testing.assert_array_equal(to_numpy(column.slice(1, 1), PLACE), rows[1:2])


def test_nested_lists_and_lists_of_text_become_arrays():
    cube = np.arange(24).reshape(2, 3, 4)
    array = found(cube.tolist())
    assert array.dtype == np.int64
    np.testing.assert_array_equal(array, cube)
    words = found([["a", "b"], ["c", "d"]])
    assert (words.dtype, words.tolist()) == (object, [["a", "b"], ["c", "d"]])


def test_empty_lists_and_empty_columns_are_converted():
    assert found([[], []], pa.list_(pa.float64())).shape == (2, 0)
    assert found([], pa.float64()).shape == (0,)
    assert found([], pa.list_(pa.float64())).shape == (0, 0)
    assert found([], VECTOR).shape == (0, 0)


def test_fixed_shape_tensors_keep_their_shape():
    images = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    np.testing.assert_array_equal(to_numpy(column, PLACE), images)


def test_dense_vectors_become_a_matrix():
    np.testing.assert_array_equal(found([dense(1, 2), dense(3, 4)], VECTOR), [[1, 2], [3, 4]])


def test_sparse_vectors_become_a_dense_matrix():
    rows = [sparse(4, _1=5.0, _3=7.0), sparse(4), sparse(4, _0=-1.0)]
    expected = [[0, 5, 0, 7], [0, 0, 0, 0], [-1, 0, 0, 0]]
    np.testing.assert_array_equal(found(rows, VECTOR), expected)


def test_dense_and_sparse_vectors_can_be_mixed():
    rows = [sparse(3, _2=5.0), dense(1, 2, 3), sparse(3), dense(0, 0, 9), sparse(3, _0=4.0, _1=6.0)]
    expected = [[0, 0, 5], [1, 2, 3], [0, 0, 0], [0, 0, 9], [4, 6, 0]]
    column = pa.array(rows, VECTOR)
    np.testing.assert_array_equal(to_numpy(column, PLACE), expected)
    for start, count in ((1, 3), (2, 1), (4, 1), (0, 2)):
        part = to_numpy(column.slice(start, count), PLACE)
        np.testing.assert_array_equal(part, expected[start : start + count])


def test_arrays_of_vectors_become_a_three_dimensional_array():
    rows = [[dense(1, 2), sparse(2, _1=3.0)], [sparse(2), dense(4, 5)]]
    np.testing.assert_array_equal(
        found(rows, pa.list_(VECTOR)), [[[1, 2], [0, 3]], [[0, 0], [4, 5]]]
    )


def test_only_structs_with_the_fields_of_spark_vectors_are_vectors():
    assert is_vector(VECTOR)
    assert not is_vector(pa.struct([pa.field("values", pa.list_(pa.float64()))]))
    assert not is_vector(pa.float64())


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([1.0, None], None, "no nulls. Received: null in row 101 of partition 2"),
        ([[1.0], None], None, "no nulls.* row 101 "),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, None]], None, "no nulls.* row 102 "),
        ([[[1, 2]], [[3, None]]], None, "no nulls.* row 101 "),
        ([dense(1), None], VECTOR, "no nulls.* row 101 "),
        ([[1.0, 2.0], [3.0]], None, "one length, 2 as in row 100. Received: length 1 in row 101 "),
        (
            [[[1], [2]], [[3], []]],
            None,
            "one length, 1 as in row 100. Received: length 0 in row 101 ",
        ),
        ([dense(1, 2), dense(1, 2), dense(1)], VECTOR, "one length, 2 .* length 1 in row 102 "),
        ([sparse(3), sparse(4)], VECTOR, "one length, 3 .* length 4 in row 101 "),
        ([sparse(3), dense(1, 2)], VECTOR, "one length, 3 .* length 2 in row 101 "),
        ([1, 2], pa.date32(), "numbers or text. Received: values of type date32"),
        ([{"a": 1}], None, "values of type struct"),
        ([[1]], pa.list_(pa.timestamp("us")), "values of type timestamp"),
    ],
)
def test_errors_name_column_row_and_partition(values, kind, words):
    with pytest.raises(ValueError, match=f"^Column 'c' must hold .*{words}"):
        found(values, kind)


def test_bytes_per_row_count_sparse_vectors_in_full():
    assert row_bytes(pa.array([1.0, 2.0])) == 8
    vectors = pa.array([sparse(1000, _1=1.0), sparse(1000)], VECTOR)
    assert row_bytes(vectors, dense=True) == 8000
    assert row_bytes(vectors) == (8 + 4) / 2 + 8
    arrays = pa.array([[sparse(1000, _1=1.0), sparse(1000)], [sparse(1000)] * 2], pa.list_(VECTOR))
    assert row_bytes(arrays) == 16000
    assert row_bytes(arrays.slice(1, 1)) == 16000
    assert row_bytes(pa.array([[[1.0, 2.0]], [[3.0, 4.0]]])) >= 16
    assert row_bytes(pa.array([dense(*[0.0] * 50)], VECTOR)) >= 400
    assert row_bytes(pa.array([], VECTOR)) == 0


def test_bytes_are_objects():
    assert found([b"a\0", b""], pa.binary()).tolist() == [b"a\0", b""]
