"""Create a model's metric variables without data.

Keras creates them in the first step, from the shapes of labels and outputs.
The driver has no rows, so it runs the loss and the metrics on zeros of these shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.replica.backends.base import per_output, structured
from kspark.replica.signature import arranged, output_tensors, rearranged
from kspark.shards import TEXT

if TYPE_CHECKING:
    import keras

    from kspark.shards import InputSpec, ShardHandle

Zeros = tuple[tuple[int, ...], str]
"""Shape per example and dtype of an array of zeros."""

DEFAULT_LENGTH = 32
"""Length of an input axis of unknown length, which most models accept."""


def build_metrics(
    model: keras.Model, inputs: InputSpec, shards: Iterable[ShardHandle] = ()
) -> None:
    """Create the variables of the model's compiled loss and metrics.

    Args:
        model: A compiled, built `keras.Model`.
        inputs: Its `InputSpec`.
        shards: Iterable of `ShardHandle`, which give the shapes of the labels. Without
            them, the labels are assumed to have the outputs' shapes or, if these do not
            fit, to be class numbers.

    Raises:
        ValueError: If no shape of the labels fits the loss and the metrics.
    """
    if not inputs.targets:
        return
    reason: Exception | None = None
    for labels in label_shapes(model, inputs, shards):
        try:
            run_once(model, inputs, labels)
        except (ValueError, TypeError) as error:
            reason = error
            continue
        model.reset_metrics()
        return
    raise ValueError(f"Loss and metrics do not fit the model's outputs: {reason}") from reason


def run_once(model: keras.Model, inputs: InputSpec, labels: list[Zeros]) -> None:
    """Compute the loss and the metrics of one row of zeros."""
    import keras

    names, tensors, structure = arranged(output_tensors(model))
    x = features_of_zeros(inputs)
    if model.losses:
        # They may be tensors of a graph that no longer exists, and `compute_loss` adds them up.
        model(x, training=False)
    outputs = [keras.ops.zeros((1, *known(t.shape[1:])), dtype=t.dtype) for t in tensors]
    y_pred = rearranged(outputs, names, structure)
    zeros = [keras.ops.zeros((1, *shape), dtype=dtype) for shape, dtype in labels]
    y = per_output(zeros, inputs)
    if may_compute_loss(model):
        model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=None)
    model.compute_metrics(x, y, y_pred)


def may_compute_loss(model: keras.Model) -> bool:
    """Whether training calls `compute_loss`, which raises an error if there is nothing to compute.

    `False` only for a model without a loss that has a `train_step` of its own.
    """
    import keras

    if type(model).train_step is keras.Model.train_step:
        return True
    own = type(model).compute_loss is not keras.Model.compute_loss
    return own or model.loss is not None or bool(model.losses)


def called_on_zeros(model: keras.Model, inputs: InputSpec) -> Any:
    """Return the outputs for one row of zeros, or of empty text.

    The call replaces the losses of `add_loss` and of activity regularizers.
    """
    return model(features_of_zeros(inputs), training=False)


def features_of_zeros(inputs: InputSpec) -> Any:
    """Return the features of one row of zeros, or of empty text, as tensors."""
    import keras

    arrays = [
        np.full((1, *known(a.shape or (), DEFAULT_LENGTH)), "" if a.dtype == TEXT else 0)
        for a in inputs.inputs
    ]
    tensors = [
        keras.ops.convert_to_tensor(array, dtype=spec.dtype or keras.config.floatx())
        for array, spec in zip(arrays, inputs.inputs, strict=True)
    ]
    names = [a.name for a in inputs.inputs]
    return structured(tensors, names, inputs.x_structure)


def label_shapes(
    model: keras.Model, inputs: InputSpec, shards: Iterable[ShardHandle]
) -> Iterator[list[Zeros]]:
    """Yield possible shapes and dtypes of the labels, the most likely first."""
    import keras

    for shard in shards:
        stored = getattr(shard, "y", ())
        if len(stored) == len(inputs.targets) and all(a.dtype != TEXT for a in stored):
            yield [(tuple(a.shape), a.dtype) for a in stored]
            break
    outputs = arranged(output_tensors(model))[1]
    names = inputs.outputs or [t.name for t in inputs.targets]
    wanted = {t.name for t in inputs.targets}
    tensors = [t for n, t in zip(names, outputs, strict=False) if n in wanted]
    floatx = str(keras.config.floatx())
    choices = [((known(t.shape[1:]), floatx), (known(t.shape[1:-1]), "int32")) for t in tensors]
    yield from (list(choice) for choice in product(*choices))


def known(shape: Any, unknown: int = 1) -> tuple[int, ...]:
    """Replace unknown lengths of a shape by `unknown`."""
    return tuple(unknown if n is None else int(n) for n in shape)
