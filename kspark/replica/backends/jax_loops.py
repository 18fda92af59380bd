"""Rows as arrays of JAX, and loops over batches that windows of similar length share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from kspark.replica.backends.base import cast_floats
from kspark.shards import Window


class Rows:
    """A window's rows as padded arrays of JAX, in stored order.

    Args:
        window: `Window`.
    """

    def __init__(self, window: Window) -> None:
        groups = (window.x, window.y, window.sample_weight)
        self.groups = tuple(tuple(padded(cast_floats(a)) for a in group) for group in groups)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return sum(array.nbytes for group in self.groups for array in group)


def padded(array: np.ndarray) -> Any:
    """Convert an array to one of JAX, with unused rows at its end.

    Lengths differ by up to an eighth within one padded length, so that few functions are compiled.
    """
    count = len(array)
    unit = 1 << max(count.bit_length() - 4, 0)
    rows = np.zeros((-(-count // unit) * unit, *array.shape[1:]), array.dtype)
    rows[:count] = array
    return jnp.asarray(rows)


def runs(
    num_examples: int, batch_size: int, start: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Divide batches `[start, stop)` into those of full size and a short last one.

    Yields:
        Tuples of the first row, the number of batches, and their size.
    """
    full = min(stop, num_examples // batch_size)
    if start < full:
        yield start * batch_size, full - start, batch_size
    if full < stop and num_examples > full * batch_size:
        yield full * batch_size, 1, num_examples - full * batch_size


def compiled_repeat(step: Callable[..., Any], count: Any, state: Any) -> Any:
    """Call `step(i, state)` for each `i` below `count`, in one compiled loop. Returns no logs."""
    return None, jax.lax.fori_loop(0, count, lambda i, before: step(i, before)[1], state)


def compiled_repeat_keeping(step: Callable[..., Any], count: Any, state: Any) -> Any:
    """Repeat as `compiled_repeat` does, and return the last step's logs. Needs at least one step.

    The step is compiled twice, because a loop cannot begin without the logs of a first step.
    """
    first = step(0, state)
    return jax.lax.fori_loop(1, count, lambda i, before: step(i, before[1]), first)


def plain_repeat(step: Callable[..., Any], count: int, state: Any) -> Any:
    """Call `step(i, state)` for each `i` below `count`, without compiling anything."""
    logs = None
    for index in range(count):
        logs, state = step(index, state)
    return logs, state
