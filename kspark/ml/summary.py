"""`TrainingSummary`: the figures of one fit of a stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TrainingSummary:
    """The figures of one fit.

    Example:

    ```python
    summary = fitted.summary
    losses = summary.objectiveHistory  # one value per epoch
    ```

    Attributes:
        history: Dictionary from `"loss"` and the names of metrics (`"val_..."` for
            validation) to lists of one value per epoch.
        workers: List of one list per epoch, with one dictionary per worker: its shard, host,
            process, number of batches, and seconds.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    workers: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def objectiveHistory(self) -> list[float]:
        """The training loss of every epoch."""
        return self.history.get("loss", [])

    @property
    def totalIterations(self) -> int:
        """Number of epochs trained."""
        return len(self.objectiveHistory)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        return {"history": as_json(self.history), "workers": as_json(self.workers)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingSummary:
        """Create a summary from the result of `to_dict`.

        Args:
            data: Dictionary that `to_dict` returned.
        """
        return cls(data["history"], data["workers"])


def as_json(value: Any) -> Any:
    """Convert the NumPy numbers in nested data to Python numbers."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value
