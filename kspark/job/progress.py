"""Print the progress of a fit on the terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import numpy as np

from kspark.errors import invalid


class Progress(keras.callbacks.Callback):
    """Prints one line per epoch: metrics, examples per second, estimated seconds left.

    With `verbose=1` the line is printed when the epoch begins and overwritten when it ends.

    Args:
        verbose: 0 (silent), 1 (overwrite lines), 2 (print lines) or `"auto"`: 1 on a terminal or
            in a notebook, else 2.
        epochs: Integer, epoch at which to stop training.
        initial_epoch: Integer, epoch at which to start training.
    """

    def __init__(self, verbose: str | int, epochs: int, initial_epoch: int) -> None:
        super().__init__()
        if isinstance(verbose, bool):
            verbose = int(verbose)
        if verbose not in ("auto", 0, 1, 2):
            raise invalid("verbose", 'one of "auto", 0, 1, 2', verbose)
        if verbose == "auto":
            verbose = 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
        self.verbose = int(verbose)
        self.epochs = epochs
        self.first = initial_epoch
        self.num_examples = 0
        self._began = self._epoch_began = time.perf_counter()

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Print the number of the epoch, with `verbose=1`."""
        self._epoch_began = time.perf_counter()
        if self.verbose == 1:
            self._write(f"\r{self._title(epoch)} ...")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Print the metrics and the speed of the epoch."""
        if not self.verbose:
            return
        now = time.perf_counter()
        seconds = max(now - self._epoch_began, 1e-9)
        left = (now - self._began) / (epoch + 1 - self.first) * (self.epochs - epoch - 1)
        parts = [
            self._title(epoch),
            f"{seconds:.1f}s",
            *(f"{name}: {np.mean(value):.4f}" for name, value in (logs or {}).items()),
            f"{self.num_examples / seconds:,.0f} examples/s",
        ]
        if epoch + 1 < self.epochs:
            parts.append(f"ETA {left:.0f}s")
        start = "\r" if self.verbose == 1 else ""
        self._write(start + " - ".join(parts) + "\n")

    def say(self, text: str) -> None:
        """Print a line, unless the fit is silent."""
        if self.verbose:
            self._write(f"{text}\n")

    def _title(self, epoch: int) -> str:
        return f"Epoch {epoch + 1}/{self.epochs}"

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
