"""What a Keras backend has to do for a replica, and what all of them do alike.

A backend is a module with two names: `configure_threads` and `Engine`. An
engine runs the steps of one model over windows of rows. Windows hold flat
lists of NumPy arrays; `pack` gives them the structure the model was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from kspark.shards import InputSpec, Window
    from kspark.weights import WeightSpec

Exchange = Callable[[np.ndarray, int], "np.ndarray | None"]
"""Called with a vector and the examples behind it; the vector to go on from, or `None` to keep."""


class Engine(Protocol):
    """Runs one model's steps. One thread at a time."""

    logs: dict[str, float] | None
    """What a custom `train_step` returned last, if it is not the model's metrics."""

    def __init__(
        self, model: Any, variables: Sequence[Any], spec: WeightSpec, inputs: InputSpec
    ) -> None: ...

    def prepare(self, window: Window) -> None:
        """Create the metrics' variables from one row of a window; metrics begin anew."""

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """The merged weights as one vector."""

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the merged weights; `vector` is not kept."""

    def train(self, window: Window, batch_size: int, start: int, stop: int) -> None:
        """Train on batches [start, stop) of a window."""

    def train_exchanging(
        self,
        window: Window,
        batch_size: int,
        start: int,
        stops: Sequence[int],
        exchange: Exchange,
    ) -> None:
        """Train up to each batch in `stops`, and exchange all weights there."""

    def train_merging(
        self, window: Window, batch_size: int, start: int, stop: int, exchange: Exchange
    ) -> None:
        """As `train`, with every gradient exchanged before it is applied."""

    def gradient(self, window: Window, batch_size: int, index: int) -> tuple[np.ndarray, int]:
        """Gradient of one batch, and the batch's examples."""

    def apply_gradient(self, vector: np.ndarray) -> None:
        """One optimizer step."""

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Add a window to the metrics."""

    def predict(self, window: Window, batch_size: int) -> list[np.ndarray]:
        """One array per output."""

    def loss(self, window: Window) -> float:
        """Loss over a window as one batch, not training."""

    def forget(self) -> None:
        """Let go of windows that were kept from earlier calls."""


class Backend(Protocol):
    """A module of this package."""

    Engine: type[Engine]

    def configure_threads(self, threads: int, name: str) -> None:
        """Limit the threads of backend `name`, before its first operation."""


def pack(
    inputs: InputSpec, x: Sequence[Any], y: Sequence[Any] = (), weights: Sequence[Any] = ()
) -> Any:
    """What Keras' `train_step` and its kin take, from flat lists.

    Args:
        inputs: `InputSpec` of the model.
        x: One array or tensor per input.
        y: One per target; empty without labels.
        weights: Sample weights: none, one for all targets, or one per target.

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
    # As `keras.Model.fit` does: one weight column counts for every output.
    per_target = list(weights) if len(weights) == len(y) else [weights[0]] * len(y)
    return keras.utils.pack_x_y_sample_weight(features, labels, per_output(per_target, inputs))


def per_output(values: Sequence[Any], inputs: InputSpec) -> Any:
    """One value per target as Keras takes them: `None` for outputs that are no targets."""
    names = [a.name for a in inputs.targets]
    if inputs.outputs:
        found = dict(zip(names, values, strict=True))
        names, values = list(inputs.outputs), [found.get(name) for name in inputs.outputs]
    return structured(values, names, inputs.y_structure)


def structured(values: Sequence[Any], names: Sequence[str], structure: str) -> Any:
    """A flat list as one value (`"single"`), a tuple (`"list"`) or a dictionary (`"dict"`)."""
    if structure == "single":
        return values[0]
    if structure == "list":
        return tuple(values)
    return dict(zip(names, values, strict=True))


def flat_outputs(outputs: Any) -> list[Any]:
    """A model's outputs as a list: dictionaries by sorted key, everything else in order."""
    if isinstance(outputs, dict):
        return [v for key in sorted(outputs) for v in flat_outputs(outputs[key])]
    if isinstance(outputs, list | tuple):
        return [v for item in outputs for v in flat_outputs(item)]
    return [outputs]


def cast_floats(array: np.ndarray) -> np.ndarray:
    """Floats in Keras' default float type, as `keras.Model.fit` casts them; all else as it is."""
    import keras

    if np.issubdtype(array.dtype, np.floating) and array.dtype.name != keras.config.floatx():
        return array.astype(keras.config.floatx())
    return array


def batch_examples(num_examples: int, batch_size: int, start: int, stop: int) -> int:
    """Examples in batches [start, stop)."""
    return min(stop * batch_size, num_examples) - min(start * batch_size, num_examples)
