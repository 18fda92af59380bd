"""`checked_callbacks`: which callbacks a fit accepts."""

from __future__ import annotations

import keras
import pytest

from kspark.job.callbacks import checked_callbacks


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
    ],
)
def test_keras_callbacks_between_batches_are_refused(callback, told):
    with pytest.raises(ValueError, match=rf"`callbacks` must be .*Received: callbacks='{told}'"):
        checked_callbacks([callback])


@pytest.mark.parametrize(
    ("callback", "hooks"),
    [
        (keras.callbacks.LambdaCallback(on_train_batch_end=print), "`on_train_batch_end` of Lamb"),
        (keras.callbacks.LambdaCallback(on_batch_begin=print), "`on_batch_begin` of Lambda"),
        (OwnHooks(), "`on_test_batch_end` of OwnHooks will not be called"),
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


@pytest.mark.parametrize("given", [print, [print], "callback"])
def test_other_things_are_no_callbacks(given):
    with pytest.raises(TypeError, match="`callbacks` must be a list of `keras.callbacks.Callback`"):
        checked_callbacks(given)
