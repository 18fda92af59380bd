"""`Replica`: a live model in a process, trained window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kspark.replica.backends.base import Exchange
from kspark.replica.checks import (
    check_loss_is_mean,
    check_metrics_are_sums,
    check_model,
    has_custom_metric,
    kept_fixed,
)
from kspark.replica.metrics import build_metrics
from kspark.replica.signature import (
    LIST,
    build_model,
    input_spec,
    is_arrays,
    output_names,
    rearranged,
)
from kspark.replica.state import ReplicaState
from kspark.replica.variables import weight_spec
from kspark.shards import num_batches

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec


class Replica(ReplicaState):
    """A compiled model that trains on windows and gives its weights as one vector.

    On a worker it is made by `ReplicaSpec.build`; on the driver, around the user's
    own model, by `Replica.of`. It is for one thread at a time.

    Args:
        model: A compiled, built `keras.Model` with a built optimizer.
        spec: `WeightSpec` of the model; the names may be another process's.
        inputs: `InputSpec` of the model.
        custom_objects: Mapping from name to class or function, for names among the
            compile arguments that Keras looks up at the first step only.
    """

    def __init__(
        self,
        model: keras.Model,
        spec: WeightSpec,
        inputs: InputSpec,
        custom_objects: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, spec, inputs)
        self._objects = dict(custom_objects or {})
        self._prepared = False
        self._summable = False

    @classmethod
    def of(cls, model: keras.Model, x: Any = None) -> Replica:
        """A replica around the user's own model, on the driver.

        Args:
            model: A compiled `keras.Model`. Its optimizer is built if it is not; the model
                itself too, from `x`.
            x: Arrays of input, a row at least, for a model that was defined without an
                input shape.

        Raises:
            ValueError: If the model is not compiled, or not built and `x` holds no arrays.
        """
        example = x if is_arrays(x) else None
        if example is not None and isinstance(model, keras.Model):
            build_model(model, example)
        check_model(model)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        return cls(model, weight_spec(model), input_spec(model, example))

    def train(
        self, window: Window, batch_size: int, start: int = 0, stop: int | None = None
    ) -> None:
        """Train on batches [start, stop) of a window, each followed by an optimizer step.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch; the window's last one may be short.
            start: Integer, first batch.
            stop: Integer, batch to stop before; `None` for all.
        """
        stop = num_batches(window.num_examples, batch_size) if stop is None else stop
        with self._training(window, batch_size):
            self._engine.train(window, batch_size, start, stop)

    def train_exchanging(
        self,
        window: Window,
        batch_size: int,
        start: int,
        stops: Sequence[int],
        exchange: Exchange,
    ) -> None:
        """Train, and exchange the weights after certain batches, all in one compiled loop.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch.
            start: Integer, first batch.
            stops: Increasing integers: train up to each, then exchange.
            exchange: Called with the merged weights (a vector that is its own) and the
                number of examples since the last exchange. Returns the vector to go on
                from, which is copied, or `None` to go on as it is. It may raise, which
                ends training; it must not use the replica meanwhile.
        """
        with self._training(window, batch_size):
            self._engine.train_exchanging(window, batch_size, start, stops, exchange)

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Train with gradients that are merged with other replicas', in one compiled loop.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch.
            start: Integer, first batch.
            stop: Integer, batch to stop before.
            exchange: As in `train_exchanging`, but called with a batch's gradient
                (`spec.trainable_size` elements); returns the gradient to apply.

        Raises:
            ValueError: If the backend does not show gradients.
        """
        with self._training(window, batch_size):
            self._engine.train_merging(window, batch_size, start, stop, exchange)

    def gradient(self, window: Window, batch_size: int, index: int) -> tuple[np.ndarray, int]:
        """Forward and backward over one batch. Metrics and state change, weights do not.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch.
            index: Integer, which batch.

        Returns:
            Tuple of the gradient, a vector of `spec.trainable_size` elements, and the
            number of examples.

        Raises:
            ValueError: If the backend does not show gradients.
        """
        with self._ready(window):
            return self._engine.gradient(window, batch_size, index)

    def apply_gradient(self, vector: np.ndarray) -> None:
        """One optimizer step with a gradient, this replica's own or a mean of several."""
        self._engine.apply_gradient(vector)

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Add the rows of a window to the metrics, loss included."""
        with self._ready(window):
            self._engine.evaluate(window, batch_size)

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Outputs for the rows of a window, one array per output (see `structured_outputs`)."""
        with keras.saving.custom_object_scope(self._objects):
            return self._engine.predict(window, batch_size)

    def structured_outputs(self, outputs: list[np.ndarray]) -> Any:
        """What `predict` gave, in the structure `keras.Model.predict` returns."""
        names, structure = output_names(self.model)
        if structure == LIST and len(outputs) == 1:
            return outputs[0]
        return rearranged(outputs, names, structure)

    def loss(self, window: Window) -> float:
        """Loss over a window taken as one batch; nothing is trained, and no metric changes."""
        with self._ready(window):
            return self._engine.loss(window)

    def forget_windows(self) -> None:
        """Let go of rows that were kept in memory for the next epoch."""
        self._engine.forget()

    def prepare_metrics(self, shards: Iterable[Any] = ()) -> None:
        """Create the metrics' variables without any data, as the driver needs them.

        Args:
            shards: `ShardHandle`s, or anything else with the labels' `StoredArray`s in `y`.
        """
        if self._prepared:
            return
        with keras.saving.custom_object_scope(self._objects), kept_fixed(self):
            build_metrics(self.model, self.inputs, shards)
        self._prepared = True

    def check_summable(self, window: Window, batch_size: int) -> None:
        """Make sure that metric states of several replicas may be added. Looks once only.

        Args:
            window: `Window` with at least one row to try it on.
            batch_size: Integer, examples per batch.

        Raises:
            ValueError: If they may not; the metric is named.
        """
        if not self._summable:
            check_metrics_are_sums(self, window, batch_size)
        self._summable = True

    def check_gradient_merging(self, window: Window, batch_size: int) -> None:
        """Make sure, on two batches, that the loss is a mean over its examples.

        Args:
            window: `Window` with at least one row to try it on.
            batch_size: Integer, examples per batch.

        Raises:
            ValueError: If it is not, so that gradients of several replicas must not be merged.
        """
        check_loss_is_mean(self, window, batch_size)

    @contextmanager
    def _training(self, window: Window, batch_size: int) -> Iterator[None]:
        """As `_ready`, and sure that the user's own metrics add up over the replicas.

        Keras' own do, and are not tried, which would compile evaluation.
        """
        with self._ready(window):
            if window.num_examples and not self._summable and has_custom_metric(self.model.metrics):
                self.check_summable(window, batch_size)
            yield

    @contextmanager
    def _ready(self, window: Window) -> Iterator[None]:
        """Within the custom objects' names, and with the metrics' variables created.

        Creating them inside the first compiled step would compile it twice.
        """
        with keras.saving.custom_object_scope(self._objects):
            if not self._prepared and window.num_examples:
                with kept_fixed(self):
                    self._engine.prepare(window)
                self._prepared = True
            yield
