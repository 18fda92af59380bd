"""Keras callbacks, progress and `History` of a fit, which run on the driver once per epoch.

Callbacks see the merged weights and the metrics of all workers. Batches are trained on the
workers, so batch hooks are never called: `checked_callbacks` refuses Keras' own callbacks that
need them, and warns of others.
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
from kspark.shards import LearningRate

logger = logging.getLogger("kspark")

STATEFUL = (keras.callbacks.BackupAndRestore, keras.callbacks.SwapEMAWeights)
"""Callbacks that save or use the optimizer's state at the end of an epoch."""


def is_stateful(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback saves or uses the optimizer's state; `ModelCheckpoint` may save it."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return not callback.save_weights_only
    return isinstance(callback, STATEFUL)


def stops_on_nan(callbacks: Sequence[keras.callbacks.Callback]) -> bool:
    """Whether a callback stops training, without an error, if the loss is NaN or infinite."""
    return any(isinstance(c, keras.callbacks.TerminateOnNaN) for c in callbacks)


def losses_are_finite(logs: Mapping[str, Any]) -> bool:
    """Whether all losses of the training rows are finite."""
    losses = [v for name, v in logs.items() if "loss" in name and not name.startswith("val_")]
    return all(np.all(np.isfinite(value)) for value in losses)


class FitMonitor:
    """Runs the callbacks on the driver's model, while epochs are trained on the workers.

    Args:
        replica: `Replica` of the user's model.
        callbacks: List of `keras.callbacks.Callback`.
        verbose: `"auto"`, 0, 1 or 2, as in `keras.Model.fit`.
        epochs: Integer, epoch at which to stop training, as in `keras.Model.fit`.
        initial_epoch: Integer, epoch at which to start training.

    Attributes:
        history: `keras.callbacks.History` of the fit.
        progress: `Progress`.
        callbacks: List of the callbacks, as given.
        initial_epoch: Integer, epoch at which to start training. A callback may change it in
            `begin`.
        restored: Boolean, whether a callback changed the optimizer's state in `begin`.
        needs_optimizer_state: Boolean, whether callbacks save or use the optimizer's state, so
            that the driver's model needs it after every epoch.
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
        self.callbacks = list(callbacks)
        self.history = keras.callbacks.History()
        self.progress = Progress(verbose, epochs, initial_epoch)
        # As in Keras, the history follows the callbacks, which may add to the logs.
        self._callbacks = keras.callbacks.CallbackList(
            [*callbacks, self.history, self.progress],
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
        self._stops_on_nan = stops_on_nan(callbacks)
        self._given = replica.get_vector()
        self._recorded: set[str] = set()

    @property
    def learning_rate(self) -> LearningRate:
        """The optimizer's learning rate; `None` if it is a schedule."""
        return self.replica.learning_rate

    def begin(self) -> np.ndarray | None:
        """Run the callbacks of the beginning of training.

        Returns:
            Vector of new weights; `None` if no callback changed them.
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
        """Run the callbacks of an epoch's beginning.

        Returns:
            Vector of new weights; `None` if no callback changed them.
        """
        with interruptible():
            self._callbacks.on_epoch_begin(epoch)
        return self._changed()

    def logs_of(self, states: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Compute the metrics of all workers together; see `merged_metrics`."""
        return merged_metrics(self.replica, states)

    def begin_validation(self, vector: np.ndarray) -> np.ndarray:
        """Run the callbacks of the beginning of validation.

        Args:
            vector: Vector of the merged weights.

        Returns:
            Vector of the weights to validate, which callbacks may have changed.
        """
        self.replica.set_vector(vector)
        with interruptible():
            self._callbacks.on_test_begin()
        return self.replica.get_vector()

    def end_validation(self, states: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Run the callbacks of the end of validation.

        Args:
            states: Sequence of the workers' metric states.

        Returns:
            Dictionary of the validation metrics, with names that begin with `val_`.
        """
        logs = self.logs_of(states)
        with interruptible():
            self._callbacks.on_test_end(dict(logs))
        return {"val_" + name: value for name, value in logs.items()}

    def end_epoch(
        self, epoch: int, vector: np.ndarray, logs: dict[str, Any], num_examples: int
    ) -> np.ndarray | None:
        """Run the callbacks of an epoch's end.

        Args:
            epoch: Integer.
            vector: Vector of the merged weights.
            logs: Dictionary of the metrics of all workers together.
            num_examples: Integer, number of examples that trained.

        Returns:
            Vector of new weights; `None` if no callback changed them.
        """
        self.replica.set_vector(vector)
        self._given = self.replica.get_vector()
        self.progress.num_examples = num_examples
        if self._stops_on_nan and not losses_are_finite(logs):
            # `TerminateOnNaN` itself looks at the logs of batches, which the driver does not have.
            logger.warning("Training stops: the loss of epoch %d is NaN or infinite.", epoch + 1)
            self.replica.model.stop_training = True
        with interruptible():
            self._callbacks.on_epoch_end(epoch, logs)
        return self._changed()

    def record(self, **figures: float) -> None:
        """Add figures of an epoch to the history, but not to the logs of the callbacks."""
        self._recorded.update(figures)
        for name, value in figures.items():
            self.history.history.setdefault(name, []).append(value)

    def _optimizer_state(self) -> list[np.ndarray]:
        """Return the optimizer's state; an empty list if no callbacks can change it."""
        return self.replica.get_optimizer_state() if self._watched else []

    def _changed(self) -> np.ndarray | None:
        """Return the model's weights if they changed since the last call, else `None`."""
        now = self.replica.get_vector()
        if np.array_equal(now, self._given, equal_nan=True):
            return None
        self._given = now
        return now

    @property
    def stopped(self) -> bool:
        """Whether a callback stopped training."""
        return bool(self.replica.model.stop_training)

    def end(self) -> None:
        """Run the callbacks of the end of training.

        The model has the merged weights by now, and its optimizer the merged state.
        """
        self.replica.finalize()
        with interruptible():
            self._callbacks.on_train_end(self._last_logs())

    def _last_logs(self) -> dict[str, Any]:
        """Return the logs of the last epoch, with the changes of the callbacks."""
        logs = self.history.history.items()
        return {name: v[-1] for name, v in logs if v and name not in self._recorded}


def take_chosen_epoch(model: keras.Model) -> int | None:
    """Remove and return the epoch at which a callback wants training to start.

    `BackupAndRestore` stores it in a private attribute of the model, which has the same name in
    Keras 3.8 to 3.15. `keras.Model.fit` reads it there, in later fits too. It is removed, so
    that a later fit starts at its own `initial_epoch`.

    Args:
        model: `keras.Model`.

    Returns:
        Integer; `None` if no callback stored an epoch.
    """
    epoch = getattr(model, "_initial_epoch", None)
    if epoch is None:
        return None
    model._initial_epoch = None
    return int(epoch)


def merged_metrics(replica: Replica, states: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
    """Compute metrics from the sum of the workers' metric states.

    Args:
        replica: `Replica` whose metrics compute the results; they are reset afterwards.
        states: Sequence of one list of arrays per worker, in the order of the shards.

    Returns:
        Dictionary from metric name to a float, or to an array for a metric of several numbers.
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
    """Return metric results in the form of `keras.Model.evaluate`.

    Args:
        model: `keras.Model` that has the metrics.
        results: Mapping from metric name to result.

    Returns:
        List of the results in Keras' order, or the result itself if there is only one.
    """
    names: list[str] = []
    for metric in model.metrics:
        inner = getattr(metric, "metrics", None)  # one metric contains those of `compile`
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
"""Keras' own callbacks that can run every few batches, and the attribute that sets this."""


def checked_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Check the `callbacks` argument of `fit`, and return it as a list.

    Raises:
        TypeError: If it is not a list of Keras callbacks.
        ValueError: If a callback of Keras is set to run every few batches.
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
    """Check that a callback of Keras runs once per epoch.

    Raises:
        ValueError: If it is set to run every few batches.
    """
    for kind, setting in FREQUENCIES.items():
        value = getattr(callback, setting, "epoch")
        if value != "epoch" and isinstance(callback, getattr(keras.callbacks, kind, ())):
            rule = f'set to run once per epoch ({setting}="epoch"): workers train the batches'
            raise invalid("callbacks", rule, f"{type(callback).__name__} with {setting}={value!r}")


def warn_of_batch_hooks(callback: keras.callbacks.Callback) -> None:
    """Log a warning if a callback overrides batch hooks, which are never called."""
    modules = {n: str(getattr(getattr(callback, n), "__module__", "")) for n in BATCH_HOOKS}
    overridden = [name for name, module in modules.items() if not module.startswith("keras.")]
    if overridden:
        logger.warning(
            "%s of %s will not be called: batches are trained on the workers, and callbacks run "
            "on the driver once per epoch.",
            ", ".join(f"`{name}`" for name in overridden),
            type(callback).__name__,
        )
