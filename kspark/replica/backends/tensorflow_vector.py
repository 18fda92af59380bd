"""Variables as one vector in TensorFlow, and calls of Python from inside a compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from kspark.replica.backends.base import Exchange
from kspark.weights import same_kind

EAGER_CALLS = 16
"""Number of calls before a function is compiled: they take about as long as compiling it."""


class LazilyCompiled:
    """A function that is compiled after a number of calls.

    Args:
        function: Function of tensors.
        *specs: A `tf.TensorSpec` for each of its arguments.
        eager_calls: Integer, number of calls before it is compiled.
    """

    def __init__(
        self, function: Callable[..., Any], *specs: Any, eager_calls: int = EAGER_CALLS
    ) -> None:
        self._function = function
        self._specs = specs
        self._left = eager_calls

    def __call__(self, *tensors: Any) -> Any:
        """Call the function, and compile it first if it is time."""
        if self._left == 0:
            compiled = tf.function(self._function, autograph=False)
            self._function = compiled.get_concrete_function(*self._specs)
        self._left -= 1
        return self._function(*tensors)


class FlatVector:
    """Variables as one vector. Reading and writing it are one compiled call each.

    Args:
        variables: List of Keras variables with floating point values.
        dtype: NumPy dtype of the vector.
    """

    def __init__(self, variables: Sequence[Any], dtype: np.dtype) -> None:
        self.variables = list(variables)
        self._dtype = tf.as_dtype(dtype)
        self._shapes = [tuple(v.shape) for v in self.variables]
        self._sizes = [prod(shape) for shape in self._shapes]
        self.spec = tf.TensorSpec([sum(self._sizes)], self._dtype)
        self._read = LazilyCompiled(self.concatenated)
        self._write = LazilyCompiled(self.assign, self.spec)

    def get(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the values as a NumPy vector, written into `out` if given."""
        values = self._read()
        if out is None:
            result: np.ndarray = values.numpy()
            return result
        np.copyto(out, np.asarray(memoryview(values)))
        return out

    def set(self, vector: np.ndarray) -> None:
        """Set the values. The vector is copied."""
        self._write(tf.constant(vector))

    def concatenated(self) -> Any:
        """Return the values as one tensor."""
        return self.flatten([v.value for v in self.variables])

    def assign(self, vector: Any) -> None:
        """Set the values from one tensor."""
        for variable, part in zip(self.variables, self.split(vector), strict=True):
            variable.assign(tf.cast(part, variable.dtype))

    def flatten(self, tensors: Sequence[Any]) -> Any:
        """Concatenate one tensor per variable; `None` (no gradient) becomes zeros."""
        if not self.variables:
            return tf.zeros([0], self._dtype)
        parts = [
            tf.zeros([size], self._dtype)
            if tensor is None
            else tf.reshape(tf.cast(tf.convert_to_tensor(tensor), self._dtype), [-1])
            for tensor, size in zip(tensors, self._sizes, strict=True)
        ]
        return tf.concat(parts, 0)

    def split(self, vector: Any) -> list[Any]:
        """Split a vector into one tensor per variable."""
        parts = tf.split(vector, self._sizes) if self.variables else []
        return [tf.reshape(p, shape) for p, shape in zip(parts, self._shapes, strict=True)]


class HostCall:
    """Lets a compiled loop call Python, and raises the exceptions of that call unchanged.

    TensorFlow makes the call in a thread of its own while the caller's thread waits
    for the loop to end.
    """

    def __init__(self) -> None:
        self._exchange: Exchange | None = None
        self._error: BaseException | None = None

    def call(self, vector: Any, count: Any) -> Any:
        """Call the exchange from inside a loop, and return its vector as a tensor."""
        result = tf.numpy_function(self._result, [vector, count], vector.dtype)
        return tf.ensure_shape(result, vector.shape)

    @contextmanager
    def calling(self, exchange: Exchange) -> Iterator[None]:
        """Set the exchange that loops inside this block call.

        Raises:
            BaseException: The exchange's exception, which ends the loop.
        """
        self._exchange, self._error = exchange, None
        try:
            yield
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            self._exchange = self._error = None

    def _result(self, vector: np.ndarray, count: np.ndarray) -> np.ndarray:
        try:
            return self._exchanged(vector, int(count))
        except BaseException as error:
            # TensorFlow's thread ends here and would only keep the exception's text.
            self._error = error
            raise

    def _exchanged(self, vector: np.ndarray, count: int) -> np.ndarray:
        if self._exchange is None:
            raise RuntimeError("A compiled loop called its exchange after the loop had ended.")
        result = self._exchange(vector, count)
        if result is None:
            return vector
        same_kind(result, vector)
        # Copy: TensorFlow keeps using the memory, and the exchange may change its array.
        return result.copy()
