"""The weights on their way to the workers of one job after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from kspark.cluster.bootstrap import Derived, ship
from kspark.cluster.engine import Engine, Shared
from kspark.weights import Layout, Reference, WeightSpec, completed


class SentWeights:
    """The weights as the jobs of one fit share them.

    The first job's are shared for the whole fit. With a later job only those travel that are
    not as in the first, and the workers complete them; see `kspark.weights.Reference`. A
    model of which nothing can be left out, and a session whose workers keep nothing, share
    all weights for each job.

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
        """Share a vector of weights for as long as the block lasts.

        Args:
            weights: Vector; nobody changes it before it is shared, and a copy is.

        Returns:
            Context manager of the shared value, and of the bytes that travel for it.
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
            # So much differs from the first that it will not become less.
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
        """Give back what is shared for the whole fit. May be called again."""
        if self._first is not None:
            self._first.destroy()
            self._first = None
