"""The TensorFlow backend: run a pass over a window in one compiled call.

A call from Python into TensorFlow takes longer than a step of a small model. So
the compiled function contains the loop over the batches. The rows of a window are
tensors, and each batch is gathered from them in the window's order. The exchange
with the aggregator is also called from inside the loop (`HostCall`).

The steps are Keras' `train_step`, `test_step` and `predict_step`, or the model's
overrides of them. They are compiled with the model's `jit_compile`, or not at all
with `run_eagerly`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kspark.replica.backends.base import Exchange, flat_logs, flat_outputs, pack, track_loss
from kspark.replica.backends.tensorflow_losses import counting
from kspark.replica.backends.tensorflow_rows import (
    Loop,
    Rows,
    TensorCache,
    as_tensor,
    batch_of,
    joined,
    number,
    repeat,
    repeat_keeping,
)
from kspark.replica.backends.tensorflow_vector import FlatVector, HostCall, LazilyCompiled
from kspark.shards import num_batches
from kspark.weights import TRAINABLE

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec

logger = logging.getLogger("kspark")

Step = Callable[[Any], Any]


def configure_threads(threads: int, name: str = "tensorflow") -> None:
    """Limit TensorFlow's thread pools, which is only possible before its first operation.

    Args:
        threads: Integer >= 1, size of both the intra-op and the inter-op pool.
        name: String, the backend's name. Ignored.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        now = tf.config.threading.get_intra_op_parallelism_threads()
        if now != threads:
            logger.warning(
                "TensorFlow has already started and keeps its %d threads (0 means all cores), "
                "although %d were requested.",
                now,
                threads,
            )


def text_tensor(array: np.ndarray) -> Any:
    """Return an array of text or bytes as a tensor."""
    return as_tensor(array)


class Engine:
    """Runs one model's steps in compiled loops, as a `kspark.replica.backends.base.Engine`.

    Args:
        model: A compiled, built `keras.Model`.
        variables: List of Keras variables, one per entry of `spec`.
        spec: `WeightSpec` of the model.
        inputs: `InputSpec` of the model.
    """

    def __init__(
        self, model: keras.Model, variables: Sequence[Any], spec: WeightSpec, inputs: InputSpec
    ) -> None:
        self.logs: dict[str, float] | None = None
        self._model = model
        self._inputs = inputs
        roles = [w.role for w in spec.weights]
        trainable = [variables[i] for i, _ in spec.parts if roles[i] == TRAINABLE]
        self._weights = FlatVector([variables[i] for i, _ in spec.parts], spec.dtype)
        self._trainable = FlatVector(trainable, spec.dtype)
        self._connected = [True] * len(trainable)
        self._rows = TensorCache()
        self._host = HostCall()
        self._has_own_step = type(model).train_step is not keras.Model.train_step
        self._loss_takes_training = "training" in inspect.signature(model.compute_loss).parameters
        self._compile()

    def _compile(self) -> None:
        self._train_step = self._compiled_step(self._model.train_step)
        self._test_step = self._compiled_step(self._model.test_step)
        self._predict_step = self._compiled_step(self._model.predict_step)
        self._gradient_step = self._compiled_step(self._loss_gradient)
        eager = bool(self._model.run_eagerly)
        self._train = Loop(self._train_loop, eager)
        self._train_exchanging = Loop(self._exchanging_loop, eager)
        self._train_merging = Loop(self._merging_loop, eager)
        self._evaluate = Loop(self._test_loop, eager)
        self._predict = Loop(self._predict_batch, eager)
        self._apply: Callable[[Any], None] = self._apply_mean
        if not eager:
            self._apply = LazilyCompiled(self._apply_mean, self._trainable.spec, eager_calls=0)

    def _compiled_step(self, step: Step) -> Step:
        if self._model.run_eagerly:
            return step
        compiled: Step = tf.function(
            counting(self._model, step),
            autograph=False,
            reduce_retracing=True,
            jit_compile=self._model.jit_compile,
        )
        return compiled

    # -- interface --------------------------------------------------------------------------

    def prepare(self, window: Window) -> None:
        """Create the metrics' variables with one row of a window, and reset the metrics."""
        model = self._model
        if self._has_own_step or type(model).test_step is not keras.Model.test_step:
            return  # A model with custom steps manages its metrics itself.
        model.test_step(self._first_rows(window, 1))
        model.reset_metrics()

    def forget_rows(self) -> None:
        """Free the rows that it keeps as tensors."""
        self._rows = TensorCache()

    def seed_backend(self, value: int) -> None:
        """Do nothing: Keras draws all random numbers with variables of the model."""

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the mergeable weights as one vector, written into `out` if given."""
        return self._weights.get(out)

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the mergeable weights. The vector is copied."""
        self._weights.set(vector)

    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches `[start, stop)` of a window."""
        if start >= stop:
            return
        logs = self._train(
            *self._rows.load(window), number(batch_size), number(start), number(stop)
        )
        if logs is not None:
            self.logs = flat_logs(logs)

    def train_exchanging(
        self, window: Window, batch_size: int, start: int, stops: Sequence[int], exchange: Exchange
    ) -> None:
        """Train up to each batch in `stops`, and then exchange all weights."""
        if not len(stops):
            return
        with self._host.calling(exchange):
            self._train_exchanging(
                *self._rows.load(window),
                number(batch_size),
                number(start),
                tf.constant(np.asarray(stops, np.int32)),
            )

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Train as `train` does, but exchange each gradient before applying it."""
        if start >= stop:
            return
        with self._host.calling(exchange):
            self._train_merging(
                *self._rows.load(window), number(batch_size), number(start), number(stop)
            )

    def apply_gradient(self, vector: np.ndarray) -> None:
        """Take one optimizer step with a gradient."""
        self._apply(tf.constant(vector))

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Update the metrics with the rows of a window."""
        stop = num_batches(window.num_examples, batch_size)
        if stop:
            self._evaluate(*self._rows.load(window), number(batch_size), number(stop))

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Predict the rows of a window. Returns one array per output.

        Each batch is a call of its own. A loop in TensorFlow would copy the rows of every batch,
        and the outputs, once more.
        """
        stop = max(num_batches(window.num_examples, batch_size), 1)
        parts = [self._predict(Rows.of(batch_of(window, batch_size, i))) for i in range(stop)]
        return [joined(list(tensors)) for tensors in zip(*parts, strict=True)]

    def loss(self, window: Window) -> float:
        """Compute the loss of a window as one batch, without training."""
        data = self._first_rows(window, window.num_examples)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        training = {"training": False} if self._loss_takes_training else {}
        y_pred = self._model(x, training=False)
        loss = self._model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **training
        )
        return float(tf.reduce_sum(loss))

    # -- compiled loops ---------------------------------------------------------------------

    def _first_rows(self, window: Window, count: int) -> Any:
        groups = (window.x, window.y, window.sample_weight)
        return pack(self._inputs, *([as_tensor(a[:count]) for a in g] for g in groups))

    def _batch(self, rows: Any, order: Any, size: Any, index: Any) -> Any:
        """Gather batch `index` in the structure of the model's inputs."""
        chosen = order[index * size : (index + 1) * size]
        groups = [[tf.gather(t, chosen) for t in group] for group in rows]
        return pack(self._inputs, *groups)

    def _train_loop(self, rows: Any, order: Any, size: Any, start: Any, stop: Any) -> Any:
        def step(i: Any) -> Any:
            return self._train_step(self._batch(rows, order, size, i))

        if not self._has_own_step:
            repeat(step, start, stop)
            return None
        return repeat_keeping(step, start, stop)

    def _exchanging_loop(self, rows: Any, order: Any, size: Any, start: Any, stops: Any) -> None:
        num_examples = tf.shape(order)[0]

        def piece(k: Any, first: Any) -> tuple[Any, Any]:
            repeat(lambda i: self._train_step(self._batch(rows, order, size, i)), first, stops[k])
            count = tf.minimum(stops[k] * size, num_examples) - first * size
            self._weights.assign(self._host.call(self._weights.concatenated(), count))
            return k + 1, stops[k]

        tf.while_loop(lambda k, _: k < tf.shape(stops)[0], piece, [0, start], parallel_iterations=1)

    def _merging_loop(self, rows: Any, order: Any, size: Any, start: Any, stop: Any) -> None:
        def step(i: Any) -> None:
            vector, count = self._gradient_step(self._batch(rows, order, size, i))
            self._apply_mean(self._host.call(vector, count))

        repeat(step, start, stop)

    def _test_loop(self, rows: Any, order: Any, size: Any, stop: Any) -> None:
        repeat(lambda i: self._test_step(self._batch(rows, order, size, i)), tf.constant(0), stop)

    def _predict_batch(self, rows: Any) -> list[Any]:
        return flat_outputs(self._predict_step(pack(self._inputs, rows[0])))

    # -- parts of a training step -----------------------------------------------------------

    def _loss_gradient(self, data: Any) -> tuple[Any, Any]:
        """Run Keras' `train_step` up to the optimizer.

        Returns:
            Tuple of the gradient as a vector, and the number of examples.
        """
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        count = tf.shape(flat_outputs(x)[0])[0]
        training = {"training": True} if self._loss_takes_training else {}
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **training
            )
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [v.value for v in self._trainable.variables])
        self._connected = [g is not None for g in gradients]
        track_loss(model, loss, count)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return self._trainable.flatten(gradients), count

    def _apply_mean(self, vector: Any) -> None:
        """Take one optimizer step with a gradient vector.

        Variables on which the loss does not depend are omitted, as in Keras, so that
        they get no weight decay either.
        """
        gradients = self._trainable.split(vector)
        connected = zip(gradients, self._trainable.variables, self._connected, strict=True)
        self._model.optimizer.apply_gradients([(g, v) for g, v, used in connected if used])
