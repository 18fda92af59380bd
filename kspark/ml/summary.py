"""What a fit has to tell about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TrainingSummary:
    """How a fit went.

    Example:

    ```python
    summary = fitted.summary
    losses = summary.objectiveHistory  # one value per epoch
    ```

    Attributes:
        history: Dictionary from `"loss"` and names of metrics (`"val_..."` for
            validation) to lists of one value per epoch.
        workers: One list per epoch of dictionaries, one per worker: its shard, host,
            process, batches, seconds.
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
        """The summary as JSON data."""
        return {"history": as_json(self.history), "workers": as_json(self.workers)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingSummary:
        """The inverse of `to_dict`.

        Args:
            data: Dictionary, as `to_dict` returns it.
        """
        return cls(data["history"], data["workers"])


def as_json(value: Any) -> Any:
    """Nested data with Python's own numbers in place of NumPy's."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value
