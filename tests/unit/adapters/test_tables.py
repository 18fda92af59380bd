"""pandas DataFrames and pyarrow Tables on the driver, without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import Columns, adapt
from kspark.adapters.conform import Place, raw, stack
from kspark.adapters.tables import column_values
from kspark.shards import ArraySpec, InputSpec

SPARK = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
SPEC = InputSpec((ArraySpec("x", (3,), "float32"),), (ArraySpec("y"),))
IMAGE = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
LABELS = [0, 1]

CELLS = {
    "arrays": [np.array(row) for row in IMAGE],
    "lists": IMAGE,
    "tuples": [tuple(row) for row in IMAGE],
}


def chunk_of(x, y=None, spec=SPEC, **columns):
    return adapt(SPARK, x, y, spec=spec, columns=Columns(**columns))._chunk


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("make", [pd.DataFrame, pa.table])
def test_a_column_of_arrays_may_have_any_name(cells, make):
    if make is pa.table and cells == "tuples":
        cells = "lists"
    table = make({"image": CELLS[cells], "label": LABELS})
    assert chunk_of(table, features_col="image").x[0].tolist() == IMAGE
    features = table[["image"]] if make is pd.DataFrame else table.select(["image"])
    assert chunk_of(features, np.array(LABELS)).x[0].tolist() == IMAGE
    bare = InputSpec(SPEC.inputs)
    assert chunk_of(features, spec=bare).x[0].tolist() == IMAGE


def test_arrays_and_numbers_are_joined_side_by_side():
    table = pd.DataFrame({"n": [9, 8], "pair": [[1.0, 2.0], [3.0, 4.0]]})
    assert chunk_of(table, np.array(LABELS)).x[0].tolist() == [[9, 1, 2], [8, 3, 4]]


def test_each_input_gets_a_column():
    spec = InputSpec((ArraySpec("a", (1,)), ArraySpec("b", (2,))), (ArraySpec("y"),))
    table = pd.DataFrame({"a": [9, 8], "b": [[1.0, 2.0], [3.0, 4.0]]})
    chunk = chunk_of(table, np.array(LABELS), spec)
    assert [a.tolist() for a in chunk.x] == [[[9], [8]], [[1, 2], [3, 4]]]


def test_columns_of_nested_arrays_become_one_array():
    """As `toPandas` returns a column of arrays of arrays."""
    cells = np.empty(2, object)
    for i in range(2):
        cells[i] = np.empty(3, object)
        cells[i][:] = [np.array([1.0 * i, 2.0]) for _ in range(3)]
    spec = InputSpec((ArraySpec("x", (3, 2), "float32"),))
    table = pd.DataFrame({"x": cells})
    for columns in ({"features_col": "x"}, {}):
        assert chunk_of(table, spec=spec, **columns).x[0][1].tolist() == [[1, 2]] * 3
    cells[1][2] = np.array([1.0])
    with pytest.raises(ValueError, match="Column 'x' must hold examples of one shape.*in row 1"):
        chunk_of(table, spec=spec, features_col="x")


def test_a_series_or_a_vector_of_arrays_is_one_array():
    series = pd.Series(CELLS["arrays"])
    for x in (series, series.to_numpy()):
        assert chunk_of(x, pd.Series([[1, 0], [0, 1]])).x[0].tolist() == IMAGE
        assert chunk_of(x, pd.Series([[1, 0], [0, 1]])).y[0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"features_col": ["n", "t"]}, "^Column 't' must hold numbers. Received: text"),
        ({"features_col": ["n", "day"]}, "^Column 'day' must hold numbers. Received: datetime64"),
        ({"features_col": "n", "weight_col": "t"}, "^Column 't' must hold numbers"),
        ({"features_col": "n", "label_col": "q"}, "'q', which `label_col` names"),
        ({"features_col": "n", "weight_col": "q"}, "'q', which `weight_col` names"),
        ({"features_col": "q"}, "'q', which `features_col` names"),
    ],
)
def test_wrong_columns_are_named(columns, words):
    day = pd.to_datetime(["2020-01-01", "2020-01-02"])
    table = pd.DataFrame({"n": [1, 2], "t": ["a", "b"], "day": day, "label": LABELS})
    spec = InputSpec((ArraySpec("x", None, "float32"),), SPEC.targets)
    with pytest.raises(ValueError, match=words):
        chunk_of(table, spec=spec, **columns)


def test_weights_may_be_arrays_and_one_column_per_output():
    spec = InputSpec(SPEC.inputs, (ArraySpec("a"), ArraySpec("b")))
    table = pd.DataFrame({"x": IMAGE, "y": LABELS, "steps": [[1.0, 2.0], [3.0, 4.0]], "w": LABELS})
    wanted = [[[1, 2], [3, 4]], LABELS]
    for weights in (["steps", "w"], {"b": "w", "a": "steps"}):
        chunk = chunk_of(
            table, spec=spec, features_col="x", label_col=["y", "y"], weight_col=weights
        )
        assert [w.tolist() for w in chunk.sample_weight] == wanted


def test_columns_that_are_numbered_come_with_the_way_to_name_them():
    spec = InputSpec((ArraySpec("x", (2,), "float32"),), SPEC.targets)
    for width in (2, 30):
        table = pd.DataFrame(np.zeros((2, width))).assign(label=LABELS)
        with pytest.raises(ValueError, match=r"no column 'features'.*\.columns\.astype\(str\)"):
            chunk_of(table, spec=spec)
        with pytest.raises(ValueError, match=r"`features_col` must be .*astype\(str\)"):
            chunk_of(table, spec=spec, features_col=[0, 1])
    named = table.set_axis(table.columns.astype(str), axis=1)
    assert chunk_of(named, spec=spec, features_col=["0", "1"]).x[0].shape == (2, 2)


def test_text_beside_numbers_comes_with_the_dictionary_for_an_input_of_each():
    spec = InputSpec((ArraySpec("x", None, ""),), SPEC.targets)
    table = pd.DataFrame({"n": [1, 2], "t": ["a", "b"], "label": LABELS})
    words = (
        r"^Column 't' must hold numbers, .*pass a dictionary: `features_col=\{'n': 'n', 't': 't'\}`"
    )
    with pytest.raises(ValueError, match=words):
        chunk_of(table, spec=spec, features_col=["n", "t"])


@pytest.mark.parametrize(
    "values",
    [["a", float("nan"), "bc"], pd.array(["a", None, "bc"], dtype="string"), ["a", None, "bc"]],
)
def test_missing_text_is_null_and_not_the_word_nan(values):
    column = pd.Series(values)
    found = column_values(column, Place("Column 't'"), is_loose=True)
    assert found.tolist() == ["a", None, "bc"]


@pytest.mark.parametrize("values", [["a", 5], [["a", "b"], ["c", 5]]])
def test_numbers_among_text_stay_numbers(values):
    found = stack(values, Place("x"))
    assert found.dtype == object
    assert found.tolist() == values
    with pytest.raises(ValueError, match="must hold text as in row 0. Received: numbers in row"):
        raw(stack(values, Place("x"), is_loose=True), Place("x"))
