"""JAX and torch: call `train_on_batch` for each batch, through Keras' public methods only.

This is slower than a compiled loop but works on every Keras backend. It cannot
exchange gradients, because the public methods do not return them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kspark.replica.backends.base import (
    Exchange,
    batch_examples,
    cast_floats,
    flat_logs,
    flat_outputs,
    pack,
    structured,
)
from kspark.shards import num_batches

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec


def configure_threads(threads: int, name: str) -> None:
    """Limit the backend's threads.

    JAX reads its limit when it starts, so call this before its first operation.

    Args:
        threads: Integer >= 1.
        name: String, `"jax"` or `"torch"`.
    """
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ.setdefault("NPROC", str(threads))


def text_tensor(array: np.ndarray) -> np.ndarray:
    """Return the array: these backends have no tensors of text, and layers take arrays."""
    return array


class Engine:
    """Runs one model's steps batch by batch, as a `kspark.replica.backends.base.Engine`.

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
        self._variables = list(variables)
        self._spec = spec
        self._inputs = inputs
        self._has_own_step = type(model).train_step is not keras.Model.train_step

    def prepare(self, window: Window) -> None:
        """Do nothing: on these backends Keras creates the metrics' variables itself."""

    def forget_rows(self) -> None:
        """Do nothing: it keeps no rows."""

    def seed_backend(self, value: int) -> None:
        """Seed torch's generator, from which Keras draws for `Dropout`. JAX has none."""
        if keras.backend.backend() == "torch":
            import torch

            torch.manual_seed(value)

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the mergeable weights as one vector, written into `out` if given."""
        return self._spec.flatten(
            [keras.ops.convert_to_numpy(v.value) for v in self._variables], out
        )

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the mergeable weights. The vector is copied."""
        for i, values in self._spec.unflatten(vector).items():
            self._variables[i].assign(values.copy())

    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches `[start, stop)` of a window."""
        logs: Any = None
        with keeping_metrics(self._model):
            for data in self._batches(window, batch_size, start, stop):
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
                logs = self._model.train_on_batch(x, y, sample_weight, return_dict=True)
        if self._has_own_step and logs is not None:
            self.logs = flat_logs(logs)

    def train_exchanging(
        self, window: Window, batch_size: int, start: int, stops: Sequence[int], exchange: Exchange
    ) -> None:
        """Train up to each batch in `stops`, and then exchange all weights."""
        for stop in stops:
            self.train(window, batch_size, start, stop)
            count = batch_examples(window.num_examples, batch_size, start, stop)
            answer = exchange(self.get_vector(), count)
            if answer is not None:
                self.set_vector(answer)
            start = stop

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Raise `ValueError`: gradients are not available on these backends."""
        raise no_gradients()

    def apply_gradient(self, vector: np.ndarray) -> None:
        """Raise `ValueError`: gradients are not available on these backends."""
        raise no_gradients()

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Update the metrics with the rows of a window."""
        stop = num_batches(window.num_examples, batch_size)
        with keeping_metrics(self._model):
            for data in self._batches(window, batch_size, 0, stop):
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
                self._model.test_on_batch(x, y, sample_weight)

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Predict the rows of a window. Returns one array per output."""
        stop = max(num_batches(window.num_examples, batch_size), 1)
        names = [a.name for a in self._inputs.inputs]
        outputs = []
        for x, _, _ in self._rows(window, batch_size, 0, stop):
            features = structured(x, names, self._inputs.x_structure)
            outputs.append(flat_outputs(self._model.predict_on_batch(features)))
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]

    def loss(self, window: Window) -> float:
        """Raise `ValueError`: only the checks of gradient merging use this loss."""
        raise no_gradients()

    def _batches(self, window: Window, batch_size: int, start: int, stop: int) -> Iterator[Any]:
        for x, y, weights in self._rows(window, batch_size, start, stop):
            yield pack(self._inputs, x, y, weights)

    def _rows(
        self, window: Window, batch_size: int, start: int, stop: int
    ) -> Iterator[tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]]:
        for index in range(start, stop):
            rows: Any = slice(index * batch_size, (index + 1) * batch_size)
            if window.order is not None:
                rows = window.order[rows]
            x, y, weights = (
                [cast_floats(array[rows]) for array in group]
                for group in (window.x, window.y, window.sample_weight)
            )
            yield x, y, weights


@contextmanager
def keeping_metrics(model: keras.Model) -> Iterator[None]:
    """Keep metrics over batches: `train_on_batch` of later Keras versions resets them."""
    model.reset_metrics = lambda: None
    try:
        yield
    finally:
        del model.reset_metrics


def no_gradients() -> ValueError:
    """Return the error for all methods that need a gradient."""
    return ValueError(
        'mode="synchronous" with frequency="batch" merges gradients, which needs the Keras '
        f"backend 'tensorflow'. Received: backend={keras.backend.backend()!r}. "
        'Use frequency="epoch", or a number of batches.'
    )
