"""Rules that add a multiple of the delta and keep no state."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from kspark.optimizers.base import MergeContext, ServerOptimizer
from kspark.optimizers.blocks import blocks


class ScaledDelta(ServerOptimizer):
    """Base class of the rules `w += scale(context) * delta`.

    Such a rule has no state. If `is_a_scale` is true, hogwild replicas that share the memory of the
    weights add `scale(context) * delta` themselves.

    Example:

    ```python
    class Halved(ScaledDelta):
        def scale(self, context):
            return 0.5 * context.share
    ```

    Attributes:
        differs_by_push: Boolean, whether `scale` depends on anything in the context other than the
            shard's share, which is the same for all its pushes.
    """

    differs_by_push: ClassVar[bool] = False

    @property
    def is_a_scale(self) -> bool:
        """Whether the rule is a factor per shard that is known before a push."""
        return not self.differs_by_push and type(self).apply is ScaledDelta.apply

    @abstractmethod
    def scale(self, context: MergeContext) -> float:
        """Return the factor of a delta.

        Args:
            context: `MergeContext` of the delta.
        """

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Add `scale(context) * delta` to the weights in place."""
        factor = float(self.scale(context))
        for w, d in blocks(weights, delta):
            w += factor * d
