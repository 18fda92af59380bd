"""The losses of single outputs, weighted by examples in graphs as they are outside of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from kspark.replica.backends.base import flat_outputs

MISSING = object()
"""Stands for a weight that was not passed at all."""


def counting(model: keras.Model, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step of a model, to be compiled, in which every output's loss counts the batch's examples.

    Keras weights the mean loss of each of several outputs by the batch's static
    length. In a graph that is `None`, so that a short batch counts as much as a long
    one, and sums of workers' states say something else for each way to divide the data.

    Args:
        model: A compiled `keras.Model`.
        step: One of its steps.
    """

    def counted(data: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        with weighing(loss_means(model), tf.shape(flat_outputs(x)[0])[0]):
            return step(data)

    return counted


def loss_means(model: keras.Model) -> list[keras.metrics.Mean]:
    """Metrics that may be the mean loss of an output; Keras has no public way to tell.

    They are there from the second trace on at the latest, which is the one that
    TensorFlow uses if the first one creates variables.
    """
    return [m for m in model.metrics if type(m) is keras.metrics.Mean]


@contextmanager
def weighing(means: list[keras.metrics.Mean], count: Any) -> Iterator[None]:
    """Let means whose weight is given as `None` use `count` instead.

    Only Keras gives it as `None`; a mean of the user's own, updated without any
    weight, goes on counting batches as it does in Keras.
    """
    for mean in means:
        mean.update_state = weighed(mean.update_state, count)
    try:
        yield
    finally:
        for mean in means:
            del mean.update_state


def weighed(update: Callable[..., Any], count: Any) -> Callable[..., Any]:
    """A mean's `update_state` with `count` in the place of `None`."""

    def update_state(values: Any, sample_weight: Any = MISSING) -> Any:
        if sample_weight is MISSING:
            return update(values)
        return update(values, sample_weight=count if sample_weight is None else sample_weight)

    return update_state
