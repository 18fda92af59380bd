"""The `callbacks` argument of `fit`: what is refused, told and needed."""

from __future__ import annotations

import keras
import pytest

from kspark.job import callback_checks
from kspark.job.callback_checks import checked_callbacks, has_batch_hooks, is_stateful


class OwnCheckpoint(keras.callbacks.ModelCheckpoint):
    """Inherits Keras' batch hook."""


class OwnHooks(keras.callbacks.EarlyStopping):
    """Has a hook of its own, and a setting that means nothing to Keras."""

    save_freq = 3

    def on_test_batch_end(self, batch, logs=None):
        pass


CHECKPOINT, BACKUP = "x.keras", "folder"


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (keras.callbacks.ModelCheckpoint(CHECKPOINT, save_freq=4), "ModelCheckpoint.*save_freq=4"),
        (OwnCheckpoint(CHECKPOINT, save_freq=4), "OwnCheckpoint.*save_freq=4"),
        (keras.callbacks.BackupAndRestore(BACKUP, save_freq=2), "BackupAndRestore.*save_freq=2"),
        (keras.callbacks.TensorBoard(update_freq="batch"), "TensorBoard.*update_freq=1"),
        (keras.callbacks.TensorBoard(update_freq=10), "TensorBoard.*update_freq=10"),
        (keras.callbacks.TensorBoard(profile_batch=(2, 3)), "TensorBoard.*begins at 2"),
    ],
)
def test_keras_callbacks_between_batches_are_refused(callback, told):
    with pytest.raises(ValueError, match=rf"`callbacks` must be .*Received: {told}"):
        checked_callbacks([callback])


@pytest.mark.parametrize(
    ("callback", "hooks"),
    [
        (keras.callbacks.LambdaCallback(on_train_batch_end=print), "`on_train_batch_end` of Lamb"),
        (keras.callbacks.LambdaCallback(on_batch_begin=print), "`on_batch_begin` of Lambda"),
        (OwnHooks(), "`on_test_batch_end` of OwnHooks will be called once"),
    ],
)
def test_hooks_between_batches_are_told(callback, hooks, caplog):
    with caplog.at_level("WARNING", "kspark"):
        assert checked_callbacks(callback) == [callback]
    (message,) = caplog.messages
    assert message.startswith(hooks)


@pytest.mark.parametrize(
    "callback",
    [
        OwnCheckpoint(CHECKPOINT),
        keras.callbacks.BackupAndRestore(BACKUP),
        keras.callbacks.TensorBoard(),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_epoch_end=print),
    ],
)
def test_callbacks_between_epochs_are_welcome(callback, caplog):
    with caplog.at_level("WARNING", "kspark"):
        checked_callbacks([callback])
    assert not caplog.messages


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.ModelCheckpoint(CHECKPOINT, save_freq=4),
        keras.callbacks.BackupAndRestore(BACKUP, save_freq=2),
        keras.callbacks.TensorBoard(update_freq=10),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_train_batch_end=print),
    ],
)
def test_callbacks_between_batches_are_welcome_with_callbacks_every(callback, caplog):
    with caplog.at_level("WARNING", "kspark"):
        assert checked_callbacks([callback], 3) == [callback]
    assert not caplog.messages


def test_callbacks_every_is_named_where_it_helps(caplog):
    with pytest.raises(ValueError, match=r'save_freq="epoch"\) without `callbacks_every`'):
        checked_callbacks([keras.callbacks.ModelCheckpoint(CHECKPOINT, save_freq=4)])
    with pytest.raises(ValueError, match="profile_batch=0"):
        checked_callbacks([keras.callbacks.TensorBoard(profile_batch=2)], 3)
    with caplog.at_level("WARNING", "kspark"):
        checked_callbacks([keras.callbacks.LambdaCallback(on_train_batch_end=print)])
        checked_callbacks([OwnHooks()], 3)
        checked_callbacks([keras.callbacks.EarlyStopping()], 3)
        checked_callbacks([keras.callbacks.EarlyStopping()], -1)  # Refused elsewhere.
    one, test_hooks, none = caplog.messages
    assert one.endswith("Set `callbacks_every` to call them while the workers train.")
    assert test_hooks.endswith("callbacks run on the driver.")
    assert none.startswith("callbacks_every=3 runs no hooks")


@pytest.mark.parametrize("given", [print, [print], "callback"])
def test_other_things_are_no_callbacks(given):
    with pytest.raises(TypeError, match="`callbacks` must be a list of `keras.callbacks.Callback`"):
        checked_callbacks(given)


def test_nested_lists_and_callback_lists_are_taken_as_in_keras():
    one, two, three = (keras.callbacks.Callback() for _ in range(3))
    several = keras.callbacks.CallbackList([two, three])
    assert checked_callbacks(several) == [two, three]
    assert checked_callbacks([one, (several,)]) == [one, two, three]
    assert checked_callbacks(one) == [one]
    assert checked_callbacks(None) == []


@pytest.mark.parametrize("absent", [["tensorboard"], ["tensorflow"], ["tensorboard", "tensorflow"]])
def test_tensorboard_without_its_packages_is_refused(absent, monkeypatch):
    monkeypatch.setattr(callback_checks, "is_installed", lambda name: name not in absent)
    with pytest.raises(ImportError, match=f"run `pip install {' '.join(absent)}`"):
        checked_callbacks([keras.callbacks.TensorBoard()])


def test_hooks_between_batches_are_found():
    lambdas = keras.callbacks.LambdaCallback
    for callback in (lambdas(on_batch_begin=print), OwnHooks(), keras.callbacks.TerminateOnNaN()):
        assert has_batch_hooks(callback)
    for callback in (keras.callbacks.EarlyStopping(), keras.callbacks.Callback()):
        assert not has_batch_hooks(callback)


class Uses(keras.callbacks.Callback):
    """A user's callback that tells that it uses the optimizer's state."""

    uses_optimizer_state = True


def test_whole_checkpoints_hold_the_optimizers_state():
    assert is_stateful(keras.callbacks.ModelCheckpoint("x.keras"))
    assert not is_stateful(keras.callbacks.ModelCheckpoint("x.weights.h5", save_weights_only=True))
    assert is_stateful(keras.callbacks.SwapEMAWeights())
    assert is_stateful(Uses())
    assert not is_stateful(keras.callbacks.EarlyStopping())


def test_orbax_checkpoints_hold_the_optimizers_state():
    """It is made without `__init__`, which needs the package `orbax-checkpoint`."""
    kind = keras.callbacks.OrbaxCheckpoint
    for weights_only in (False, True):
        callback = kind.__new__(kind)
        callback.save_freq, callback.save_weights_only = "epoch", weights_only
        assert checked_callbacks([callback]) == [callback]
        assert is_stateful(callback) != weights_only
        callback.save_freq = 10
        with pytest.raises(ValueError, match="OrbaxCheckpoint with save_freq=10"):
            checked_callbacks([callback])
