"""Errors name the layers of the user's model, also in a replica of an earlier one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kspark.errors import Failure
from kspark.worker.names import set_names, with_own_names
from kspark.worker.tasks import guarded


@pytest.fixture(autouse=True)
def no_names():
    yield
    set_names((), ())


def raised(work):
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def of_keras():
    import keras

    return raised(lambda: keras.layers.Dense(1).build(()))


def test_messages_and_tracebacks_are_translated():
    set_names(("dense", "dense_1"), ("dense_4", "dense_5"))
    failure = Failure(0, "host", 0, "ValueError", "in 'dense'", "node model/dense_1/Relu")
    found = with_own_names(failure, of_keras())
    assert (found.message, found.traceback) == ("in 'dense_4'", "node model/dense_5/Relu")
    assert with_own_names(replace(failure, source="The data function"), of_keras()).message == (
        "in 'dense'"
    )
    set_names(("dense_4",), ("dense_4",))
    assert with_own_names(failure, of_keras()) == failure


def wrong_input():
    """Keras' own error about the input of a layer."""
    import keras

    layer = keras.layers.Dense(1, name="dense")
    layer.build((None, 3))
    layer(keras.ops.ones((2, 4)))


def test_failures_of_shards_are_translated():
    set_names(("dense",), ("dense_7",))
    assert re.search(r"layer ['\"]dense_7['\"]", guarded(0, wrong_input).message)


def test_errors_within_a_compiled_step_are_translated():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense")])
    model.compile("sgd", "mse")
    set_names(("dense",), ("dense_7",))

    def train():
        model.layers[0].input_spec.axes = {-1: 4}
        model.train_on_batch(keras.ops.ones((2, 3)), keras.ops.ones((2, 1)))

    assert re.search(r"layer ['\"]dense_7['\"]", guarded(0, train).message)


def test_errors_about_rows_and_columns_keep_their_names():
    set_names(("dense", "embedding"), ("dense_4", "embedding_1"))
    text = "Could not read '/data/dense/part-0.parquet' of column 'embedding'"

    def fail():
        raise ValueError(text)

    assert guarded(0, fail).message == text
    assert with_own_names(Failure(0, "host", 0, "ValueError", text, ""), ValueError()).message == (
        text
    )
