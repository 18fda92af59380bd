"""Share the weights with the jobs of a fit, and send only what changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from kspark.cluster.bootstrap import Derived, ship
from kspark.cluster.engine import Engine, Shared
from kspark.weights import Layout, Reference, WeightSpec, completed


class SentWeights:
    """Shares the weights with the jobs of one fit.

    The weights of the first job stay shared for the whole fit. A later job shares only the
    blocks that differ from those of the first, and the workers complete them; see
    `kspark.weights.Reference`. All weights are shared with each job if the model has no blocks
    that can be left out, or if the session's workers keep no shared values.

    Args:
        engine: `Engine`.
        spec: `WeightSpec` of the model.
    """

    def __init__(self, engine: Engine, spec: WeightSpec) -> None:
        self._engine = engine
        layout = Layout.of(spec) if engine.keeps_shared else None
        self._reference = None if layout is None else Reference(layout)
        self._first: Shared | None = None
        self._moment: int | None = None

    @contextmanager
    def share(self, weights: np.ndarray) -> Iterator[tuple[Shared, int]]:
        """Share a vector of weights until the end of the block.

        Args:
            weights: Vector; a copy of it is shared.

        Returns:
            Context manager of a tuple: the shared value, and its size as sent, in bytes.
        """
        if self._reference is not None:
            layout = self._reference.layout
            moment, changed = self._reference.note(weights, self._moment)
            if self._first is None:
                self._first, self._moment = self._engine.share(weights.copy()), moment
                yield self._first, weights.nbytes
                return
            if changed is not None:
                payload = layout.encode(weights, changed)
                with self._sharing(payload) as own:
                    made = ship(completed, layout, shared=(self._first, own))
                    yield Derived(made), payload.nbytes
                return
            # Too much differs from the first weights; from now on, share all weights.
            self.close()
            self._reference = None
        with self._sharing(weights.copy()) as own:
            yield own, weights.nbytes

    @contextmanager
    def _sharing(self, value: np.ndarray) -> Iterator[Shared]:
        shared = self._engine.share(value)
        try:
            yield shared
        finally:
            shared.destroy()

    def close(self) -> None:
        """Remove the weights of the first job from the executors. May be called repeatedly."""
        if self._first is not None:
            self._first.destroy()
            self._first = None
