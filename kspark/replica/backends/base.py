"""The interface of a Keras backend, and functions that all backends share.

A backend is a module with the members of `Backend`: two functions and `Engine`. An
engine runs the steps of one model over windows of rows. Windows contain flat
lists of NumPy arrays; `pack` arranges them in the structure that the model takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec

Exchange = Callable[[np.ndarray, int], "np.ndarray | None"]
"""Function of a vector and its number of examples. Returns the vector to continue with, or `None`
to keep the one that was passed."""


class Engine(Protocol):
    """Runs one model's steps. Only one thread may use it at a time."""

    logs: dict[str, float] | None
    """The values that a custom `train_step` returned last; `None` without one."""

    def __init__(
        self, model: Any, variables: Sequence[Any], spec: WeightSpec, inputs: InputSpec
    ) -> None: ...

    def prepare(self, window: Window) -> None:
        """Create the metrics' variables with one row of a window, and reset the metrics."""

    def forget_rows(self) -> None:
        """Free the rows that it keeps as tensors."""

    def seed_backend(self, value: int) -> None:
        """Seed the random numbers that the backend draws without a variable of the model."""

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the mergeable weights as one vector, written into `out` if given."""

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the mergeable weights. The vector is copied."""

    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches `[start, stop)` of a window."""

    def train_exchanging(
        self,
        window: Window,
        batch_size: int,
        start: int,
        stops: Sequence[int],
        exchange: Exchange,
    ) -> None:
        """Train up to each batch in `stops`, and then exchange all weights."""

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """Train as `train` does, but exchange each gradient before applying it."""

    def apply_gradient(self, vector: np.ndarray) -> None:
        """Take one optimizer step with a gradient."""

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Update the metrics with the rows of a window."""

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """Predict the rows of a window. Returns one array per output."""

    def loss(self, window: Window) -> float:
        """Compute the loss of a window as one batch, without training."""


class PassByPass(ABC):
    """The parts of an engine that exchanges between two passes, and not inside a compiled loop.

    Args:
        variables: Sequence of Keras variables, one per entry of `spec`.
        spec: `WeightSpec` of the model.
    """

    def __init__(self, variables: Sequence[Any], spec: WeightSpec) -> None:
        self.logs: dict[str, float] | None = None
        self._variables = list(variables)
        self._spec = spec

    @abstractmethod
    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches `[start, stop)` of a window."""

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the mergeable weights as one vector, written into `out` if given."""
        import keras

        return self._spec.flatten(
            [keras.ops.convert_to_numpy(v.value) for v in self._variables], out
        )

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the mergeable weights. The vector is copied."""
        for i, values in self._spec.unflatten(vector).items():
            self._variables[i].assign(values.copy())

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


class Backend(Protocol):
    """The members of a backend's module."""

    Engine: type[Engine]

    def configure_threads(self, threads: int, name: str) -> None:
        """Limit the threads of the backend `name`. Call it before the first operation."""

    def text_tensor(self, array: np.ndarray) -> Any:
        """Return text or bytes as the layers of Keras take them."""


def pack(
    inputs: InputSpec, x: Sequence[Any], y: Sequence[Any] = (), weights: Sequence[Any] = ()
) -> Any:
    """Arrange flat lists as Keras' `train_step`, `test_step` and `predict_step` take them.

    Args:
        inputs: `InputSpec` of the model.
        x: Sequence of arrays or tensors, one per input.
        y: Sequence of arrays or tensors, one per target; empty without labels.
        weights: Sequence of sample weights: none, one for all targets, or one per target.

    Returns:
        `x`, `(x, y)` or `(x, y, sample_weight)`.
    """
    import keras

    features = structured(x, [a.name for a in inputs.inputs], inputs.x_structure)
    if not y:
        return keras.utils.pack_x_y_sample_weight(features)
    labels = per_output(y, inputs)
    if not weights:
        return keras.utils.pack_x_y_sample_weight(features, labels)
    # One array of sample weights applies to every output, as in `keras.Model.fit`.
    per_target = list(weights) if len(weights) == len(y) else [weights[0]] * len(y)
    return keras.utils.pack_x_y_sample_weight(features, labels, per_output(per_target, inputs))


def per_output(values: Sequence[Any], inputs: InputSpec) -> Any:
    """Arrange one value per target by outputs, with `None` for outputs that are no targets."""
    names = [a.name for a in inputs.targets]
    if inputs.outputs:
        found = dict(zip(names, values, strict=True))
        names, values = list(inputs.outputs), [found.get(name) for name in inputs.outputs]
    return structured(values, names, inputs.y_structure)


def structured(values: Sequence[Any], names: Sequence[str], structure: str) -> Any:
    """Arrange a flat list as one value (`"single"`), a tuple (`"list"`) or a dictionary."""
    if structure == "single":
        return values[0]
    if structure == "list":
        return tuple(values)
    return dict(zip(names, values, strict=True))


def track_loss(model: Any, loss: Any, count: Any) -> None:
    """Add the loss of a batch to the metric in which Keras' `train_step` tracks it."""
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(loss, sample_weight=count)
            break


def flat_logs(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return what a custom `train_step` returned as numbers. Those of nested mappings move up."""
    flat: dict[str, float] = {}
    for name, value in logs.items():
        flat |= flat_logs(value) if isinstance(value, Mapping) else {name: float(value)}
    return flat


def flat_outputs(outputs: Any) -> list[Any]:
    """Flatten a model's outputs; the values of a dictionary are ordered by key."""
    if isinstance(outputs, dict):
        return [v for key in sorted(outputs) for v in flat_outputs(outputs[key])]
    if isinstance(outputs, list | tuple):
        return [v for item in outputs for v in flat_outputs(item)]
    return [outputs]


def cast_floats(array: np.ndarray) -> np.ndarray:
    """Cast floating point arrays to Keras' default float type, as `keras.Model.fit` does."""
    import keras

    if np.issubdtype(array.dtype, np.floating) and array.dtype.name != keras.config.floatx():
        return array.astype(keras.config.floatx())
    return array


def batch_examples(num_examples: int, batch_size: int, start: int, stop: int) -> int:
    """Return the number of examples in batches `[start, stop)`."""
    return min(stop * batch_size, num_examples) - min(start * batch_size, num_examples)
