"""Rows as tensors, and compiled loops over their batches that are shared by similar windows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from kspark.replica.backends.base import cast_floats
from kspark.replica.backends.row_cache import MAX_KEPT_BYTES, RowCache
from kspark.shards import Window

Shapes = tuple[tuple[int | None, ...], ...]


class Rows:
    """A window's rows as tensors, in stored order.

    Args:
        groups: Tuples of tensors: inputs, targets and sample weights.
    """

    def __init__(self, groups: tuple[tuple[Any, ...], ...]) -> None:
        self.groups = groups
        self.flat = [tensor for group in groups for tensor in group]
        self.shapes: Shapes = tuple(tuple(t.shape[1:]) for t in self.flat)
        types = tuple((t.dtype.as_datatype_enum, len(t.shape)) for t in self.flat)
        self.kind: Hashable = (tuple(map(len, groups)), types)

    @classmethod
    def of(cls, window: Window) -> Rows:
        """Convert the rows of a window."""
        groups = (window.x, window.y, window.sample_weight)
        return cls(tuple(tuple(as_tensor(array) for array in group) for group in groups))

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        return sum(t.shape.num_elements() * t.dtype.size for t in self.flat)

    def regrouped(self, flat: tuple[Any, ...]) -> tuple[tuple[Any, ...], ...]:
        """Arrange a flat sequence of tensors in the same groups as `groups`."""
        tensors = iter(flat)
        return tuple(tuple(next(tensors) for _ in group) for group in self.groups)


def as_tensor(array: np.ndarray) -> Any:
    """Convert an array to a tensor of the dtype that `keras.Model.fit` uses, text to `string`."""
    if array.dtype.kind in "OU":
        return tf.convert_to_tensor(array.astype(object), tf.string)
    return tf.constant(cast_floats(array))


def batch_of(window: Window, size: int, index: int) -> Window:
    """Return the inputs of batch `index`, of `size` rows, as a window of their own."""
    rows: Any = slice(index * size, (index + 1) * size)
    if window.order is not None:
        rows = window.order[rows]
    return Window([array[rows] for array in window.x])


def joined(tensors: list[Any]) -> np.ndarray:
    """Convert the tensors of consecutive rows to one array."""
    arrays = [tensor.numpy() for tensor in tensors]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


@lru_cache(maxsize=4096)
def number(value: int) -> Any:
    """Convert an integer to a tensor. Cached, because creating one takes longer than using it."""
    return tf.constant(value, tf.int32)


class TensorCache:
    """Rows and their order as tensors, kept for later epochs.

    Args:
        max_bytes: Integer, see `RowCache`.
    """

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._rows = RowCache(Rows.of, max_bytes)
        self._order: tuple[np.ndarray | None, Any] = (None, None)

    def load(self, window: Window) -> tuple[Rows, Any]:
        """Return the rows of a window as tensors, and their order as a tensor."""
        rows = self._rows.load(window)
        if window.order is None:
            return rows, tf.range(window.num_examples)
        if window.order is not self._order[0]:
            self._order = window.order, tf.constant(np.asarray(window.order, np.int32))
        return rows, self._order[1]


class Loop:
    """A function of rows and tensors that is compiled at its first call.

    The function is traced for windows of any length. When a second window differs in the
    length of its texts or sequences, it is traced again for any such length. A trace is
    called directly, because TensorFlow's lookup takes longer than a step of a small model.

    Args:
        body: Function of the groups of tensors and the call's tensors, such as the rows' order.
        eager: Boolean, whether to call it without compiling it.
    """

    def __init__(self, body: Callable[..., Any], eager: bool) -> None:
        self._body = body
        self._eager = eager
        self._shapes: dict[Hashable, Shapes] = {}
        self._compiled: dict[Hashable, Any] = {}

    def __call__(self, rows: Rows, *tensors: Any) -> Any:
        """Call the function, and compile it first if necessary."""
        if self._eager:
            return self._body(rows.groups, *tensors)
        compiled = self._compiled.get((rows.kind, rows.shapes))
        if compiled is None:
            compiled = self._compile(rows, tensors)
        return compiled(*rows.flat, *tensors)

    def _compile(self, rows: Rows, tensors: tuple[Any, ...]) -> Any:
        known = self._shapes.get(rows.kind)
        shapes = rows.shapes if known is None else common(known, rows.shapes)
        if shapes != known:
            self._compiled[rows.kind, shapes] = self._traced(rows, shapes, tensors)
            self._shapes[rows.kind] = shapes
        compiled = self._compiled[rows.kind, shapes]
        self._compiled[rows.kind, rows.shapes] = compiled
        return compiled

    def _traced(self, rows: Rows, shapes: Shapes, tensors: tuple[Any, ...]) -> Any:
        def flat(*arguments: Any) -> Any:
            count = len(rows.flat)
            return self._body(rows.regrouped(arguments[:count]), *arguments[count:])

        specs = [
            *(tf.TensorSpec([None, *s], t.dtype) for s, t in zip(shapes, rows.flat, strict=True)),
            *(tf.TensorSpec([None] * len(t.shape), t.dtype) for t in tensors),
        ]
        return tf.function(flat, autograph=False).get_concrete_function(*specs)


def common(left: Shapes, right: Shapes) -> Shapes:
    """Merge shapes of the same ranks: an axis whose lengths differ becomes `None`."""
    return tuple(
        tuple(a if a == b else None for a, b in zip(one, other, strict=True))
        for one, other in zip(left, right, strict=True)
    )


def repeat(step: Callable[[Any], Any], start: Any, stop: Any) -> None:
    """Call `step(i)` for each `i` in `[start, stop)`, in order."""

    def body(i: Any) -> list[Any]:
        step(i)
        return [i + 1]

    tf.while_loop(lambda i: i < stop, body, [start], parallel_iterations=1)


def repeat_keeping(step: Callable[[Any], Any], start: Any, stop: Any) -> Any:
    """Repeat as `repeat` does, and return the last step's value. Needs at least one step."""
    last = step(start)
    _, last = tf.while_loop(
        lambda i, _: i < stop,
        lambda i, _: (i + 1, step(i)),
        [start + 1, last],
        parallel_iterations=1,
    )
    return last
