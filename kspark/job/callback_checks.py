"""Checks of the `callbacks` argument of `fit`, and what a callback needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import keras

from kspark.cluster.backend import is_installed
from kspark.errors import Described, invalid, invalid_type
from kspark.replica.callbacks import TRAIN_BATCH_HOOKS, flattened, overridden_hooks

logger = logging.getLogger("kspark")

STATEFUL = (keras.callbacks.BackupAndRestore, keras.callbacks.SwapEMAWeights)
"""Callbacks that save or use the optimizer's state at the end of an epoch."""

BATCH_HOOKS = (*TRAIN_BATCH_HOOKS, "on_test_batch_begin", "on_test_batch_end")
"""Hooks that Keras calls for every batch, and kspark once for all batches of an epoch, except for
those of training with `callbacks_every`."""

HINT = " Set `callbacks_every` to call them while the workers train."
"""Ends the warning of such hooks."""

FREQUENCIES = MappingProxyType(
    {
        "BackupAndRestore": "save_freq",
        "ModelCheckpoint": "save_freq",
        "OrbaxCheckpoint": "save_freq",
        "TensorBoard": "update_freq",
    }
)
"""Keras' own callbacks that can run every few batches, and the attribute that sets this."""


def is_stateful(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback saves or uses the optimizer's state.

    Callbacks that save whole models have a `save_weights_only`. Those of users say that they use
    the state by an attribute `uses_optimizer_state`.
    """
    saves_whole_models = not getattr(callback, "save_weights_only", True)
    told = bool(getattr(callback, "uses_optimizer_state", False))
    return saves_whole_models or told or isinstance(callback, STATEFUL)


def stops_on_nan(callbacks: Sequence[keras.callbacks.Callback]) -> bool:
    """Whether a callback stops training if the loss is NaN or infinite."""
    return any(isinstance(c, keras.callbacks.TerminateOnNaN) for c in callbacks)


def checked_callbacks(callbacks: Any, every: int | None = None) -> list[keras.callbacks.Callback]:
    """Check the `callbacks` argument of `fit`, and return it as a list.

    Args:
        callbacks: As in `SparkModel.fit`.
        every: Integer, the `callbacks_every` of `fit`. Defaults to `None`.

    Raises:
        TypeError: If it is not a list of Keras callbacks.
        ValueError: If a callback of Keras is set to act within an epoch, and `every` is `None`, or
            to profile batches.
        ImportError: If a callback needs a package that is not installed.
    """
    given = [] if callbacks is None else flattened(callbacks)
    for callback in given:
        if not isinstance(callback, keras.callbacks.Callback):
            raise invalid_type("callbacks", "a list of `keras.callbacks.Callback`", callbacks)
        if every is None:
            check_by_epoch(callback)
        if isinstance(callback, keras.callbacks.TensorBoard):
            check_tensorboard(callback)
        warn_of_batch_hooks(callback, every)
    valid = isinstance(every, int) and every >= 1  # Other values are refused later.
    if valid and not any(map(has_batch_hooks, given)):
        logger.warning(
            "callbacks_every=%s runs no hooks: no callback has any of %s. It only changes the "
            "`steps` in the `params` of callbacks.",
            every,
            ", ".join(f"`{name}`" for name in TRAIN_BATCH_HOOKS),
        )
    return given


def check_by_epoch(callback: keras.callbacks.Callback) -> None:
    """Check that a callback of Keras runs once per epoch.

    Raises:
        ValueError: If it is set to run every few batches.
    """
    for kind, setting in FREQUENCIES.items():
        value = getattr(callback, setting, "epoch")
        if value != "epoch" and isinstance(callback, getattr(keras.callbacks, kind, ())):
            rule = (
                f'set to run once per epoch ({setting}="epoch") without `callbacks_every`: workers '
                "train the batches, and report within an epoch only if it is set"
            )
            found = Described(f"{type(callback).__name__} with {setting}={value!r}")
            raise invalid("callbacks", rule, found)


def check_tensorboard(callback: keras.callbacks.TensorBoard) -> None:
    """Check that `TensorBoard` can write, and that it is not set to profile batches.

    The first batch to profile is a private attribute, the same one in Keras 3.12 to 3.15.

    Raises:
        ImportError: If the package `tensorboard`, or TensorFlow, is not installed.
        ValueError: If batches are to be profiled.
    """
    # TensorFlow installs it up to version 2.20 only. Keras writes with TensorFlow on any backend.
    if absent := [name for name in ("tensorboard", "tensorflow") if not is_installed(name)]:
        raise ImportError(
            "keras.callbacks.TensorBoard needs the packages tensorboard and tensorflow, on every "
            f"backend: run `pip install {' '.join(absent)}`."
        )
    first = getattr(callback, "_start_batch", 0)
    if first:
        rule = "set to profile no batches (profile_batch=0): workers train the batches"
        received = Described(
            f"{type(callback).__name__} with a profile_batch that begins at {first}"
        )
        raise invalid("callbacks", rule, received)


def has_batch_hooks(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback does something before or after batches."""
    return bool(overridden_hooks(callback, BATCH_HOOKS))


def warn_of_batch_hooks(callback: keras.callbacks.Callback, every: int | None) -> None:
    """Log a warning if a user's callback has batch hooks that run once per epoch.

    MLflow's callbacks have some, too, but use them only if they are set to log every few steps.

    Args:
        callback: `keras.callbacks.Callback`.
        every: Integer, the `callbacks_every` of `fit`, or `None`.
    """
    known = ["keras."]
    if getattr(callback, "log_every_n_steps", None) is None:
        known.append("mlflow.")
    names = BATCH_HOOKS if every is None else BATCH_HOOKS[len(TRAIN_BATCH_HOOKS) :]
    hooks = overridden_hooks(callback, names).items()
    told = [name for name, module in hooks if not module.startswith(tuple(known))]
    if told:
        logger.warning(
            "%s of %s will be called once per epoch, around all its batches and with their "
            "metrics: the workers train the batches, and callbacks run on the driver.%s",
            ", ".join(f"`{name}`" for name in told),
            type(callback).__name__,
            "" if set(told) - set(TRAIN_BATCH_HOOKS) else HINT,
        )
