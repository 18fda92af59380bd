"""Rows as tensors, and loops over their batches that are compiled once for windows alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kspark.replica.backends.base import cast_floats

if TYPE_CHECKING:
    from kspark.shards import Window

MAX_KEPT_BYTES = 256 * 2**20
"""Rows that stay in memory as tensors: two windows of the usual size, to train and to validate."""

Shapes = tuple[tuple[int | None, ...], ...]


class Rows:
    """A window's rows as tensors, in the order they lie.

    Args:
        groups: Tuples of tensors: inputs, targets and sample weights.
    """

    def __init__(self, groups: tuple[tuple[Any, ...], ...]) -> None:
        self.groups = groups
        self.flat = [tensor for group in groups for tensor in group]
        self.nbytes = sum(int(tf.size(t)) * t.dtype.size for t in self.flat)
        self.shapes: Shapes = tuple(tuple(t.shape[1:]) for t in self.flat)
        types = tuple((t.dtype.as_datatype_enum, len(t.shape)) for t in self.flat)
        self.kind: Hashable = (tuple(map(len, groups)), types)

    @classmethod
    def of(cls, window: Window) -> Rows:
        """The rows of a window."""
        groups = (window.x, window.y, window.sample_weight)
        return cls(tuple(tuple(as_tensor(array) for array in group) for group in groups))

    def regrouped(self, flat: tuple[Any, ...]) -> tuple[tuple[Any, ...], ...]:
        """Other tensors in the place of `flat`, as `groups`."""
        left = iter(flat)
        return tuple(tuple(next(left) for _ in group) for group in self.groups)


def as_tensor(array: np.ndarray) -> Any:
    """One array as a tensor, in the dtype `keras.Model.fit` gives it; text becomes `string`."""
    if array.dtype.kind in "OU":
        return tf.convert_to_tensor(array.astype(object), tf.string)
    return tf.constant(cast_floats(array))


@lru_cache(maxsize=4096)
def number(value: int) -> Any:
    """A small integer as a tensor. Kept, because making one takes longer than using it."""
    return tf.constant(value, tf.int32)


class KeptRows:
    """Windows as tensors. Those whose rows come again are kept, the latest first.

    Args:
        max_bytes: Integer, how much to keep.
    """

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, Rows] = OrderedDict()
        self._order: tuple[np.ndarray | None, Any] = (None, None)

    def load(self, window: Window) -> tuple[Rows, Any]:
        """Rows as tensors, and their order as one more."""
        rows = self._rows(window)
        if window.order is None:
            return rows, tf.range(window.num_examples)
        if window.order is not self._order[0]:
            self._order = window.order, tf.constant(np.asarray(window.order, np.int32))
        return rows, self._order[1]

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self._order = None, None

    def _rows(self, window: Window) -> Rows:
        if window.key is None:
            return Rows.of(window)
        rows = self._kept.pop(window.key, None)
        self._kept[window.key] = rows = Rows.of(window) if rows is None else rows
        while len(self._kept) > 1 and sum(r.nbytes for r in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
        return rows


class Loop:
    """A function of rows and tensors, compiled at its first call.

    A function is traced for windows of any length, and for text or sequences of
    any length as soon as there were two. Its trace is called directly, because
    looking it up in TensorFlow's way takes longer than a small model's step.

    Args:
        body: Called with groups of tensors, the rows' order, and the tensors of the call.
        eager: Boolean, whether to call it uncompiled.
    """

    def __init__(self, body: Callable[..., Any], eager: bool) -> None:
        self._body = body
        self._eager = eager
        self._shapes: dict[Hashable, Shapes] = {}
        self._compiled: dict[Hashable, Any] = {}

    def __call__(self, rows: Rows, order: Any, *tensors: Any) -> Any:
        """Run it."""
        if self._eager:
            return self._body(rows.groups, order, *tensors)
        compiled = self._compiled.get((rows.kind, rows.shapes))
        if compiled is None:
            compiled = self._compile(rows, (order, *tensors))
        return compiled(*rows.flat, order, *tensors)

    def _compile(self, rows: Rows, tensors: tuple[Any, ...]) -> Any:
        known = self._shapes.get(rows.kind)
        shapes = rows.shapes if known is None else common(known, rows.shapes)
        if shapes != known:
            self._shapes[rows.kind] = shapes
            self._compiled[rows.kind, shapes] = self._traced(rows, shapes, tensors)
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
    """Shapes with `None` where two differ; they have the same ranks."""
    return tuple(
        tuple(a if a == b else None for a, b in zip(one, other, strict=True))
        for one, other in zip(left, right, strict=True)
    )


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
