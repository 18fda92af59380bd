"""Functions of `(worker, num_workers)`: what they may return, and what is read of it."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from kspark.adapters.factories import (
    Factory,
    FactoryRows,
    check_signature,
    first_features,
    first_steps,
    is_factory,
    placed,
    read_factory,
)
from kspark.cluster.failures import FactoryError, failure_of
from kspark.errors import Failure
from kspark.replica.data_function import DataFunction
from kspark.shards import ArraySpec, Chunk, InputSpec

SPEC = InputSpec((ArraySpec("x", (2,), "float32"),), (ArraySpec("y"),))
X, Y = np.arange(14, dtype="float64").reshape(7, 2), np.arange(7)


class Batches(keras.utils.PyDataset):
    def __init__(self, length=3):
        super().__init__()
        self.length = length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, number):
        return X[3 * number : 3 * number + 3], Y[3 * number : 3 * number + 3]


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)


def generator():
    yield from dataset().as_numpy_iterator()


def rows_of(returned, spec=SPEC, num_workers=2):
    def make(worker, num_workers, seed=None):
        return returned(worker) if callable(returned) else returned

    return FactoryRows(make, spec, num_workers)


def labels(chunks):
    return [chunk.y[0].tolist() for chunk in chunks]


@pytest.mark.parametrize("returned", [dataset, generator, Batches, lambda: list(generator())])
def test_batches_are_read_as_the_model_takes_them(returned):
    chunks = list(rows_of(lambda worker: returned()).chunks(1))
    assert labels(chunks) == [[0, 1, 2], [3, 4, 5], [6]]
    assert chunks[0].x[0].dtype == "float32"
    np.testing.assert_array_equal(np.concatenate([c.x[0] for c in chunks]), X)


def test_a_prediction_needs_no_labels():
    (chunk,) = rows_of([X], InputSpec(SPEC.inputs)).chunks(0)
    assert (chunk.num_examples, chunk.y) == (7, [])


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (None, "returned None"),
        ((X, Y), "tuple object>. For a single batch, `yield` it"),
        (X, "ndarray object>. `yield` batches `(x, y)`"),
        (pd.DataFrame(X), "DataFrame object>. `yield` batches `(x, y)`"),
        ({"x": X}, "dict"),
        ("rows.csv", "'rows.csv'"),
        (3, "returned 3"),
    ],
)
def test_what_is_no_data_is_refused(returned, found):
    with pytest.raises(TypeError, match=r"`x` must be a function of \(worker, num_workers\)") as e:
        next(rows_of(returned).chunks(0))
    assert found in str(e.value)


@pytest.mark.parametrize("returned", [lambda w: dataset().repeat(), lambda w: Batches(None)])
def test_data_that_says_it_has_no_end_needs_a_number_of_steps(returned):
    rows = rows_of(returned)
    with pytest.raises(ValueError, match="used with `steps_per_epoch`.*infinite"):
        next(rows.chunks(0))
    assert next(rows.chunks(0, limited=True)).num_examples == 3


def test_a_batch_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="In batch 2 of worker 1: .*examples of shape"):
        list(rows_of([(X, Y), (np.zeros((4, 3)), Y[:4])]).chunks(1))
    with pytest.raises(ValueError, match=r"In batch 1 of worker 0: .*features alone"):
        list(rows_of([X]).chunks(0))


def test_what_is_no_batch_is_named_with_any_kind_of_error():
    """The exceptions of some kinds cannot be made of a text alone."""
    not_text = np.array([b"\xff", b"a"], object)
    for batches in ([(X, Y), (1, 2, 3, 4)], [(X[:0], Y[:0]), (1, 2)], [(X, Y), (not_text, Y[:2])]):
        with pytest.raises(ValueError, match="In batch 2 of worker 1: ") as raised:
            list(rows_of(batches).chunks(1))
        assert type(raised.value) is ValueError
    for error in (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text"), TypeError("no array")):
        kind = TypeError if isinstance(error, TypeError) else ValueError
        with pytest.raises(kind, match="In batch 3 of worker 0: .*no ") as raised, placed(0, 3):
            raise error
        assert type(raised.value) is kind


def test_the_iterator_of_the_user_is_closed_where_reading_ends():
    closed = []

    def held(worker):
        try:
            while True:
                yield X[:3], Y[:3]
        finally:
            closed.append(float(np.random.random()))

    rows = rows_of(held)
    chunks = rows.chunks(0, 1, limited=True)
    next(chunks)
    outside = np.random.get_state()[1].tolist()
    chunks.close()
    assert len(closed) == 1 and np.random.get_state()[1].tolist() == outside
    first_features(rows, 0, iter([0])).__next__()
    factory = Factory(rows.make, None, steps=1)
    list(read_factory(rows, factory, lambda index, chunks: chunks, 0, iter([0])))
    assert len(closed) == 3


def test_an_error_of_the_users_code_has_its_own_traceback():
    def fails(worker):
        yield X, Y
        raise KeyError("no such file")

    for returned in (fails, lambda worker: X[worker, "no index"]):
        with pytest.raises(FactoryError) as raised:
            list(rows_of(returned).chunks(0))
        failure = failure_of(0, raised.value)
        assert failure.kind in ("KeyError", "IndexError")
        first, last = failure.traceback.splitlines()[1], failure.traceback.splitlines()[-1]
        assert "test_factories.py" in first
        assert last.startswith(failure.kind)
        assert failure.headline.startswith("The data function of worker 0 failed on host ")
    (document,) = first_features(rows_of(fails_at_once), 0, iter([0]))
    assert json.loads(document)["failure"]["kind"] == "OSError"


def test_a_function_that_ends_the_process_is_named():
    (document,) = first_features(rows_of(lambda worker: sys.exit(3)), 0, iter([0]))
    failure = Failure(**json.loads(document)["failure"])
    assert failure.headline.startswith("The data function of worker 0 failed on host ")
    assert failure.headline.endswith(": SystemExit: 3")


class Faulty(Batches):
    @property
    def num_batches(self):
        raise RuntimeError("in num_batches")


class Unopened(list):
    def __iter__(self):
        raise RuntimeError("in __iter__")


@pytest.mark.parametrize("make", [Faulty, Unopened])
@pytest.mark.parametrize("limited", [False, True])
def test_an_error_of_the_users_class_is_one_of_the_users_code(make, limited):
    with pytest.raises(FactoryError, match=r"in (num_batches|__iter__)"):
        next(rows_of(lambda worker: make()).chunks(0, limited=limited))


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ((X, np.array(["a"] * 7)), r"\{'y': \['text'\]\} after \{'y': \['numbers'\]\}"),
        ((X, Y, np.ones(7)), r"\{'sample_weight': \['numbers'\]\} after .*\[\]"),
        ((X, np.array([None] * 7)), "null"),
        ((X, Y, Y, Y), "a tuple of 4"),
        ((X[0], 3), "single rows"),
    ],
)
def test_a_later_batch_of_another_kind_is_named(later, message):
    empty = (X[:0], Y[:0])
    with pytest.raises(ValueError, match=f"In batch 3 of worker 1: .*{message}"):
        list(rows_of([(X, Y), empty, later]).chunks(1))


def fails_at_once(worker):
    raise OSError("gone")


def test_the_first_features_need_a_row():
    (found,) = first_features(rows_of([(X, Y)]), 0, iter([0]))
    np.testing.assert_array_equal(found, X[:1])
    (document,) = first_features(rows_of([]), 0, iter([0]))
    assert "no rows for worker 0 of 2" in json.loads(document)["failure"]["message"]


def endless(worker):
    while True:
        yield X[:3], Y[:3]


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(None, [[3, 3], [3]]), (2, [[3, 1], [2]]), (5, [[3, 3, 3, 1], [3, 2]])],
)
def test_steps_are_divided_among_the_workers(batch_size, expected):
    rows = rows_of(lambda worker: endless(worker))
    factory = Factory(rows.make, batch_size, steps=3)
    for worker, counts in enumerate(expected):
        found = list(read_factory(rows, factory, lambda index, chunks: chunks, worker, iter([0])))
        assert [chunk.num_examples for chunk in found] == counts


def test_no_batch_is_read_after_the_last_step():
    chunks = iter([Chunk([np.zeros(3)]), Chunk([np.ones(3)])])
    assert len(list(first_steps(chunks, 1))) == 1
    assert next(chunks).x[0].tolist() == [1, 1, 1]


def test_functions_are_told_from_data():
    assert is_factory(lambda worker, num_workers: None) and is_factory(Batches)
    assert not any(map(is_factory, (X, dataset(), Batches(), generator(), [X], "path", None)))
    check_signature(lambda worker, num_workers, shard=None: None)
    check_signature(max)
    for wrong in (lambda: None, lambda worker: None, lambda a, b, c: None):
        with pytest.raises(
            TypeError, match=r"function of \(worker, num_workers\).*Received: `<lambda>"
        ):
            check_signature(wrong)


@pytest.mark.parametrize("function", [generator, lambda: None])
def test_functions_without_arguments_are_to_be_called(function):
    with pytest.raises(TypeError, match=r"`.*\(\)`. To read .* call it: `x=function\(\)`"):
        check_signature(function)


def test_settings_are_not_taken_for_the_number_of_a_worker():
    def batches(n=10, bs=64, err=None):
        yield X, err

    with pytest.raises(
        TypeError, match=r"Received: `batches\(n=10, .*call it: .* and `num_workers`"
    ):
        check_signature(batches)
    check_signature(lambda worker=0, num_workers=1, path=None: None)
    check_signature(lambda i, n, path=None: None)
    check_signature(lambda *numbers: None)


def test_a_captured_data_set_is_refused_as_other_things_that_do_not_travel():
    captured = dataset()
    for function in (lambda worker, n: captured.shard(n, worker), lambda worker, n: Unpicklable()):
        held = function if function.__closure__ else partial(function, path=Unpicklable())
        with pytest.raises(ValueError, match="cannot be sent to the workers: .*data sets inside"):
            DataFunction.of(held)


class Unpicklable:
    """Raises an error of its own, as objects of libraries do."""

    def __reduce__(self):
        raise OSError("no copy of this")


def test_a_function_travels_by_value_and_is_seeded():
    import random

    def draws(worker, num_workers):
        return worker, num_workers, random.random(), float(np.random.random())

    function = DataFunction.of(draws)
    first, second = function(1, 2, seed=5), function(1, 2, seed=5)
    assert first == second and first[:2] == (1, 2)
    assert function(1, 2, seed=6) != first and function(1, 2) != function(1, 2)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="In the function of .*inside the function"):
        DataFunction.of(lambda worker, num_workers: model)


def test_what_a_function_cannot_take_along_ends_in_a_sentence():
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"[^.]\. Open files and make data sets inside the func"):
        DataFunction.of(lambda worker, num_workers: lock)
