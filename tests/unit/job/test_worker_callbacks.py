"""The `worker_callbacks` argument of `fit` is checked before any job."""

from __future__ import annotations

import keras
import pytest

from kspark.job.worker_callbacks import pickled_callbacks
from kspark.replica.callbacks import load_callbacks


class Own(keras.callbacks.CSVLogger):
    """A user's subclass knows what it does."""


def make(needed):
    return [keras.callbacks.Callback()]


@pytest.mark.parametrize("given", [None, [], ()])
def test_there_may_be_none(given):
    assert pickled_callbacks(given) is None


@pytest.mark.parametrize(
    "given",
    [
        keras.callbacks.Callback(),
        [keras.callbacks.LambdaCallback(on_epoch_end=print)],
        keras.callbacks.Callback,
        lambda: keras.callbacks.Callback(),
        [[Own("x.csv")]],
    ],
)
def test_callbacks_and_functions_that_make_them_are_pickled(given):
    (found,) = load_callbacks(pickled_callbacks(given))
    assert isinstance(found, keras.callbacks.Callback)


@pytest.mark.parametrize("given", ["callback", [print], make, {"a": 1}, 3])
def test_other_things_are_refused(given):
    with pytest.raises(
        TypeError, match="`worker_callbacks` must be a .*Received: worker_callbacks"
    ):
        pickled_callbacks(given)


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.EarlyStopping(),
        keras.callbacks.ModelCheckpoint("x.keras"),
        keras.callbacks.BackupAndRestore("x"),
        keras.callbacks.CSVLogger("x.csv"),
        keras.callbacks.TerminateOnNaN(),
    ],
)
def test_callbacks_of_keras_belong_to_the_driver(callback):
    with pytest.raises(ValueError, match=r"callbacks of your own.*Pass them as `callbacks`.*") as e:
        pickled_callbacks([callback])
    assert type(callback).__name__ in str(e.value)


def test_also_those_that_a_function_makes():
    """The worker finds out."""
    pickled = pickled_callbacks(
        lambda: [keras.callbacks.Callback(), keras.callbacks.TerminateOnNaN()]
    )
    with pytest.raises(ValueError, match=r"callbacks of your own.*TerminateOnNaN"):
        load_callbacks(pickled)


def test_hooks_that_workers_do_not_call_are_told(caplog):
    with caplog.at_level("WARNING", "kspark"):
        pickled_callbacks([keras.callbacks.LambdaCallback(on_epoch_end=print)])
        assert not caplog.messages
        silent = keras.callbacks.Callback()
        silent.on_test_end = print
        pickled_callbacks([silent])
    assert caplog.messages == [
        "`on_test_end` of Callback will not be called: workers call the hooks of training only."
    ]
