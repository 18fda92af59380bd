"""Data that gives batches once is written to files and used as arrays."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import tempfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark.adapters import Columns, Stream, adapt, readable
from kspark.adapters.tensors import host_array
from kspark.cluster.interrupts import defers_interrupts
from kspark.shards import ArraySpec, InputSpec

SPARK = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
SPEC = InputSpec((ArraySpec("x", (3,), "float32"),), (ArraySpec("y"),))
BARE = InputSpec(SPEC.inputs)
TWO = InputSpec((ArraySpec("a", (3,), "float32"), ArraySpec("b", (1,), "int32")), SPEC.targets)
X = np.arange(30, dtype="float32").reshape(10, 3)
Y = np.arange(10, dtype="int64")
W = np.linspace(1, 2, 10).astype("float32")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, number):
        rows = slice(4 * number, 4 * number + 4)
        return X[rows], Y[rows]


class Endless(Batches):
    @property
    def num_batches(self):
        return None


def batches(size=4, parts=(X, Y)):
    for start in range(0, 10, size):
        yield tuple(part[start : start + size] for part in parts)


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(4)


class Tensor:
    """Stands for a tensor of PyTorch on another device, with a gradient."""

    def __init__(self, array, dtype="torch.float32", place="cuda"):
        self.array, self.dtype, self.place, self.shape = array, dtype, place, array.shape

    def detach(self):
        return Tensor(self.array, self.dtype, self.place + " detached")

    def cpu(self):
        return Tensor(self.array, self.dtype, self.place + " cpu")

    def float(self):
        return Tensor(self.array, "torch.float32", self.place)

    def __array__(self, dtype=None, copy=None):
        if self.place != "cuda detached cpu" or self.dtype != "torch.float32":
            raise TypeError(f"cannot be converted: {self.place}, {self.dtype}")
        return self.array


def loader():
    """A `DataLoader`, whose batches are lists."""
    kind = type("DataLoader", (), {"__module__": "torch.utils.data.dataloader"})
    kind.__iter__ = lambda self: ([Tensor(p) for p in batch] for batch in batches())
    return kind()


def rows_of(data, spec=SPEC, **more):
    chunk = adapt(SPARK, readable(data), spec=spec, columns=Columns(), **more)._chunk
    return [array.copy() for array in chunk.arrays]


@pytest.mark.parametrize(
    "make", [lambda: dataset(X, Y), Batches, batches, loader], ids=["tf.data", "keras", "rows", "t"]
)
def test_all_kinds_give_their_rows_in_order(make):
    x, y = rows_of(make())
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_weights_come_with_the_batches():
    for data in (dataset(X, Y, W), batches(3, (X, Y, W))):
        np.testing.assert_array_equal(rows_of(data)[2], W)


def test_several_inputs_come_by_name_or_in_order():
    b = np.arange(10, dtype="int32").reshape(10, 1)
    by_name = tf.data.Dataset.from_tensor_slices(({"b": b, "a": X}, Y)).batch(4)
    in_order = (((X[i : i + 2], b[i : i + 2]), Y[i : i + 2]) for i in range(0, 10, 2))
    for data in (by_name, in_order):
        first, second, labels = rows_of(data, TWO)
        np.testing.assert_array_equal(first, X)
        np.testing.assert_array_equal(second, b)
        np.testing.assert_array_equal(labels, Y)


def test_prediction_takes_features_and_ignores_labels():
    for data in (dataset(X, Y), (X[i : i + 3] for i in range(0, 10, 3)), dataset(X)):
        (x,) = rows_of(data, BARE)
        np.testing.assert_array_equal(x, X)


def test_text_is_read_too():
    words = np.array(["a", "bc", "ü"] * 2, object)
    spec = InputSpec((ArraySpec("x", (1,), "string"),))
    (x,) = rows_of(tf.data.Dataset.from_tensor_slices(words).batch(4), spec)
    assert x.ravel().tolist() == words.tolist()


def test_small_integers_stay_small_on_disk():
    images = np.arange(30, dtype="uint8").reshape(10, 3)
    (x,) = rows_of((images[i : i + 5] for i in (0, 5)), BARE)
    assert x.dtype == np.uint8


def test_the_first_batch_has_the_batch_size_and_an_example():
    stream = readable(batches())
    assert stream.batch_size == 4
    np.testing.assert_array_equal(stream.example, X[:1])
    assert readable(stream) is stream


def test_rows_after_the_limit_are_not_read():
    endless = itertools.cycle(list(batches()))
    for data in (endless, dataset(X, Y).repeat(), Endless()):
        stream = readable(data, limited=True)
        stream.limit = 6
        seen = []
        stream.watch = seen.append
        x, _ = (a.copy() for a in adapt(SPARK, stream, spec=SPEC)._chunk.arrays)
        np.testing.assert_array_equal(x, X[:6])
        assert seen == [4, 6]


def test_nothing_is_left_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    examples = adapt(SPARK, readable(dataset(X, Y)), spec=SPEC)
    assert os.listdir(tmp_path) == []
    np.testing.assert_array_equal(examples._chunk.x[0], X)
    del examples
    gc.collect()

    def broken():
        yield X[:4], Y[:4]
        raise KeyError("no more rows")

    with pytest.raises(KeyError, match="no more rows"):
        adapt(SPARK, readable(broken()), spec=SPEC)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: dataset(X, Y).repeat(), r"an end, .* used with `steps_per_epoch`.*infinite"),
        (Endless, r"an end, .* used with `steps_per_epoch`.*infinite"),
        (lambda: dataset(X, Y).unbatch(), r"of batches: call `dataset.batch\(32\)`.*single rows"),
        (lambda: iter(()), r"at least one batch of rows; .* used anew. Received: none"),
        (
            lambda: iter([(X[:0], Y[:0])]),
            r"at least one batch of rows; .* used anew. Received: none",
        ),
        (lambda: iter([(X, Y, W, W)]), r"\(x, y, sample_weight\). Received: a batch .* tuple of 4"),
        (lambda: iter([5.0]), r"batches of rows: .*`np.stack\(list\(rows\)\)`.*single rows"),
        (
            lambda: tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [1.0, 2.0]])),
            r"dense tensors: .*`\.to_tensor\(\)`.*RaggedTensorSpec",
        ),
        (
            lambda: tf.data.Dataset.from_tensors(tf.sparse.from_dense(np.eye(3))),
            r"dense tensors: .*`tf\.sparse\.to_dense`.*SparseTensorSpec",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_before_it_is_read(data, message):
    with pytest.raises(ValueError, match=r"^`x` must be .*" + message):
        readable(data())


def test_empty_batches_are_left_out():
    data = iter([(X[:0], Y[:0]), (X[:6], Y[:6]), (X[:0], Y[:0]), (X[6:], Y[6:]), (X[:0], Y[:0])])
    stream = readable(data)
    assert stream.batch_size == 6
    np.testing.assert_array_equal(rows_of(stream)[0], X)


def test_an_interrupt_ends_the_wait_for_a_batch():
    """Although calls of kspark put interrupts off until they are at a safe place."""

    def slow():
        yield X, Y
        signal.raise_signal(signal.SIGINT)
        yield X, Y

    stream = readable(slow())
    with pytest.raises(KeyboardInterrupt):
        defers_interrupts(rows_of)(stream)


def test_batches_without_labels_are_refused_for_training():
    with pytest.raises(ValueError, match=r"batches are \(x, y\).*a batch of features alone"):
        rows_of(dataset(X))


def test_labels_beside_batches_are_refused():
    for name in ("y", "sample_weight"):
        with pytest.raises(ValueError, match=rf"^`{name}` must be `None` for a data set of batch"):
            rows_of(dataset(X, Y), **{name: Y})


def test_rows_of_different_lengths_are_refused():
    lengths = InputSpec((ArraySpec("x", (None,), "float32"),))
    data = iter([np.ones((2, 3), "f4"), np.ones((2, 4), "f4")])
    with pytest.raises(ValueError, match=r"must have the same shape.*\(3,\).*\(4,\)"):
        rows_of(data, lengths)


def test_a_value_that_does_not_fit_is_refused_with_its_row():
    data = iter([(X[:4], Y[:4]), (np.full((2, 3), "text"), Y[:2])])
    with pytest.raises(ValueError, match="`x` must hold numbers"):
        rows_of(data)


def test_tensors_of_other_libraries_are_arrays():
    np.testing.assert_array_equal(host_array(Tensor(X)), X)
    np.testing.assert_array_equal(host_array(Tensor(X, "torch.bfloat16")), X)
    half = host_array(tf.constant([1.5], tf.bfloat16))
    assert (half.dtype, half.tolist()) == (np.float32, [1.5])
    x, y = rows_of({"x": Tensor(X)}, y=tf.constant(Y))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_tables_like_those_that_are_read_are_converted():
    class Frame:
        def to_arrow(self):
            return "arrow"

        def to_spark(self):
            return "spark"

    for module, expected in (
        ("polars.dataframe.frame", "arrow"),
        ("pyspark.pandas.frame", "spark"),
    ):
        frame = type("DataFrame", (Frame,), {"__module__": module})()
        assert readable(frame) == expected
    assert not isinstance(readable(X), Stream)
    assert readable(X) is X
