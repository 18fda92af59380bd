"""Weight the mean losses of single outputs by examples in compiled steps too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from kspark.replica.backends.base import flat_outputs

MISSING = object()
"""Default of `sample_weight`, to distinguish a missing argument from `None`."""


def counting(model: keras.Model, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap a step, to be compiled, so that each output's mean loss is weighted by examples.

    For a model with several outputs, Keras weights the mean loss of each by the batch's
    static length. In a graph the static length is `None`, so that a short batch counts
    as much as a full one, and the sum of the workers' states depends on how the data is
    divided.

    Args:
        model: A compiled `keras.Model`.
        step: One of its steps.

    Returns:
        A function with the step's argument and return value.
    """

    def counted(data: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        # Any of these may be the mean loss of an output: Keras has no public way to know. They
        # exist in the second trace at the latest, which TensorFlow uses if the first trace
        # creates variables.
        means = [m for m in model.metrics if type(m) is keras.metrics.Mean]
        with weighted_by(means, tf.shape(flat_outputs(x)[0])[0]):
            return step(data)

    return counted


@contextmanager
def weighted_by(means: list[keras.metrics.Mean], count: Any) -> Iterator[None]:
    """Use `count` as the weight of means that are updated with `sample_weight=None`.

    Only Keras passes `None`. A mean of the user's own, updated without a weight, still
    counts batches as it does in Keras.
    """
    for mean in means:
        mean.update_state = with_weight(mean.update_state, count)
    try:
        yield
    finally:
        for mean in means:
            del mean.update_state


def with_weight(update: Callable[..., Any], count: Any) -> Callable[..., Any]:
    """Wrap a mean's `update_state` to replace the weight `None` by `count`."""

    def update_state(values: Any, sample_weight: Any = MISSING) -> Any:
        if sample_weight is MISSING:
            return update(values)
        return update(values, sample_weight=count if sample_weight is None else sample_weight)

    return update_state
