"""Keras callbacks, progress and `History` of a fit, which run on the driver.

Callbacks see the merged weights and the metrics of all workers. The batches are trained on the
workers, so the hooks of batches are called as Keras calls them for a model that is compiled with
an epoch's batches as `steps_per_execution`: once per epoch, around all its batches. With
`callbacks_every`, the driver also calls them while the workers train.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kspark.cluster.interrupts import interruptible
from kspark.errors import Described, invalid
from kspark.job.callback_checks import has_batch_hooks, is_stateful, stops_on_nan
from kspark.job.progress import Progress
from kspark.replica import Replica
from kspark.shards import LearningRate

logger = logging.getLogger("kspark")


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
        history: `keras.callbacks.History` of the fit: that in `callbacks`, or a new one.
        progress: `Progress`.
        callbacks: List of the callbacks, as given.
        initial_epoch: Integer, epoch at which to start training. A callback may change it in
            `begin`.
        restored: Boolean, whether a callback changed the optimizer's state in `begin`.
        needs_optimizer_state: Boolean, whether callbacks save or use the optimizer's state, so
            that the driver's model needs it after every epoch.
        has_batch_hooks: Boolean, whether a callback does something before or after batches.
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
        has_bar = any(isinstance(c, keras.callbacks.ProgbarLogger) for c in callbacks)
        # As in Keras, a bar among the callbacks takes the place of the usual one.
        self.progress = Progress(0 if has_bar else verbose, epochs, initial_epoch)
        # Keras adds a history at the end of the list, because callbacks may add to the logs.
        self._callbacks = keras.callbacks.CallbackList(
            [*callbacks, self.progress], add_history=True, model=replica.model
        )
        self.history = replica.model.history
        self.initial_epoch = initial_epoch
        self.restored = False
        self.needs_optimizer_state = any(is_stateful(c) for c in callbacks)
        self._params = {"verbose": verbose, "epochs": epochs}
        self._steps = self._validation_steps = 1
        self._watched = bool(callbacks)
        self.has_batch_hooks = any(has_batch_hooks(c) for c in callbacks)
        self._batches_over = False
        self._stops_on_nan = stops_on_nan(callbacks)
        self._given = replica.get_vector()
        self._settled: np.ndarray | None = None
        self._logs: dict[str, Any] | None = None

    @property
    def learning_rate(self) -> LearningRate:
        """The optimizer's learning rate; `None` if it is a schedule."""
        return self.replica.learning_rate

    def begin(self, steps: int, validation_steps: int = 1) -> np.ndarray | None:
        """Run the callbacks of the beginning of training.

        Args:
            steps: Integer, number of batches in an epoch (see `Fit.steps`), which callbacks find
                in their `params`: `None` for 0.
            validation_steps: Integer, number of batches of the largest shard in a validation.

        Returns:
            Vector of new weights; `None` if no callback changed them.
        """
        self._steps, self._validation_steps = steps, validation_steps
        self._callbacks.set_params({**self._params, "steps": steps or None})
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
        """Run the callbacks of an epoch's beginning, and of the beginning of its batches.

        Returns:
            Vector of new weights; `None` if no callback changed them.
        """
        with interruptible():
            self._callbacks.on_epoch_begin(epoch)
            self._batches_over = False
            if self.has_batch_hooks:
                self._callbacks.on_train_batch_begin(0)
        return self._changed()

    def pass_batches(self, done: int, vector: np.ndarray | None, logs: dict[str, Any]) -> None:
        """Run the callbacks between two batches, while the workers train the epoch.

        They do not run any more in an epoch in which one of them has stopped training.

        Args:
            done: Integer, number of batches of the epoch that are trained.
            vector: Vector of the merged weights; `None` if the model has them.
            logs: Dictionary of the metrics of all workers together.

        Raises:
            ValueError: If a callback sets weights or step counters, which the workers could only
                take over between two epochs.
        """
        if self._batches_over:
            return
        if self._settled is None:
            self._settled = self._given
        if vector is not None:
            self._show(vector)
        counters = self.replica.counters
        with interruptible():
            self._callbacks.on_train_batch_end(done - 1, dict(logs))
            self._batches_over = self.stopped
            if not self.stopped:
                self._callbacks.on_train_batch_begin(done)
        if self._changed() is not None or self.replica.counters != counters:
            rule = (
                "free of hooks of batches that set weights or the optimizer's `iterations` while "
                "the workers train: set them in `on_epoch_begin` or `on_epoch_end`, or train with "
                "`worker_callbacks`"
            )
            raise invalid("callbacks", rule, Described(f"changes after {done} batches"))

    def end_batches(
        self, vector: np.ndarray, logs: dict[str, Any], steps: int | None = None
    ) -> np.ndarray | None:
        """Run the callbacks of the end of an epoch's batches.

        Args:
            vector: Vector of the merged weights.
            logs: Dictionary of the metrics of all workers together, without validation.
            steps: Integer, number of batches in the epoch. Defaults to `None`, as `begin` said.

        Returns:
            Vector of new weights; `None` if no callback changed them.
        """
        if not self.has_batch_hooks:
            return None
        self._show(vector)
        self._settled = None
        if self._batches_over:
            return None
        with interruptible():
            self._callbacks.on_train_batch_end((steps or self._steps) - 1, dict(logs))
        return self._changed()

    def leave_epoch(self) -> None:
        """Give the model the weights that it had before the hooks of batches, if an epoch failed.

        They belong to the optimizer's state, which the model gets at the end of an epoch.
        """
        if self._settled is not None:
            self._show(self._settled)
            self._settled = None

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
            if self.has_batch_hooks:
                self._callbacks.on_test_batch_begin(0)
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
            if self.has_batch_hooks:
                self._callbacks.on_test_batch_end(self._validation_steps - 1, dict(logs))
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
        self._show(vector)
        self._logs = dict(logs)
        self.progress.num_examples = num_examples
        if self._stops_on_nan and not self.stopped and not losses_are_finite(logs):
            # `TerminateOnNaN` itself looks at `loss` only, which own training steps may not have.
            logger.warning("Training stops: a loss of epoch %d is NaN or infinite.", epoch + 1)
            self.replica.model.stop_training = True
        with interruptible():
            self._callbacks.on_epoch_end(epoch, logs)
        return self._changed()

    def _optimizer_state(self) -> list[np.ndarray]:
        """Return the optimizer's state; an empty list if no callbacks can change it."""
        return self.replica.get_optimizer_state() if self._watched else []

    def _show(self, vector: np.ndarray) -> None:
        """Give callbacks the merged weights."""
        self.replica.set_vector(vector)
        self._given = self.replica.get_vector()

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
            self._callbacks.on_train_end(self._logs)


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
