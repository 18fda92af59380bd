"""The PyTorch backend: run Keras' steps over the batches of a window.

The rows of a window are tensors, from which each batch is gathered. The steps are Keras'
`train_step`, `test_step` and `predict_step`, or the model's overrides of them, called directly:
`keras.Model.train_on_batch` would convert each batch anew. They are compiled with `torch.compile`
if the model has `jit_compile=True`, as in Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import torch

from kspark.replica.backends.base import (
    Exchange,
    PassByPass,
    batch_examples,
    cast_floats,
    flat_logs,
    flat_outputs,
    pack,
    structured,
    track_loss,
)
from kspark.replica.backends.row_cache import RowCache
from kspark.shards import num_batches
from kspark.weights import TRAINABLE, same_kind

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec


def configure_threads(threads: int, name: str = "torch") -> None:
    """Limit the threads of PyTorch.

    Args:
        threads: Integer >= 1.
        name: String, the backend's name. Ignored.
    """
    torch.set_num_threads(threads)


def text_tensor(array: np.ndarray) -> np.ndarray:
    """Return the array: torch has no text, and the layers of Keras take arrays of it."""
    return array


class Rows:
    """A window's rows as tensors, in stored order.

    Args:
        window: `Window`.
    """

    def __init__(self, window: Window) -> None:
        groups = (window.x, window.y, window.sample_weight)
        self.groups = tuple(tuple(as_tensor(array) for array in group) for group in groups)

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        return sum(t.element_size() * t.nelement() for group in self.groups for t in group)


def as_tensor(array: np.ndarray) -> Any:
    """Convert an array to a tensor on Keras' device, of the dtype that `keras.Model.fit` uses."""
    array = cast_floats(array)
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()  # torch cannot use such memory
    return keras.ops.convert_to_tensor(array)


class Engine(PassByPass):
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
        super().__init__(variables, spec)
        self._model = model
        self._inputs = inputs
        self._has_own_step = type(model).train_step is not keras.Model.train_step
        self._rows: RowCache[Rows] = RowCache(Rows)
        self._trainable = [
            self._variables[i] for i, _ in spec.parts if spec.weights[i].role == TRAINABLE
        ]
        self._connected = [True] * len(self._trainable)
        self._loss_gradient = self._step(self._loss_and_gradients)
        self._train_step = self._step(model.train_step)
        self._test_step = self._step(model.test_step)
        self._predict_step = self._step(model.predict_step)

    def _step(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        if not self._model.jit_compile or self._model.run_eagerly:
            return step
        compiled: Callable[[Any], Any] = torch.compile(step)
        return compiled

    def prepare(self, window: Window) -> None:
        """Create the metrics' variables with one row of a window, and reset the metrics."""
        model = self._model
        if self._has_own_step or type(model).test_step is not keras.Model.test_step:
            return  # A model with custom steps manages its metrics itself.
        groups = (window.x, window.y, window.sample_weight)
        model.eval()
        with torch.no_grad():
            model.test_step(pack(self._inputs, *([as_tensor(a[:1]) for a in g] for g in groups)))
        model.reset_metrics()

    def forget_rows(self) -> None:
        """Free the rows that it keeps."""
        self._rows.forget()

    def seed_backend(self, value: int) -> None:
        """Seed PyTorch's generator, from which Keras draws for layers without a seed."""
        torch.manual_seed(value)

    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches `[start, stop)` of a window."""
        self._model.train()
        logs: Any = None
        for index in range(start, stop):
            logs = self._train_step(self._batch(window, batch_size, index))
        if self._has_own_step and logs is not None:
            self.logs = flat_logs(logs)

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Train as `train` does, but exchange each gradient before applying it."""
        self._model.train()
        for index in range(start, stop):
            self._loss_gradient(self._batch(window, batch_size, index))
            count = batch_examples(window.num_examples, batch_size, index, index + 1)
            vector = self._gradient_vector()
            answer = exchange(vector, count)
            if answer is not None:
                same_kind(answer, vector)
            self.apply_gradient(vector if answer is None else answer)

    def apply_gradient(self, vector: np.ndarray) -> None:
        """Take one optimizer step with a gradient.

        Variables on which the loss does not depend are omitted, as in Keras.
        """
        gradients, start = [], 0
        for variable in self._trainable:
            size = variable.value.nelement()
            part = as_tensor(np.array(vector[start : start + size]))
            gradients.append(part.reshape(variable.shape).to(variable.value.dtype))
            start += size
        connected = zip(gradients, self._trainable, self._connected, strict=True)
        with torch.no_grad():
            self._model.optimizer.apply_gradients([(g, v) for g, v, used in connected if used])

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Update the metrics with the rows of a window."""
        self._model.eval()
        with torch.no_grad():
            for index in range(num_batches(window.num_examples, batch_size)):
                self._test_step(self._batch(window, batch_size, index))

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Predict the rows of a window. Returns one array per output."""
        self._model.eval()
        names = [a.name for a in self._inputs.inputs]
        parts = []
        for index in range(max(num_batches(window.num_examples, batch_size), 1)):
            chosen = window.numbers[index * batch_size : (index + 1) * batch_size]
            arrays = [as_tensor(array[chosen]) for array in window.x]
            features = structured(arrays, names, self._inputs.x_structure)
            with torch.no_grad():
                parts.append(flat_outputs(self._predict_step((features,))))
        return [
            np.concatenate([keras.ops.convert_to_numpy(part) for part in group])
            for group in zip(*parts, strict=True)
        ]

    def loss(self, window: Window) -> float:
        """Compute the loss of a window as one batch, without training."""
        model = self._model
        groups = (window.x, window.y, window.sample_weight)
        rows = pack(self._inputs, *([as_tensor(a) for a in g] for g in groups))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(rows)
        model.eval()
        with torch.no_grad():
            y_pred = model(x, training=False)
            loss = model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
            )
        return float(loss.sum())

    def _batch(self, window: Window, size: int, index: int) -> Any:
        """Gather batch `index` in the structure of the model's inputs."""
        chosen = torch.from_numpy(window.numbers[index * size : (index + 1) * size].copy())
        groups = [
            [t.index_select(0, chosen.to(t.device)) for t in group]
            for group in self._rows.load(window).groups
        ]
        return pack(self._inputs, *groups)

    def _loss_and_gradients(self, data: Any) -> None:
        """Run Keras' `train_step` up to the optimizer. The gradients stay with the variables."""
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = model(x, training=True)
        model.zero_grad()
        loss = model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
        )
        track_loss(model, loss, len(flat_outputs(x)[0]))
        model.optimizer.scale_loss(loss).backward()
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _gradient_vector(self) -> np.ndarray:
        self._connected = [v.value.grad is not None for v in self._trainable]
        parts = [
            keras.ops.convert_to_numpy(v.value.grad).reshape(-1).astype(self._spec.dtype)
            if used
            else np.zeros(v.value.nelement(), self._spec.dtype)
            for v, used in zip(self._trainable, self._connected, strict=True)
        ]
        return np.concatenate(parts)
