"""The progress of a fit, as lines on the terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import numpy as np

from kspark.errors import invalid


class Progress(keras.callbacks.Callback):
    """One line per epoch: loss, metrics, examples per second, time left.

    On a terminal or in a notebook (`verbose=1`) the line is there from the
    epoch's beginning and is brought up to date in place.

    Args:
        verbose: `"auto"`, 0, 1 or 2.
        epochs: Integer, epoch to stop before.
        initial_epoch: Integer.
    """

    def __init__(self, verbose: str | int, epochs: int, initial_epoch: int) -> None:
        super().__init__()
        if isinstance(verbose, bool):
            verbose = int(verbose)
        if verbose not in ("auto", 0, 1, 2):
            raise invalid("verbose", 'one of "auto", 0, 1, 2', verbose)
        self.verbose = (1 if interactive() else 2) if verbose == "auto" else int(verbose)
        self.epochs = epochs
        self.first = initial_epoch
        self.num_examples = 0
        self._began = self._epoch_began = time.perf_counter()

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Show which epoch is under way."""
        self._epoch_began = time.perf_counter()
        if self.verbose == 1:
            self._write(f"\r{self._title(epoch)} ...")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show how the epoch went."""
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

    def _title(self, epoch: int) -> str:
        return f"Epoch {epoch + 1}/{self.epochs}"

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def interactive() -> bool:
    """Whether a person watches: a terminal, or a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
