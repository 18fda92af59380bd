"""`Replica`: a model in a process, trained window by window."""

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
    rows_of,
)
from kspark.replica.densifying import DENSE_BYTES, dense_parts
from kspark.replica.metrics import build_metrics
from kspark.replica.preparing import (
    PART_BYTES,
    CarriedExchange,
    Part,
    Preparation,
    Prepare,
    dense,
    is_dense,
    prepared,
)
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
from kspark.shards import SparseRows, num_batches

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec


class Replica(ReplicaState):
    """A compiled model that trains on windows and exchanges its weights as one vector.

    Where the rows of a window are not yet the model's inputs, see `kspark.replica.preparing`.

    A worker makes it with `kspark.replica.building.build`, the driver with `Replica.of`
    from the user's model. Only one thread may use it at a time.

    Args:
        model: A compiled, built `keras.Model` with a built optimizer.
        spec: `WeightSpec` of the model. Its names may differ, as in another process.
        inputs: `InputSpec` of the model.
        custom_objects: Mapping from name to class or function, for names in the
            compile arguments that Keras resolves only in the first step.
        preparation: `Preparation` of the rows of each batch. Defaults to `None`: the arrays of
            windows are the model's inputs, or rows of sparse matrices.

    Attributes:
        alone: Boolean, whether no other replica trains or evaluates, so that there are no metrics
            of others to add.
        part_bytes: Integer, size to which prepared batches are packed together, see `prepared`.
    """

    def __init__(
        self,
        model: keras.Model,
        spec: WeightSpec,
        inputs: InputSpec,
        custom_objects: Mapping[str, Any] | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        super().__init__(model, spec, inputs)
        self.preparation = preparation
        self._objects = dict(custom_objects or {})
        self._prepared = False
        self._summable = False
        self.alone = False
        self.part_bytes = PART_BYTES

    @classmethod
    def of(cls, model: keras.Model, x: Any = None, *, with_labels: bool = False) -> Replica:
        """Make a replica of the user's model on the driver.

        Args:
            model: A compiled `keras.Model`. Its optimizer is built if necessary, and the
                model itself from `x`.
            x: Array, or list or dictionary of arrays, with at least one row of input. Only
                used for a model that was defined without an input shape.
            with_labels: Boolean, see `input_spec`. Defaults to `False`.

        Raises:
            ValueError: If the model is not compiled, or if it is not built and `x` contains
                no arrays.
        """
        example = x if is_arrays(x) else None
        if example is not None and isinstance(model, keras.Model):
            build_model(model, example)
        check_model(model)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        inputs = input_spec(model, example, with_labels=with_labels)
        return cls(model, weight_spec(model), inputs)

    def train(
        self, window: Window, batch_size: int, start: int = 0, stop: int | None = None
    ) -> None:
        """Train on batches `[start, stop)` of a window, with an optimizer step after each.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch. The window's last batch may have fewer.
            start: Integer, first batch. Defaults to `0`.
            stop: Integer, the batch after the last one. Defaults to `None`, the window's end.
        """
        stop = num_batches(window.num_examples, batch_size) if stop is None else stop
        with self._training(window, batch_size):
            for part in self._parts(window, batch_size, start, stop, training=True):
                self._engine.train(part.window, batch_size, part.start, part.stop)

    def train_exchanging(
        self,
        window: Window,
        batch_size: int,
        start: int,
        stops: Sequence[int],
        exchange: Exchange,
    ) -> None:
        """Train and exchange the weights after certain batches, in one compiled loop.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch.
            start: Integer, first batch.
            stops: Sequence of increasing integers. Train up to each of these batches, then
                exchange.
            exchange: Function of the mergeable weights (a vector that it may keep) and the
                number of examples since the last exchange. Returns the vector to continue
                with, which is copied, or `None` to keep the weights. An exception ends
                training. The function must not use the replica.
        """
        stop = stops[-1] if len(stops) else start
        with self._training(window, batch_size):
            if self._preparing(window, training=True) is None:
                self._engine.train_exchanging(window, batch_size, start, stops, exchange)
                return
            carried = CarriedExchange(exchange, stops)
            for part in self._parts(window, batch_size, start, stop, training=True):
                ends = carried.stops_of(part)
                self._engine.train_exchanging(part.window, batch_size, part.start, ends, carried)

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Train with gradients that are merged with those of other replicas, in one compiled loop.

        Args:
            window: `Window`.
            batch_size: Integer, examples per batch.
            start: Integer, first batch.
            stop: Integer, the batch after the last one.
            exchange: As in `train_exchanging`, but called with the gradient of a batch
                (`spec.trainable_size` elements). Returns the gradient to apply.
        """
        with self._training(window, batch_size):
            for part in self._parts(window, batch_size, start, stop, training=True):
                self._engine.train_merging(part.window, batch_size, part.start, part.stop, exchange)

    def apply_gradient(self, vector: np.ndarray) -> None:
        """Take one optimizer step with a gradient, of this replica or averaged over several."""
        self._engine.apply_gradient(vector)

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Update the metrics, including the loss, with the rows of a window."""
        stop = num_batches(window.num_examples, batch_size)
        with self._ready(window):
            for part in self._parts(window, batch_size, 0, stop):
                self._engine.evaluate(part.window, batch_size)

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Predict the rows of a window. Returns one array per output.

        A batch of sparse rows that is larger than `part_bytes` when it is dense is divided.
        """
        if nbytes := sum(a.dense_nbytes for a in window.x if isinstance(a, SparseRows)):
            fitting = self.part_bytes * len(window.x[0]) // nbytes
            batch_size = max(1, min(batch_size, fitting))
        stop = max(num_batches(window.num_examples, batch_size), 1)
        with keras.saving.custom_object_scope(self._objects):
            parts = self._parts(window, batch_size, 0, stop)
            outputs = [self._engine.predict(part.window, batch_size) for part in parts]
        if len(outputs) == 1:
            return outputs[0]
        return [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]

    def seed_backend(self, value: int) -> None:
        """Seed the random numbers that are drawn without a variable of the model.

        These are those of the backend, and those of `preparation`.
        """
        super().seed_backend(value)
        if self.preparation is not None:
            self.preparation.seed(value)

    def forget_rows(self) -> None:
        """Free the rows that are kept for the next epoch."""
        self._engine.forget_rows()

    def structured_outputs(self, outputs: list[np.ndarray]) -> Any:
        """Arrange the outputs of `predict` as `keras.Model.predict` does."""
        names, structure = output_names(self.model)
        if structure == LIST and len(outputs) == 1:
            return outputs[0]
        return rearranged(outputs, names, structure)

    def loss(self, window: Window) -> float:
        """Compute the loss of a window as one batch, without training or updating metrics."""
        with self._ready(window):
            return self._engine.loss(self._as_one_batch(window))

    def prepare_metrics(self, shards: Iterable[Any] = ()) -> None:
        """Create the metrics' variables without data, as on the driver.

        Args:
            shards: Iterable of `ShardHandle`, or of other objects with the `StoredArray` of
                each target in `y`.
        """
        if self._prepared:
            return
        with keras.saving.custom_object_scope(self._objects), kept_fixed(self):
            build_metrics(self.model, self.inputs, shards)
        self._prepared = True

    def check_summable(self, window: Window, batch_size: int) -> None:
        """Check that metric states of several replicas can be added.

        Only the first call checks, and only if there are several replicas.

        Args:
            window: `Window` with at least one row, used for the check.
            batch_size: Integer, examples per batch.

        Raises:
            ValueError: If the states cannot be added. The message names the metric.
        """
        if self.alone or self._summable:
            return
        check_metrics_are_sums(self, window, batch_size)
        self._summable = True

    def check_gradient_merging(self, window: Window, batch_size: int) -> None:
        """Check on two batches that the loss is a mean over its examples.

        Args:
            window: `Window` with at least one row, used for the check.
            batch_size: Integer, examples per batch.

        Raises:
            ValueError: If it is not, so that gradients of several replicas cannot be merged.
        """
        check_loss_is_mean(self, window, batch_size)

    @contextmanager
    def _training(self, window: Window, batch_size: int) -> Iterator[None]:
        """Prepare as `_ready` does, and check that custom metrics add up over replicas.

        Keras' own metrics do. They are not checked, because that would compile evaluation.
        """
        with self._ready(window):
            if window.num_examples and has_custom_metric(self.model.metrics):
                self.check_summable(window, batch_size)
            yield

    @contextmanager
    def _ready(self, window: Window) -> Iterator[None]:
        """Enter the scope of the custom objects, and create the metrics' variables.

        If the first compiled step created them, TensorFlow would compile it twice.
        """
        with keras.saving.custom_object_scope(self._objects):
            if not self._prepared and window.num_examples:
                with kept_fixed(self):
                    self._engine.prepare(self._as_one_batch(window, 1))
                self._prepared = True
            yield

    def _preparing(self, window: Window, *, training: bool) -> Prepare | None:
        """Return how to prepare the batches of a window, or `None` if the model takes its rows."""
        preparation = self.preparation
        if preparation is None or not preparation.applies(training=training):
            return None if is_dense(window) else lambda chunk, number: dense(chunk)
        return lambda chunk, number: preparation(dense(chunk), number, training=training)

    def _parts(
        self, window: Window, batch_size: int, start: int, stop: int, *, training: bool = False
    ) -> Iterator[Part]:
        """Yield batches `[start, stop)` of a window as windows that the model can take."""
        prepare = self._preparing(window, training=training)
        if prepare is None:
            yield Part(window, start, stop)
        elif self.preparation is None:
            limit = min(DENSE_BYTES, self.part_bytes)
            yield from dense_parts(window, batch_size, start, stop, limit)
        else:
            yield from prepared(window, batch_size, start, stop, prepare, self.part_bytes)

    def _as_one_batch(self, window: Window, count: int | None = None) -> Window:
        """Return the first rows of a window, or all, as one batch that the model can take."""
        if self._preparing(window, training=False) is None:
            return window
        rows = rows_of(window, window.numbers[:count])
        (part,) = self._parts(rows, max(rows.num_examples, 1), 0, 1)
        return part.window
