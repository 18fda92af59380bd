"""Parts of the TensorFlow engine: flat vectors, calls into Python, rows as tensors, loops."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kspark.backends.base import Exchange, cast_floats
from kspark.weights import same_kind

if TYPE_CHECKING:
    from kspark.shards import Window

MAX_WINDOW_BYTES = 256 * 2**20
"""Rows that stay in memory as tensors: two windows of the usual size, to train and to validate."""


class FlatVector:
    """Variables as one vector, read and written in one compiled call each.

    Args:
        variables: List of Keras variables with floating point values.
        dtype: NumPy dtype of the vector.
    """

    def __init__(self, variables: Sequence[Any], dtype: np.dtype) -> None:
        self.variables = list(variables)
        self._dtype = tf.as_dtype(dtype)
        self._shapes = [tuple(v.shape) for v in self.variables]
        self._sizes = [prod(shape) for shape in self._shapes]
        vector = tf.TensorSpec([sum(self._sizes)], self._dtype)
        self._read = tf.function(self.concatenated, autograph=False)
        self._write = tf.function(self.assign, input_signature=[vector], autograph=False)

    def get(self, out: np.ndarray | None = None) -> np.ndarray:
        """The values as a NumPy vector, written into `out` if given."""
        values = self._read()
        if out is None:
            result: np.ndarray = values.numpy()
            return result
        np.copyto(out, np.asarray(memoryview(values)))
        return out

    def set(self, vector: np.ndarray) -> None:
        """Set the values; the vector is copied."""
        self._write(tf.constant(vector))

    def concatenated(self) -> Any:
        """The values as one tensor."""
        return self.flatten([v.value for v in self.variables])

    def assign(self, vector: Any) -> None:
        """Set the values from one tensor."""
        for variable, part in zip(self.variables, self.split(vector), strict=True):
            variable.assign(tf.cast(part, variable.dtype))

    def flatten(self, tensors: Sequence[Any]) -> Any:
        """One tensor per variable as a vector; `None` (no gradient) becomes zeros."""
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
        """A vector as one tensor per variable."""
        parts = tf.split(vector, self._sizes) if self.variables else []
        return [tf.reshape(p, shape) for p, shape in zip(parts, self._shapes, strict=True)]


class HostCall:
    """Lets a compiled loop call Python in its middle, and brings exceptions out as they are.

    TensorFlow runs the call on a thread of its own while the caller's thread
    waits for the loop to end.
    """

    def __init__(self) -> None:
        self._exchange: Exchange | None = None
        self._error: BaseException | None = None

    def call(self, vector: Any, count: Any) -> Any:
        """Inside a loop: the exchange's answer to a vector, as a tensor of its shape."""
        answer = tf.numpy_function(self._answer, [vector, count], vector.dtype)
        return tf.ensure_shape(answer, vector.shape)

    @contextmanager
    def calling(self, exchange: Exchange) -> Iterator[None]:
        """Around a loop: what its calls reach.

        Raises:
            BaseException: Whatever the exchange raised; it ends the loop.
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

    def _answer(self, vector: np.ndarray, count: np.ndarray) -> np.ndarray:
        try:
            return self._asked(vector, int(count))
        except BaseException as error:
            # The end of TensorFlow's own thread, which would keep the text alone.
            self._error = error
            raise

    def _asked(self, vector: np.ndarray, count: int) -> np.ndarray:
        if self._exchange is None:
            raise RuntimeError("A compiled loop outlived its call.")
        answer = self._exchange(vector, count)
        if answer is None:
            return vector
        same_kind(answer, vector)
        # TensorFlow goes on using the memory that it is given, and so may its owner.
        return answer.copy()


class WindowTensors:
    """Windows as tensors. Those whose rows come again are kept, the latest first.

    Args:
        max_bytes: Integer, how much to keep.
    """

    def __init__(self, max_bytes: int = MAX_WINDOW_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def load(self, window: Window) -> tuple[Any, Any]:
        """Rows as three tuples of tensors (inputs, targets, sample weights), and their order."""
        rows = self._rows(window)
        if window.order is None:
            return rows, tf.range(window.num_examples)
        return rows, tf.constant(np.asarray(window.order, np.int32))

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()

    def _rows(self, window: Window) -> Any:
        if window.key is None:
            return tensors_of(window)
        rows = self._kept.pop(window.key, None)
        if rows is None:
            rows = tensors_of(window)
        self._kept[window.key] = rows
        while len(self._kept) > 1 and sum(map(num_bytes, self._kept.values())) > self._max_bytes:
            self._kept.popitem(last=False)
        return rows


def tensors_of(window: Window) -> Any:
    """A window's arrays as three tuples of tensors."""
    groups = (window.x, window.y, window.sample_weight)
    return tuple(tuple(as_tensor(array) for array in group) for group in groups)


def as_tensor(array: np.ndarray) -> Any:
    """One array as a tensor, in the dtype `keras.Model.fit` gives it; text becomes `string`."""
    if array.dtype.kind in "OU":
        return tf.convert_to_tensor(array.astype(object), tf.string)
    return tf.constant(cast_floats(array))


def num_bytes(rows: Any) -> int:
    """Memory behind some tensors; text is counted by its pointers."""
    return sum(int(tf.size(t)) * t.dtype.size for group in rows for t in group)


def repeat(step: Callable[[Any], Any], start: Any, stop: Any) -> None:
    """Call `step(i)` for i in [start, stop), one after the other."""

    def body(i: Any) -> list[Any]:
        step(i)
        return [i + 1]

    tf.while_loop(lambda i: i < stop, body, [start], parallel_iterations=1)


def repeat_keeping(step: Callable[[Any], Any], start: Any, stop: Any) -> Any:
    """As `repeat`, and what the last step returned. There must be at least one step."""
    last = step(start)
    _, last = tf.while_loop(
        lambda i, _: i < stop,
        lambda i, _: (i + 1, step(i)),
        [start + 1, last],
        parallel_iterations=1,
    )
    return last
