"""Rules that add a multiple of the delta and keep no state."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from kspark.optimizers.base import MergeContext, ServerOptimizer
from kspark.optimizers.blocks import blocks


class ScaledDelta(ServerOptimizer):
    """Base class of the rules `w += scale(context) * delta`.

    Without state, such a rule can also run where no rule object is: a replica
    that shares the weights' memory adds `scale(context) * delta` itself, if
    `is_a_scale` is true.

    Example:

    ```python
    class Halved(ScaledDelta):
        def scale(self, context):
            return 0.5 * context.share
    ```

    Attributes:
        differs_by_push: Boolean, whether `scale` depends on more of the context than
            the shard's share, which is the same for all of its pushes.
    """

    differs_by_push: ClassVar[bool] = False

    @property
    def is_a_scale(self) -> bool:
        """Whether a number that is known before a push says all about the rule."""
        return not self.differs_by_push and type(self).apply is ScaledDelta.apply

    @abstractmethod
    def scale(self, context: MergeContext) -> float:
        """How much of a delta is added.

        Args:
            context: `MergeContext` of the delta.
        """

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """`weights += scale(context) * delta`, in place."""
        factor = float(self.scale(context))
        for w, d in blocks(weights, delta):
            w += factor * d
