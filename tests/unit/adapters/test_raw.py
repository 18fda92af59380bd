"""Features of any values and shapes, as `preprocess` gets them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import Columns
from kspark.adapters.conform import Place, conform, stack
from kspark.adapters.feeds import feature_names, plan_frame
from kspark.adapters.tables import with_names
from kspark.shards import RAW, ArraySpec, InputSpec, raw_arrays

PLACE = Place("`x`")


def raw(values):
    return conform(values, ArraySpec("x", None, RAW), "float32", PLACE)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "bool", "int64"])
def test_numbers_keep_their_dtype_and_shape(dtype):
    values = np.ones((2, 3, 1), dtype)
    assert raw(values) is values


def test_text_and_bytes_are_objects():
    assert raw(np.array(["a", "b"])).tolist() == ["a", "b"]
    assert raw(np.array([b"a", b"b"])).tolist() == [b"a", b"b"]
    assert raw(np.array([b"a", b""], object)).tolist() == [b"a", b""]
    assert raw(np.array([1, 2], object)).dtype == np.int64
    assert stack([bytearray(b"a\0"), b"b"], PLACE).tolist() == [b"a\0", b"b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([b"a", "b"], object), "numbers, or text. Received: bytes in row 0"),
        (np.array(["a", None], object), "Received: null|Received: str"),
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
