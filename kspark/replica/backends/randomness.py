"""The global random generators of the process, and code that leaves them as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kspark.replica.backends import running_backend


def global_state() -> tuple[Any, ...]:
    """Return the states of the global generators of Python, NumPy, and PyTorch as a backend.

    The other backends have none that a model draws from: Keras keeps the states in variables.
    """
    state = random.getstate(), np.random.get_state()
    if running_backend() != "torch":
        return (*state, None, [])
    import torch

    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return (*state, torch.get_rng_state(), on_devices)


def set_global_state(state: tuple[Any, ...]) -> None:
    """Set the states that `global_state` returned."""
    python, legacy, host, on_devices = state
    random.setstate(python)
    np.random.set_state(legacy)
    if host is not None:
        import torch

        torch.set_rng_state(host)
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restore the global generators at the end of the block."""
    state = global_state()
    try:
        yield
    finally:
        set_global_state(state)


class OwnRandomness:
    """States of the global generators for some code alone, whose blocks may be far apart.

    The code draws as if nothing else drew in between, and whatever runs in between, such as
    `Dropout` without a seed on PyTorch, draws as if the code did not.
    """

    def __init__(self) -> None:
        self._own: tuple[Any, ...] | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Go on with the own states in this block; in the first one, with those of the process."""
        with kept_randomness():
            if self._own is not None:
                set_global_state(self._own)
            try:
                yield
            finally:
                self._own = global_state()
