"""The driver's view of a fit: Keras callbacks, progress and `History`, once per epoch.

Callbacks see merged weights and global logs, and run on the driver only.
There are no batches on the driver, so `on_train_batch_*` is never called;
`kspark.spark_model.arguments` says so where a callback needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from kspark.cluster.interrupts import interruptible
from kspark.errors import invalid, invalid_type
from kspark.job.progress import Progress
from kspark.replica import Replica

logger = logging.getLogger("kspark")

STATEFUL = (keras.callbacks.BackupAndRestore, keras.callbacks.SwapEMAWeights)
"""Callbacks that keep or use the state of the optimizer at the end of an epoch."""


def is_stateful(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback keeps or uses the optimizer's state: those, and whole checkpoints."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return not callback.save_weights_only
    return isinstance(callback, STATEFUL)


class FitMonitor:
    """Runs callbacks around the epochs that happen elsewhere.

    Args:
        replica: `Replica` around the user's own model.
        callbacks: List of `keras.callbacks.Callback`.
        verbose: `"auto"`, 0, 1 or 2, as in `keras.Model.fit`.
        epochs: Integer, epoch to stop before.
        initial_epoch: Integer.

    Attributes:
        initial_epoch: Integer, where to begin; a callback may have chosen it in `begin`.
        restored: Boolean, whether a callback changed the optimizer's state in `begin`.
        needs_optimizer_state: Boolean, whether callbacks work with the optimizer's state, so
            that it has to be here after every epoch.
    """

    def __init__(
        self,
        replica: Replica,
        callbacks: Sequence[keras.callbacks.Callback],
        verbose: str | int,
        epochs: int,
        initial_epoch: int,
    ) -> None:
        self.replica = replica
        self.history = keras.callbacks.History()
        self.progress = Progress(verbose, epochs, initial_epoch)
        # As in Keras, the history comes after the callbacks that add to the logs.
        mine = [*callbacks, self.history, self.progress]
        self._callbacks = keras.callbacks.CallbackList(
            mine,
            add_history=False,
            add_progbar=False,
            model=replica.model,
            verbose=0,
            epochs=epochs,
            steps=None,
        )
        self.initial_epoch = initial_epoch
        self.restored = False
        self.needs_optimizer_state = any(is_stateful(c) for c in callbacks)
        self._watched = bool(callbacks)
        self._given = replica.get_vector()
        self._recorded: set[str] = set()

    @property
    def learning_rate(self) -> float | None:
        """What the optimizer says now, or `None` if a schedule decides."""
        return self.replica.learning_rate

    def begin(self) -> np.ndarray | None:
        """Training begins.

        Returns:
            New weights, if a callback changed them.
        """
        model, before = self.replica.model, self._optimizer_state()
        model.stop_training = False
        take_chosen_epoch(model)
        with interruptible():
            self._callbacks.on_train_begin()
        chosen = take_chosen_epoch(model)
        self.initial_epoch = self.progress.first = chosen or self.initial_epoch
        self.restored = not all(map(np.array_equal, before, self._optimizer_state()))
        return self._changed()

    def begin_epoch(self, epoch: int) -> np.ndarray | None:
        """An epoch begins.

        Returns:
            New weights, if a callback changed them.
        """
        with interruptible():
            self._callbacks.on_epoch_begin(epoch)
        return self._changed()

    def logs_of(self, states: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Metrics of all workers together, by summing their metric states."""
        return merged_metrics(self.replica, states)

    def begin_validation(self, vector: np.ndarray) -> np.ndarray:
        """Validation of merged weights begins.

        Returns:
            The weights to validate: those that the callbacks leave.
        """
        self.replica.set_vector(vector)
        with interruptible():
            self._callbacks.on_test_begin()
        return self.replica.get_vector()

    def end_validation(self, states: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Validation ends, with these metric states of the workers.

        Returns:
            Dictionary, the logs of the validation.
        """
        logs = self.logs_of(states)
        with interruptible():
            self._callbacks.on_test_end(dict(logs))
        return {"val_" + name: value for name, value in logs.items()}

    def end_epoch(
        self, epoch: int, vector: np.ndarray, logs: dict[str, Any], num_examples: int
    ) -> np.ndarray | None:
        """Show the merged weights and global logs to the callbacks.

        Returns:
            New weights, if a callback changed them.
        """
        self.replica.set_vector(vector)
        self._given = self.replica.get_vector()
        self.progress.num_examples = num_examples
        with interruptible():
            self._callbacks.on_epoch_end(epoch, logs)
        return self._changed()

    def record(self, **figures: float) -> None:
        """Add an epoch's figures to the history alone, where no callback acts on them."""
        self._recorded.update(figures)
        for name, value in figures.items():
            self.history.history.setdefault(name, []).append(value)

    def _optimizer_state(self) -> list[np.ndarray]:
        """The optimizer's state, if there are callbacks that could change it."""
        return self.replica.get_optimizer_state() if self._watched else []

    def _changed(self) -> np.ndarray | None:
        """The model's weights, if they are not those it was given or had when asked last."""
        now = self.replica.get_vector()
        if np.array_equal(now, self._given, equal_nan=True):
            return None
        self._given = now
        return now

    @property
    def stopped(self) -> bool:
        """Whether a callback asked for the end of training."""
        return bool(self.replica.model.stop_training)

    def end(self) -> None:
        """Training is over; the model holds the merged weights, and its optimizer their state."""
        self.replica.finalize()
        with interruptible():
            self._callbacks.on_train_end(self._last_logs())

    def _last_logs(self) -> dict[str, Any]:
        """The logs of the last epoch, as callbacks left them."""
        logs = self.history.history.items()
        return {name: v[-1] for name, v in logs if v and name not in self._recorded}


def take_chosen_epoch(model: keras.Model) -> int | None:
    """The epoch at which a callback wants training to begin; it is not kept.

    `BackupAndRestore` leaves it in an attribute that is not public, of the same name in
    Keras 3.8 to 3.15, where `keras.Model.fit` finds it (and goes on finding it in every
    later fit). A model without it begins where it is told.

    Args:
        model: The `keras.Model`.
    """
    epoch = getattr(model, "_initial_epoch", None)
    if epoch is None:
        return None
    model._initial_epoch = None
    return int(epoch)


def merged_metrics(replica: Replica, states: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
    """Results of metrics whose states are the sums of several workers' states.

    Args:
        replica: `Replica` whose metrics compute the results; they are reset afterwards.
        states: One list of arrays per worker, in the order of the shards.

    Returns:
        Mapping from metric name to a float, or to an array for several classes.
    """
    states = [s for s in states if s]
    if not states:
        return {}
    summed = [
        np.sum(np.stack(parts), axis=0, dtype=parts[0].dtype) for parts in zip(*states, strict=True)
    ]
    replica.set_metric_state(summed)
    results = replica.metric_results()
    replica.reset_metrics()
    return results


def listed(model: keras.Model, results: Mapping[str, Any]) -> Any:
    """Metric results in the order of `keras.Model.evaluate`'s list; a single one by itself.

    Args:
        model: The `keras.Model` whose metrics they are.
        results: Mapping from metric name to result.
    """
    names: list[str] = []
    for metric in model.metrics:
        inner = getattr(metric, "metrics", None)  # those of `compile` are in one
        names += [metric.name] if inner is None else [m.name for m in inner]
    ordered = [name for name in names if name in results]
    ordered += sorted(set(results) - set(ordered))
    values = [results[name] for name in ordered]
    return values[0] if len(values) == 1 else values


BATCH_HOOKS = (
    *("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)


FREQUENCIES = MappingProxyType(
    {
        "BackupAndRestore": "save_freq",
        "ModelCheckpoint": "save_freq",
        "OrbaxCheckpoint": "save_freq",
        "TensorBoard": "update_freq",
    }
)
"""Keras' own callbacks that may work between batches, and what tells how often they do."""


def checked_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """A list of Keras callbacks.

    Raises:
        TypeError: If something else is among them.
        ValueError: If one of Keras' own is to work every few batches.
    """
    given = [] if callbacks is None else callbacks
    if isinstance(given, keras.callbacks.Callback):
        given = [given]
    if isinstance(given, keras.callbacks.CallbackList) or not isinstance(given, list | tuple):
        raise invalid_type("callbacks", "a list of `keras.callbacks.Callback`", callbacks)
    for callback in given:
        if not isinstance(callback, keras.callbacks.Callback):
            raise invalid_type("callbacks", "a list of `keras.callbacks.Callback`", callback)
        check_by_epoch(callback)
        warn_of_batch_hooks(callback)
    return list(given)


def check_by_epoch(callback: keras.callbacks.Callback) -> None:
    """Refuse a callback of Keras that is to work every few batches.

    Raises:
        ValueError: If it is.
    """
    for kind, setting in FREQUENCIES.items():
        value = getattr(callback, setting, "epoch")
        if value != "epoch" and isinstance(callback, getattr(keras.callbacks, kind, ())):
            rule = 'at work once per epoch ("epoch"): batches are trained on the workers'
            raise invalid("callbacks", rule, f"{type(callback).__name__} with {setting}={value!r}")


def warn_of_batch_hooks(callback: keras.callbacks.Callback) -> None:
    """Say which batch hooks of a user's own making will not be called."""
    used = [name for name in BATCH_HOOKS if not is_keras(getattr(callback, name))]
    if used:
        logger.warning(
            "%s of %s will not be called: batches are trained on the workers, "
            "callbacks run once per epoch on the driver.",
            ", ".join(f"`{name}`" for name in used),
            type(callback).__name__,
        )


def is_keras(thing: Any) -> bool:
    """Whether a class or function comes with Keras."""
    return str(getattr(thing, "__module__", "")).startswith("keras.")
