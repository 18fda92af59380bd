"""A callback that notes when epochs end."""

from __future__ import annotations

import time

import keras
import numpy as np


class EpochClock(keras.callbacks.Callback):
    """Notes the time at the end of each epoch, on the driver."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time."""
        self._ends.append(time.perf_counter())

    def first_epoch_after(self, moment: float) -> float | None:
        """Seconds from a moment of `time.perf_counter` to the end of the first epoch."""
        return self._ends[0] - moment if self._ends else None

    def warm_epochs(self) -> np.ndarray:
        """Seconds from each epoch's end to the next one's. The first epoch is left out."""
        return np.diff(self._ends)
