"""Keras' callbacks go on in another process as they would in this one."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.job.callback_state import (
    check_excluded,
    names_of_stateful,
    restore_callbacks,
    states_of_callbacks,
)

LOSSES = [3.0, 2.0, 2.5, 2.4, 2.3, 2.2]


def model():
    made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    made.compile(keras.optimizers.SGD(1.0), "mse")
    return made


def callbacks(path):
    early = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True, monitor="loss")
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, cooldown=1)
    best = keras.callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True)
    return [early, keras.callbacks.LambdaCallback(), plateau, best]


def run(listed, model, epochs, first=0, states=None):
    """What plain Keras does with callbacks, with weights that tell the epoch."""
    for callback in listed:
        callback.set_model(model)
        callback.set_params({"epochs": 6})
        callback.on_train_begin()
    if states is not None:
        restore_callbacks(listed, states)
    for epoch in range(first, epochs):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        for callback in listed:
            callback.on_epoch_end(epoch, {"loss": LOSSES[epoch]})
    return states_of_callbacks(listed)


def plain(states):
    return [{name: str(value) for name, value in state.items()} for state in states]


@pytest.mark.parametrize("cut", range(1, 6))
def test_they_go_on_after_each_epoch(tmp_path, cut):
    path = tmp_path / "model.keras"
    whole, first, second = model(), model(), model()
    expected = run(listed := callbacks(path), whole, 6)
    assert names_of_stateful(listed) == ["EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint"]
    states = run(callbacks(path), first, cut)
    second.set_weights(first.get_weights())
    second.optimizer.learning_rate = float(first.optimizer.learning_rate)
    written = path.stat().st_mtime_ns
    found = run(callbacks(path), second, 6, cut, states)
    assert plain(found) == plain(expected)
    assert float(second.optimizer.learning_rate) == float(whole.optimizer.learning_rate) < 1
    assert second.stop_training and whole.stop_training
    # The best epoch is the second one: its file is replaced only if that comes after the cut.
    assert (path.stat().st_mtime_ns == written) == (cut > 1)


@pytest.mark.parametrize(
    "callback",
    [keras.callbacks.SwapEMAWeights(), keras.callbacks.BackupAndRestore("/tmp/backup")],
    ids=lambda callback: type(callback).__name__,
)
def test_callbacks_that_do_not_go_with_checkpoints_are_refused(callback):
    check_excluded([keras.callbacks.TerminateOnNaN()])
    rule = f"`callbacks` must be free of `{type(callback).__name__}` if `checkpoint` is set"
    with pytest.raises(ValueError, match=rule):
        check_excluded([keras.callbacks.TerminateOnNaN(), callback])
