"""Whatever kind of object comes as `x`: it is read as Keras reads it, or the error converts it."""

from __future__ import annotations

import asyncio
import collections
import csv
import datetime as dt
import io
import itertools
import sqlite3
from collections.abc import Iterator
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyspark.ml.linalg import DenseMatrix, SparseVector
from pyspark.sql import Row

from kspark.adapters import Columns, adapt, readable
from kspark.shards import ArraySpec, InputSpec
from kspark.spark_model.inputs import opened

SPARK = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
SPEC = InputSpec((ArraySpec("x", (3,), "float32"),), (ArraySpec("y"),))
SECRET = 4815162342
"""A value that no error may show."""

ROWS = np.arange(12, dtype="float64").reshape(4, 3)
SECRETS = np.full((4, 3), float(SECRET))
LABELS = np.arange(4)


def examples_of(x, y=LABELS, spec=SPEC):
    """What a call makes of `x` and `y` before it runs a job."""
    return adapt(SPARK, opened(readable(x), None, y), y, spec=spec, columns=Columns())


class Tensor:
    """Of a library that is not installed."""

    dtype = np.dtype("float64")

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array


class Torch(Tensor):
    """A tensor on another device that requires a gradient, as far as kspark asks."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("call detach first")

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.array)


READ = {
    "array": lambda: ROWS,
    "float16": lambda: ROWS.astype("float16"),
    "long double": lambda: ROWS.astype("longdouble"),
    "big endian": lambda: ROWS.astype(">f8"),
    "Fortran order": lambda: np.asfortranarray(ROWS),
    "matrix": lambda: np.asmatrix(ROWS),
    "array of objects": lambda: ROWS.astype(object),
    "masked, but nothing is": lambda: np.ma.masked_array(ROWS),
    "list of lists": lambda: ROWS.tolist(),
    "tuple of lists": lambda: tuple(ROWS.tolist()),
    "list of arrays": lambda: list(ROWS),
    "list of tuples": lambda: list(map(tuple, ROWS.tolist())),
    "list of an array": lambda: [ROWS],
    "list of Spark rows": lambda: [Row(*row) for row in ROWS.tolist()],
    "dictionary": lambda: {"x": ROWS},
    "dictionary of a list": lambda: {"x": ROWS.tolist()},
    "data frame": lambda: pd.DataFrame(ROWS),
    "data frame of nullable columns": lambda: pd.DataFrame(ROWS).astype("Int64"),
    "data frame of booleans and numbers": lambda: (
        pd.DataFrame(ROWS).assign(**{"0": True}).iloc[:, :3]
    ),
    "Arrow table": lambda: pa.table(dict(zip("abc", ROWS.T, strict=True))),
    "Arrow batch": lambda: pa.record_batch(list(ROWS.T), names=list("abc")),
    "TensorFlow": lambda: tf.constant(ROWS),
    "TensorFlow, bfloat16": lambda: tf.constant(ROWS, tf.bfloat16),
    "TensorFlow variable": lambda: tf.Variable(ROWS),
    "Keras variable": lambda: keras.Variable(ROWS),
    "another library's": lambda: Tensor(ROWS),
    "PyTorch, elsewhere": lambda: Torch(ROWS),
    "list of PyTorch, elsewhere": lambda: list(map(Torch, ROWS)),
}


@pytest.mark.parametrize("kind", READ)
def test_what_keras_reads_is_read(kind):
    (array,) = examples_of(READ[kind]()).first.x
    assert array.shape == (1, 3)
    np.testing.assert_array_equal(array[0], ROWS[0])


def test_series_are_columns_as_for_keras():
    one = InputSpec((ArraySpec("x", (1,), "float32"),), (ArraySpec("y"),))
    for series in (pd.Series(ROWS[:, 1]), pd.Series(ROWS[:, 1]).astype("category")):
        assert examples_of(series, spec=one).first.x[0].tolist() == [[1.0]]


def test_text_may_be_bytes():
    text = InputSpec((ArraySpec("x", (), "string"),), (ArraySpec("y"),))
    words = np.array(["one", "two", "three", "vier"])
    for values in (words, words.astype("S"), words.astype(object), words.tolist()):
        assert examples_of(values, spec=text).first.x[0].tolist() == ["one"]


def of_module(module, name, base=object, **members):
    """A stand-in for an object of another library. Nothing of it may be shown or run."""

    def fails(*arguments):
        raise AssertionError("the error runs or prints the data")

    hooks = {"__repr__": fails, "__len__": fails, "count": fails, "collect": fails, **members}
    return type(name, (base,), {"__module__": module, **hooks})()


async def later():
    yield SECRETS


def cursor():
    return sqlite3.connect(":memory:").execute("select 4815162342")


def dataset_on_disk(tmp_path):
    pq.write_table(pa.table({"a": SECRETS[:, 0]}), tmp_path / "a.parquet")
    return pyarrow.dataset.dataset(tmp_path / "a.parquet")


def symbolic():
    return keras.Input((3,))


def with_a_mask():
    return np.ma.masked_equal(np.append(SECRETS, [[0, 1, 2]], axis=0)[1:], 0)


STRUCTURED = np.array([(SECRET, 1.0)] * 4, dtype=[("a", "i8"), ("b", "f8")])

REFUSED = {
    # kind: what makes it, and what converts it
    "set": (lambda: set(SECRETS[0]), "pass a list"),
    "frozen set": (lambda: frozenset(SECRETS[0]), "pass a list"),
    "range": (lambda: range(SECRET, SECRET + 4), "`np.array(list(x))`"),
    "deque": (lambda: collections.deque(SECRETS), "`np.array(list(x))`"),
    "values of a dictionary": (lambda: {"a": SECRETS}.values(), "`np.array(list(x))`"),
    "bytes": (lambda: SECRETS.tobytes(), "`np.frombuffer(x, dtype)`"),
    "memory": (lambda: memoryview(SECRETS), "`np.frombuffer(x, dtype)`"),
    "list of dictionaries": (lambda: [{"a": SECRET}] * 4, "`pandas.DataFrame"),
    "dictionary of columns": (lambda: {"a": SECRETS, "b": SECRETS}, "`pandas.DataFrame(x)`"),
    "structured array": (lambda: STRUCTURED, "structured_to_unstructured`"),
    "masked array": (with_a_mask, "`np.ma.filled(x, 0)`"),
    "complex numbers": (lambda: SECRETS * 1j, "`np.stack([x.real, x.imag], axis=-1)`"),
    "times": (lambda: SECRETS.astype("datetime64[s]"), 'astype("int64")`'),
    "durations": (lambda: SECRETS.astype("timedelta64[s]"), '`.astype("int64")`'),
    "times of Python": (lambda: [[dt.datetime(2481, 5, 16)] * 3] * 4, 'astype("int64")`'),
    "missing values": (lambda: [[SECRET, None, 1]] * 4, "Received: null in row 0"),
    "number": (lambda: 5, "Received: x=5"),
    "nothing": (lambda: None, "Received: x=None"),
    "array without rows": (lambda: np.array(5.0), "an array with one row per example"),
    "function of the module": (lambda: np.ndarray, "must be"),
    "open file of text": (lambda: io.StringIO(str(SECRET)), "`pandas.read_csv(x)`"),
    "open file": (lambda: io.BytesIO(str(SECRET).encode()), "`pandas.read_csv(x)`"),
    "reader of CSV": (lambda: csv.reader([str(SECRET)]), "`pandas.read_csv(path)`"),
    "reader of named CSV": (lambda: csv.DictReader(["a", str(SECRET)]), "`pandas.read_csv(path)`"),
    "reader of pandas": (
        lambda: pd.read_csv(io.StringIO(f"a\n{SECRET}"), chunksize=1),
        "`pandas.concat(x)`",
    ),
    "cursor": (cursor, "`pandas.read_sql(query, connection)`"),
    "rows": (lambda: iter(SECRETS), "`np.stack(list(rows))`"),
    "rows of map": (lambda: map(np.asarray, SECRETS), "`np.stack(list(rows))`"),
    "rows of zip": (lambda: zip(SECRETS, [SECRET] * 4, strict=True), "map(np.stack, zip(*rows))"),
    "numbers": (lambda: iter([SECRET]), "`np.stack(list(rows))`"),
    "text": (lambda: iter([str(SECRET)]), "`np.stack(list(rows))`"),
    "batches of four": (lambda: iter([(SECRETS,) * 4]), "x, (x, y) or (x, y, sample_weight)"),
    "no batches": (lambda: iter([]), "at least one batch"),
    "endless batches": (
        lambda: tf.data.Dataset.from_tensors(SECRETS).repeat(),
        "`steps_per_epoch`",
    ),
    "single rows of tf.data": (
        lambda: tf.data.Dataset.from_tensor_slices(SECRETS[:, 0]),
        "`dataset.batch(32)`",
    ),
    "asynchronous batches": (later, "`[item async for item in x]`"),
    "ragged tensor": (lambda: tf.ragged.constant([[SECRET], [1, 2]]), "`.to_tensor()`"),
    "sparse tensor": (lambda: tf.sparse.from_dense(SECRETS), "`tf.sparse.to_dense`"),
    "ragged batches": (
        lambda: iter([tf.ragged.constant([[float(SECRET)], [1.0, 2.0]])]),
        "`.to_tensor()`",
    ),
    "symbolic tensor": (symbolic, "pass arrays"),
    "tensor of a function": (
        lambda: Tensor(None, NotImplementedError("is symbolic")),
        "cannot be read: is symbolic",
    ),
    "sparse vector": (lambda: SparseVector(3, {0: float(SECRET)}), "`.toArray()`"),
    "matrix of Spark": (lambda: DenseMatrix(4, 3, SECRETS.reshape(-1)), "`.toArray()`"),
    "row of Spark": (lambda: Row(a=SECRET, b=1), "`spark.createDataFrame([row])`"),
    "column of Spark": (lambda: of_module("pyspark.sql.column", "Column"), "`features_col`"),
    "groups of Spark": (lambda: of_module("pyspark.sql.group", "GroupedData"), "`.mean()`"),
    "broadcast": (lambda: of_module("pyspark.core.broadcast", "Broadcast"), "`.value`"),
    "groups of pandas": (lambda: pd.DataFrame(SECRETS).groupby(0), "`.mean()`"),
    "columns of times": (
        lambda: pd.DataFrame({"a": SECRETS[:, 0].astype("datetime64[s]"), "b": 1.0, "c": 1.0}),
        'astype("int64")`',
    ),
    "reader of Arrow": (
        lambda: pa.table({"a": SECRETS[:, 0]}).to_reader(),
        "`.read_all()`",
    ),
    "dask": (lambda: of_module("dask.array.core", "Array"), "`.compute()`"),
    "ray": (lambda: of_module("ray.data.dataset", "Dataset"), "`.to_pandas()`"),
    "datasets": (lambda: of_module("datasets.arrow_dataset", "Dataset"), "`.to_pandas()`"),
    "datasets, split": (
        lambda: of_module("datasets.dataset_dict", "DatasetDict", dict),
        '`x["train"].to_pandas()`',
    ),
    "datasets, streaming": (
        lambda: of_module("datasets.iterable_dataset", "IterableDataset"),
        "`pandas.DataFrame(x.take(1000))`",
    ),
    "xarray": (lambda: of_module("xarray.core.dataset", "Dataset"), "`.to_dataframe()`"),
    "modin": (
        lambda: of_module("modin.pandas.dataframe", "DataFrame", to_pandas=lambda self: None),
        "`.to_pandas()`",
    ),
    "cupy": (lambda: of_module("cupy", "ndarray"), "`.get()`"),
    "file of h5py": (lambda: of_module("h5py._hl.group", "Group"), '`x["name"]`'),
    "group of zarr": (lambda: of_module("zarr.core.group", "Group"), '`x["name"]`'),
    "image": (lambda: of_module("PIL.Image", "Image"), "`np.asarray(x)[None]`"),
    "torch, rows": (
        lambda: of_module("torch.utils.data.dataset", "Dataset"),
        "`torch.utils.data.DataLoader(x, batch_size=32)`",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_refused_with_the_line_that_converts_them(kind):
    make, advice = REFUSED[kind]
    x = make()
    y = None if isinstance(x, Iterator) else LABELS
    with pytest.raises((TypeError, ValueError)) as caught:
        examples_of(x, y)
    message = str(caught.value)
    assert "must be" in message or "must hold" in message
    assert advice in message
    assert str(SECRET) not in message and "4.815" not in message


def test_a_dataset_of_arrow_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`.to_table\(\)`"):
        examples_of(dataset_on_disk(tmp_path))


def test_paths_in_an_iterator_are_refused(tmp_path):
    dataset_on_disk(tmp_path)
    with pytest.raises(ValueError, match=r"`list\(paths\)`"):
        readable(tmp_path.glob("*.parquet"))


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.csv", "spark.read.csv(path, header=True, inferSchema=True)"),
        ("a.csv.gz", "spark.read.csv(path, header=True, inferSchema=True)"),
        ("a.json", "spark.read.json(path)"),
        ("a.tfrecord", "kspark.data.tfrecord(path, features)"),
        ("A.PNG", 'spark.read.format("image").load(folder)'),
        ("a.h5", "h5py.File(path)[name]"),
    ],
)
def test_other_files_are_refused_with_the_line_that_reads_them(tmp_path, name, reader):
    from kspark.files.table import ParquetFiles

    (tmp_path / name).write_text(f"a\n{SECRET}\n" * 10)
    with pytest.raises(ValueError) as caught:
        ParquetFiles.open([str(tmp_path / name)])
    assert f"Read it with `{reader}`, and pass the result" in str(caught.value)
    assert str(SECRET) not in str(caught.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda: SECRETS, "a batch of features alone"),
        (lambda: (SECRETS, LABELS, LABELS), "sample_weight"),
        (lambda: (SECRETS[:, :2], LABELS), r"examples of shape \(3,\)"),
        (lambda: (SECRETS, LABELS[:3]), "same number of rows"),
        (lambda: ({"z": SECRETS}, LABELS), r"keys \['x'\]"),
        (lambda: (SECRETS.astype(str), LABELS), "must hold numbers"),
    ],
)
def test_batches_of_another_structure_than_the_first_are_refused(second, message):
    with pytest.raises(ValueError, match=message) as caught:
        examples_of(iter([(ROWS, LABELS), second()]), None)
    assert str(SECRET) not in str(caught.value)


@pytest.mark.parametrize("place", ["y", "sample_weight"])
def test_labels_that_cannot_be_used_are_not_printed(place):
    arrays = {place: SECRETS[:, 0]}
    for x in (of_frame(), itertools.chain([(ROWS, LABELS)])):
        with pytest.raises(ValueError, match=f"`{place}` must be") as caught:
            adapt(SPARK, readable(x), **arrays, spec=SPEC, columns=Columns())
        assert "4.815" not in str(caught.value)


def of_frame():
    from kspark.files.table import ParquetFiles

    return ParquetFiles((), (), ())


def test_asynchronous_batches_can_be_collected_as_advised():
    async def collected():
        return [item async for item in later()]

    (batch,) = asyncio.run(collected())
    np.testing.assert_array_equal(batch, SECRETS)
