"""Models whose right result is known. Driver and executors import this module."""

from __future__ import annotations

import platform
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pyspark import TaskContext


@keras.saving.register_keras_serializable("tests.hosts")
class RowCount(keras.metrics.Metric):
    """The number of rows."""

    def __init__(self, name: str = "rows", **more: Any) -> None:
        super().__init__(name=name, **more)
        self.rows = self.add_variable((), "zeros", name="rows")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.rows.assign_add(keras.ops.cast(keras.ops.shape(y_true)[0], self.dtype))

    def result(self) -> Any:
        return self.rows


@keras.saving.register_keras_serializable("tests.hosts")
class Slow(keras.layers.Layer):
    """Passes its inputs on, after some seconds in each batch that an executor trains.

    Args:
        seconds: Float.
        host: String, the only host on which it is slow. Defaults to `None`, on all.
        shard: Integer, the only shard for which it is slow. Defaults to `None`, for all.
    """

    def __init__(
        self, seconds: float, host: str | None = None, shard: int | None = None, **more: Any
    ) -> None:
        super().__init__(**more)
        self.seconds, self.host, self.shard = seconds, host, shard

    def call(self, inputs: Any) -> Any:
        if TaskContext.get() is None:
            return inputs
        outputs = tf.numpy_function(self.wait, [inputs], inputs.dtype)
        return tf.ensure_shape(outputs, inputs.shape)

    def wait(self, values: np.ndarray) -> np.ndarray:
        context = TaskContext.get()
        here = self.host in (None, platform.node())
        if here and (self.shard is None or context is None or context.partitionId() == self.shard):
            time.sleep(self.seconds)
        return values

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "seconds": self.seconds,
            "host": self.host,
            "shard": self.shard,
        }


def counting(slow: Slow) -> keras.Model:
    """A model of one weight, to which every batch adds exactly 1."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), slow, dense])
    model.compile(keras.optimizers.SGD(1.0), "mae", metrics=[RowCount()], jit_compile=False)
    return model


def counting_rows(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose gradient is -1: the labels are far above all predictions."""
    x = np.ones((number, 1), "float32")
    return x, np.full_like(x, 1e6)


def perceptron(slow: Slow, optimizer: str = "adam") -> keras.Model:
    """A model whose weights depend on every batch and on the state of its optimizer."""
    keras.utils.set_random_seed(3)
    # The slow layer comes first, because nobody can differentiate it.
    layers = [slow, keras.layers.Dense(16, "relu"), keras.layers.Dense(4, "softmax")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=[RowCount()], jit_compile=False)
    return model


def stateless(slow: Slow) -> keras.Model:
    """A perceptron whose optimizer keeps no state that could be lost with a host."""
    return perceptron(slow, "sgd")


def perceptron_rows(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of four classes."""
    random = np.random.default_rng(5)
    x = random.normal(size=(number, 8)).astype("float32")
    return x, (x @ random.normal(size=(8, 4))).argmax(axis=1).astype("int32")


MODELS = {
    "counting": (counting, counting_rows),
    "perceptron": (perceptron, perceptron_rows),
    "stateless": (stateless, perceptron_rows),
}
