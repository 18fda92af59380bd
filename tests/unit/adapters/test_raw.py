"""Features of any values and shapes, as `preprocess` gets them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import Columns
from kspark.adapters.arrays import shaped
from kspark.adapters.batches import check_alike, kinds_of
from kspark.adapters.columns import to_numpy
from kspark.adapters.conform import Place, conform, stack
from kspark.adapters.feeds import feature_names, plan_frame
from kspark.adapters.loose import as_row, kinds_in
from kspark.adapters.tables import column_values, with_names
from kspark.shards import RAW, STORABLE, ArraySpec, Chunk, InputSpec, raw_arrays

PLACE = Place("`x`")


def raw(values):
    return conform(values, ArraySpec("x", None, RAW), "float32", PLACE)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "bool", "int64"])
def test_numbers_keep_their_dtype_and_shape(dtype):
    values = np.ones((2, 3, 1), dtype)
    assert raw(values) is values


def objects(*values):
    """An object array of one value per row."""
    return np.fromiter(values, object, len(values))


def listed(value):
    """A value without arrays, for comparisons."""
    return list(map(listed, value)) if isinstance(value, np.ndarray) else value


RAGGED = [
    [[1, 2], [3], []],
    [[1.5], None, [2.5, 3.5]],
    [[1, None], [2, 3]],
    [["a", "b"], ["c"]],
    ["a", None],
    [None, 1.5],
    [[[1, 2], [3, 4]], [[5, 6]]],
    [[[1, 2], [3]], [[4]]],
    [[["a"], None], None],
    [["a", "b"], []],
    [[], [b"a"]],
    [[["a"], []], []],
]


def test_an_empty_array_has_no_kind():
    assert kinds_in(np.zeros(0)) == kinds_in(objects()) == set()
    assert kinds_in(objects("a", np.zeros(0))) == {"text"}


def test_batches_of_one_length_are_alike_to_those_of_different_lengths():
    def kinds(*rows):
        return kinds_of(Chunk([raw(objects(*map(as_row, rows)))]))

    numbers, words = kinds([1, 2], [3]), kinds(["a", "b"], ["c"])
    for other in (kinds([1, 2]), kinds([]), kinds(None, [])):
        check_alike(numbers, other)
        check_alike(other, numbers)
    check_alike(words, kinds(["a"]))
    for first, other in ((numbers, words), (words, kinds([1])), (words, kinds([1], [2, 3]))):
        with pytest.raises(ValueError, match="the same kinds"):
            check_alike(first, other)


@pytest.mark.parametrize("values", RAGGED, ids=str)
def test_rows_of_different_shapes_are_one_object_each(values):
    """Of columns of Arrow and pandas, lists, and arrays of objects."""
    spec = InputSpec(raw_arrays(["a"]))
    table = pa.table({"a": pa.array(values)})
    plan = plan_frame(Columns("a", None), spec)
    (chunk,) = plan.chunks(table.to_batches()[0], None, 0)
    frame = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    found = [
        chunk.x[0],
        raw(stack(values, PLACE, is_loose=True)),
        raw(column_values(frame["a"], PLACE, is_loose=True)),
        *shaped(values, spec.inputs, "x", "float32"),
        *shaped(objects(*values), spec.inputs, "x", "float32"),
    ]
    for rows in found:
        assert rows.dtype == object and rows.ndim == 1
        assert listed(rows) == values
        arrays = [row for row in rows if isinstance(row, np.ndarray)]
        assert all(array.ndim == 2 for array in arrays) or values != RAGGED[6]


def test_rows_of_one_shape_stay_one_array():
    column = pa.array([[1, 2], [3, 4]], pa.list_(pa.int16()))
    assert to_numpy(column, PLACE, is_loose=True).dtype == np.int16
    assert raw(stack([[1, 2], [3, 4]], PLACE, is_loose=True)).shape == (2, 2)
    assert raw(np.array([[1, 2], [3, 4]], object)).dtype == np.int64


def test_floats_of_stored_rows_have_floatx():
    values = objects(np.array([1.5]), None, np.array([1, 2]))
    found = conform(values, ArraySpec("x", None, STORABLE), "float32", PLACE)
    assert [getattr(row, "dtype", None) for row in found] == ["float32", None, "int64"]


def test_text_and_bytes_are_objects():
    assert raw(np.array(["a", "b"])).tolist() == ["a", "b"]
    assert raw(np.array([b"a", b"b"])).tolist() == [b"a", b"b"]
    assert raw(np.array([b"a", b""], object)).tolist() == [b"a", b""]
    assert raw(np.array([1, 2], object)).dtype == np.int64
    assert stack([bytearray(b"a\0"), b"b"], PLACE).tolist() == [b"a\0", b"b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([b"a", "b"], object), "bytes as in row 0. Received: text in row 1"),
        (np.array([None, 1, "a"], object), "numbers as in row 0. Received: text in row 2"),
        (objects(np.array([1]), np.array(["a"], object)), "numbers as .*: text in row 1"),
        (objects(1, {"a": 1}), "or arrays of these. Received: dict in row 1.*DataFrame"),
        (objects(None, np.array(["2020"], "M8[Y]")), "Received: datetime64.Y. values in row 1"),
        (np.array(["2020-01-01"], "datetime64[D]"), "numbers, text or bytes. Received: datetime64"),
    ],
)
def test_other_values_are_refused(values, message):
    with pytest.raises(ValueError, match=f"`x` must hold .*({message})"):
        raw(values)


def test_bytes_are_refused_where_a_model_takes_numbers():
    with pytest.raises(ValueError, match="`x` must hold numbers, or text. Received: bytes"):
        conform(np.array([b"a"], object), ArraySpec("x", (), "float32"), "float32", PLACE)


def test_each_column_is_an_array_of_its_own():
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [b"p", b"q"]})
    for given in (["a", "b", "c"], {"a": "a", "b": "b", "c": "c"}):
        names = feature_names(given)
        plan = plan_frame(Columns(given, None), InputSpec(raw_arrays(names)))
        (chunk,) = plan.chunks(table.to_batches()[0], None, 0)
        assert [array.tolist() for array in chunk.x] == [[1, 2], ["x", "y"], [b"p", b"q"]]
    assert feature_names("a") == ("a",)
    with pytest.raises(ValueError, match="`features_col` must be names of columns, each once"):
        feature_names(["a", "a"])


def test_all_columns_of_a_table_without_labels_are_features():
    frame = pd.DataFrame({"a": [1], "b": [2]})
    for table in (frame, pa.Table.from_pandas(frame)):
        assert with_names(table, Columns(), bare=True).features_col == ["a", "b"]
        assert with_names(table, Columns(), bare=False).features_col == "features"
        assert with_names(table, Columns("a"), bare=True).features_col == "a"
    assert with_names({"a": [1]}, Columns(), bare=True) == Columns()
