"""The JAX backend: run a pass over a window in one compiled loop.

A call from Python into JAX takes longer than a step of a small model. So the compiled function
contains the loop over the batches, each of which is gathered from the window's rows. JAX compiles
a function for each shape of its arguments. Rows are therefore padded, so that windows of similar
length share a function, and a short last batch is a loop of its own with one step.

The steps are Keras' stateless `train_step`, `test_step` and `predict_step`, or the model's
overrides of them. They are not compiled with `run_eagerly` or `jit_compile=False`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from kspark.replica.backends.base import (
    Exchange,
    PassByPass,
    cast_floats,
    flat_logs,
    flat_outputs,
    pack,
    structured,
    track_loss,
)
from kspark.replica.backends.jax_loops import (
    Rows,
    compiled_repeat,
    compiled_repeat_keeping,
    padded,
    plain_repeat,
    runs,
)
from kspark.replica.backends.row_cache import RowCache
from kspark.shards import num_batches
from kspark.weights import TRAINABLE, same_kind

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec

State = tuple[list[Any], ...]
"""Values of variables: trainable ones, others, then those of the optimizer and of the metrics."""


def configure_threads(threads: int, name: str = "jax") -> None:
    """Limit JAX's threads. It reads the limit when it starts: call this before its first operation.

    Args:
        threads: Integer >= 1.
        name: String, the backend's name. Ignored.
    """
    os.environ.setdefault("NPROC", str(threads))


def text_tensor(array: np.ndarray) -> np.ndarray:
    """Return the array: JAX has no text, and the layers of Keras take arrays of it."""
    return array


class Engine(PassByPass):
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
        super().__init__(variables, spec)
        self._model = model
        self._inputs = inputs
        self._has_own_step = type(model).train_step is not keras.Model.train_step
        self._rows: RowCache[Rows] = RowCache(Rows)
        self._trainable = [i for i, _ in spec.parts if spec.weights[i].role == TRAINABLE]
        self._train = self._loop(model.train_step, plain_repeat)
        self._test = self._loop(self._test_step, plain_repeat)
        self._gradient: Callable[..., Any] = self._gradient_of_batch
        self._apply: Callable[..., Any] = self._applied
        self._predict: Callable[..., Any] = model.predict_step
        if model.jit_compile and not model.run_eagerly:
            self._compile()

    def _compile(self) -> None:
        # Arguments are not donated: if a call failed, the model would have lost its weights.
        repeat = compiled_repeat_keeping if self._has_own_step else compiled_repeat
        train = self._loop(self._model.train_step, repeat)
        test = self._loop(self._test_step, compiled_repeat)
        self._train = jax.jit(train, static_argnames="size")
        self._test = jax.jit(test, static_argnames="size")
        self._gradient = jax.jit(self._gradient_of_batch, static_argnames="size")
        self._apply = jax.jit(self._applied)
        self._predict = jax.jit(self._model.predict_step)

    # -- interface --------------------------------------------------------------------------

    def prepare(self, window: Window) -> None:
        """Create the metrics' variables with one row of a window, and reset the metrics."""
        model = self._model
        if self._has_own_step or type(model).test_step is not keras.Model.test_step:
            return  # A model with custom steps manages its metrics itself.
        groups = (window.x, window.y, window.sample_weight)
        row = pack(self._inputs, *([jnp.asarray(cast_floats(a[:1])) for a in g] for g in groups))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(row)
        y_pred = model(x, training=False)
        model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        model.reset_metrics()

    def forget_rows(self) -> None:
        """Free the rows that it keeps."""
        self._rows.forget()

    def seed_backend(self, value: int) -> None:
        """Do nothing: Keras draws all random numbers with variables of the model."""

    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches `[start, stop)` of a window."""
        if start >= stop:
            return
        state, loaded = self._state(), self._loaded(window)
        for first, count, size in runs(window.num_examples, batch_size, start, stop):
            logs, state = self._train(state, *loaded, first, count, size=size)
        self._assign(state)
        if self._has_own_step:
            self.logs = flat_logs(logs)

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Train as `train` does, but exchange each gradient before applying it."""
        state, loaded = self._state(), self._loaded(window)
        try:
            for index in range(start, stop):
                first = index * batch_size
                size = min(batch_size, window.num_examples - first)
                found, state = self._gradient(state, *loaded, first, size=size)
                vector = np.array(found)  # a copy, which the exchange may change
                answer = exchange(vector, size)
                if answer is not None:
                    same_kind(answer, vector)
                state = self._apply(state, jnp.array(vector if answer is None else answer))
        finally:
            self._assign(state)

    def apply_gradient(self, vector: np.ndarray) -> None:
        """Take one optimizer step with a gradient."""
        # A copy: JAX uses the memory of an array, and may compute with it later on.
        self._assign(self._apply(self._state(), jnp.array(vector)))

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Update the metrics with the rows of a window."""
        stop = num_batches(window.num_examples, batch_size)
        state, loaded = self._state(), self._loaded(window)
        for first, count, size in runs(window.num_examples, batch_size, 0, stop):
            _, state = self._test(state, *loaded, first, count, size=size)
        self._assign(state)

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Predict the rows of a window. Returns one array per output."""
        weights, others, *rest = self._state()
        names = [a.name for a in self._inputs.inputs]
        parts = []
        for index in range(max(num_batches(window.num_examples, batch_size), 1)):
            chosen = window.numbers[index * batch_size : (index + 1) * batch_size]
            arrays = [jnp.asarray(cast_floats(array[chosen])) for array in window.x]
            features = structured(arrays, names, self._inputs.x_structure)
            outputs, others = self._predict((weights, list(others)), (features,))
            parts.append(flat_outputs(outputs))
        self._assign((weights, others, *rest))
        return [
            np.concatenate([np.asarray(part) for part in group])
            for group in zip(*parts, strict=True)
        ]

    def loss(self, window: Window) -> float:
        """Compute the loss of a window as one batch, without training."""
        model = self._model
        groups = (window.x, window.y, window.sample_weight)
        rows = pack(self._inputs, *([jnp.asarray(cast_floats(a)) for a in g] for g in groups))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(rows)
        state = self._state()
        loss, (_, _, others, metrics) = model.compute_loss_and_updates(
            *self._state_without_optimizer(state), x, y, sample_weight, training=False
        )
        self._assign((state[0], others, state[2], metrics))
        return float(jnp.sum(loss))

    # -- state ------------------------------------------------------------------------------

    def _groups(self) -> tuple[list[Any], ...]:
        model = self._model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )

    def _state(self) -> State:
        return tuple([v.value for v in group] for group in self._groups())

    def _assign(self, state: State) -> None:
        for group, values in zip(self._groups(), state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    @staticmethod
    def _state_without_optimizer(state: State) -> State:
        return state[0], state[1], state[3]

    def _loaded(self, window: Window) -> tuple[Any, Any]:
        order = window.numbers.astype(np.int32)
        return self._rows.load(window).groups, padded(order)

    # -- compiled functions -----------------------------------------------------------------

    def _loop(self, step: Callable[..., Any], repeat: Callable[..., Any]) -> Callable[..., Any]:
        def loop(state: State, rows: Any, order: Any, first: Any, count: Any, size: int) -> Any:
            def at(index: Any, state: State) -> tuple[Any, State]:
                data = self._batch(rows, order, first + index * size, size)
                logs, after = step(state, data)
                return logs, tuple(list(values) for values in after)

            return repeat(at, count, state)

        return loop

    def _batch(self, rows: Any, order: Any, first: Any, size: int) -> Any:
        """Gather `size` rows in the structure of the model's inputs."""
        chosen = jax.lax.dynamic_slice_in_dim(order, first, size)
        groups = [[jnp.take(a, chosen, axis=0) for a in group] for group in rows]
        return pack(self._inputs, *groups)

    def _test_step(self, state: State, data: Any) -> tuple[Any, State]:
        logs, after = self._model.test_step(self._state_without_optimizer(state), data)
        return logs, (after[0], after[1], state[2], after[2])

    def _gradient_of_batch(
        self, state: State, rows: Any, order: Any, first: Any, size: int
    ) -> tuple[Any, State]:
        """Run Keras' `train_step` up to the optimizer. Returns the gradient as a vector."""
        model = self._model
        data = self._batch(rows, order, first, size)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        gradient = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
        (_, aux), gradients = gradient(
            *self._state_without_optimizer(state),
            x,
            y,
            sample_weight,
            training=True,
            optimizer_variables=state[2],
        )
        loss, y_pred, others, metrics = aux
        mapping = list(zip(model.metrics_variables, metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            track_loss(model, loss, size)
            model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        found = [scope.get_current_value(v) for v in model.metrics_variables]
        metrics = [old if new is None else new for old, new in zip(metrics, found, strict=True)]
        positions = self._positions()
        flat = [gradients[positions[i]].reshape(-1) for i in self._trainable]
        vector = jnp.concatenate(flat).astype(self._spec.dtype)
        return vector, (state[0], list(others), state[2], metrics)

    def _applied(self, state: State, vector: jax.Array) -> State:
        """Take one optimizer step with a gradient vector."""
        trainable, others, optimizer, metrics = state
        gradients: list[Any] = [None] * len(trainable)
        positions, start = self._positions(), 0
        for i in self._trainable:
            value = trainable[positions[i]]
            part = vector[start : start + value.size]
            gradients[positions[i]] = part.reshape(value.shape).astype(value.dtype)
            start += value.size
        trainable, optimizer = self._model.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        return list(trainable), others, list(optimizer), metrics

    def _positions(self) -> dict[int, int]:
        """Return where each trainable entry of the spec is in `model.trainable_variables`."""
        found = {id(v): k for k, v in enumerate(self._model.trainable_variables)}
        return {i: found[id(self._variables[i])] for i in self._trainable}
