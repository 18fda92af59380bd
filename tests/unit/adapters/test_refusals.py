"""Data of other kinds is refused with the way to convert it, and never printed."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark.adapters import Columns, adapt
from kspark.adapters.refusals import plain_array, refused, shown, way_out
from kspark.shards import ArraySpec, InputSpec

SPARK = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
SPEC = InputSpec((ArraySpec("x", (3,), "float32"),), (ArraySpec("y"),))


class Batches(keras.utils.PyDataset):
    pass


def stand_in(module, name="Frame"):
    """An object of a type of another library, which cannot be printed."""
    return type(name, (), {"__module__": module, "__repr__": lambda self: 1 / 0})()


OTHERS = {
    "scipy": (lambda: stand_in("scipy.sparse._csr", "csr_matrix"), "`.toarray()`"),
    "pandas on Spark": (lambda: stand_in("pyspark.pandas.frame", "DataFrame"), "`.to_spark()`"),
    "polars": (lambda: stand_in("polars.dataframe.frame", "DataFrame"), "`.to_arrow()`"),
    "polars, lazy": (lambda: stand_in("polars.lazyframe.frame", "LazyFrame"), "`.collect()`"),
    "dask": (lambda: stand_in("dask.array.core", "Array"), "`.compute()`"),
    "loader": (lambda: stand_in("torch.utils.data", "DataLoader"), "`np.concatenate`"),
    "dataset": (
        lambda: tf.data.Dataset.range(3).batch(2),
        "`np.concatenate(list(dataset.as_numpy_iterator()))`",
    ),
    "dataset of pairs": (
        lambda: tf.data.Dataset.from_tensor_slices((np.eye(3), np.ones(3))).batch(2),
        "`x, y = map(np.concatenate, zip(*dataset.as_numpy_iterator()))`",
    ),
    "dataset of dictionaries": (
        lambda: tf.data.Dataset.from_tensor_slices(({"a": np.eye(3)}, np.ones(3))).batch(2),
        "to one array for each input and each label",
    ),
    "sparse tensor": (lambda: tf.sparse.from_dense(np.eye(3)), "`tf.sparse.to_dense`"),
    "ragged tensor": (lambda: tf.ragged.constant([[1.0], [1.0, 2.0]]), "`.to_tensor()`"),
    "batches": (Batches, "`np.concatenate`"),
    "generator": (lambda: (row for row in np.eye(3)), "`np.stack(list(...))`"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("place", ["x", "y", "sample_weight"])
def test_other_kinds_are_refused_with_the_way_out(kind, place):
    make, advice = OTHERS[kind]
    data = {"x": np.eye(3), "y": np.ones(3), "sample_weight": None, place: make()}
    with pytest.raises(TypeError) as caught:
        adapt(SPARK, **data, spec=SPEC, columns=Columns())
    assert str(caught.value).startswith(f"`{place}` must be ")
    assert advice in str(caught.value)


def test_a_part_of_a_dictionary_is_refused_by_its_name():
    two = InputSpec((ArraySpec("a"), ArraySpec("b")))
    x = {"a": np.eye(3), "b": stand_in("scipy.sparse._csr")}
    with pytest.raises(TypeError, match=r"x\['b'\].*toarray"):
        adapt(SPARK, x, spec=two, columns=Columns())


def test_the_collected_dataset_equals_its_rows():
    """What the error for `tf.data` advises."""
    rows, labels = np.eye(3), np.arange(3)
    dataset = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(2)
    x, y = map(np.concatenate, zip(*dataset.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(x, rows)
    np.testing.assert_array_equal(y, labels)


def test_values_are_shown_and_objects_are_not():
    assert (shown(5), shown("a.csv"), shown(None)) == ("5", "'a.csv'", "None")
    assert shown(stand_in("pyspark.pandas.frame")) == "<pyspark.pandas.frame.Frame object>"
    assert str(refused("x", "an array", 5)) == "`x` must be an array. Received: x=5"


def test_data_frames_of_spark_as_labels_are_pointed_to_the_names_of_columns():
    assert "`label_col`" in way_out(stand_in("pyspark.sql.classic.dataframe"))


def test_a_series_of_polars_is_an_array():
    class Series:
        __module__ = "polars.series.series"

        def __array__(self, dtype=None, copy=None):
            return np.arange(3, dtype=dtype)

    assert plain_array(Series(), "y").tolist() == [0, 1, 2]


def test_rows_with_named_parts_are_to_be_passed_as_a_table():
    structured = np.zeros(4, dtype=[("a", "f4"), ("label", "i4")])
    for x in ([{"a": 1, "label": 0}] * 4, structured):
        with pytest.raises(ValueError, match=r"`y` must be labels .*`x=pandas.DataFrame\(rows\)`"):
            adapt(SPARK, x, spec=SPEC)
    with pytest.raises(ValueError, match=r"`y` must be labels .*Received: y=None$"):
        adapt(SPARK, np.zeros((4, 3)), spec=SPEC)
