"""The state of Keras' callbacks that a checkpoint keeps.

Keras resets its callbacks when training begins, and gives them no method that returns their state.
It is in public attributes, which `STATES` names. Callbacks of the user's own begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras

from kspark.errors import invalid

STATES: Mapping[type, tuple[str, ...]] = MappingProxyType(
    {
        keras.callbacks.EarlyStopping: (
            *("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
        ),
        keras.callbacks.ModelCheckpoint: ("best",),
        keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    }
)
"""The attributes with the state of a class of callbacks, and of its subclasses."""

EXCLUDED = {
    keras.callbacks.BackupAndRestore: "because it also decides at which epoch training goes on",
    keras.callbacks.SwapEMAWeights: "because a fit cannot go on from the weights that it swaps",
}
"""Callbacks that cannot be used with checkpoints, and why."""


def attributes_of(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    """Return the names of the attributes with the state of a callback; empty for other callbacks.

    An attribute that this version of Keras does not have is left out.
    """
    found = (names for kind, names in STATES.items() if isinstance(callback, kind))
    return tuple(name for name in next(found, ()) if hasattr(callback, name))


def states_of_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> list[dict[str, Any]]:
    """Return the states of the callbacks that have one, in their order."""
    named = ((callback, attributes_of(callback)) for callback in callbacks)
    return [{name: getattr(c, name) for name in names} for c, names in named if names]


def restore_callbacks(
    callbacks: Sequence[keras.callbacks.Callback], states: Sequence[Mapping[str, Any]]
) -> None:
    """Set the states that `states_of_callbacks` returned. Call it after `on_train_begin`."""
    stateful = [callback for callback in callbacks if attributes_of(callback)]
    for callback, state in zip(stateful, states, strict=True):
        for name in attributes_of(callback):
            setattr(callback, name, state[name])


def names_of_stateful(callbacks: Sequence[keras.callbacks.Callback]) -> list[str]:
    """Return the names of the classes of the callbacks that have a state, in their order."""
    return [type(callback).__name__ for callback in callbacks if attributes_of(callback)]


def check_excluded(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuse callbacks that cannot be used with checkpoints.

    Raises:
        ValueError: If there is one.
    """
    for callback in callbacks:
        for kind, reason in EXCLUDED.items():
            if isinstance(callback, kind):
                rule = f"free of `{kind.__name__}` if `checkpoint` is set, {reason}"
                raise invalid("callbacks", rule, callbacks)
