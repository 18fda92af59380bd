"""Send new vocabularies of lookup layers, which callbacks set, to the workers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import keras

from kspark.errors import invalid
from kspark.saving.vocabularies import is_lookup, layers_of, table_digest

if TYPE_CHECKING:
    from kspark.job.fit import Fit


class Vocabularies:
    """The vocabularies that the workers of a fit have.

    Args:
        model: The driver's `keras.Model`.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = [layer for layer in layers_of(model) if is_lookup(layer)]
        self._sent = self.digest()

    def digest(self) -> str:
        """Return a digest of the current vocabularies. Empty for a model without lookup layers."""
        return b"".join(table_digest(layer) for layer in self._layers).hex()

    def share_changes(self, fit: Fit, epoch: int) -> None:
        """Send the model to the workers again if a vocabulary has changed since the last call.

        The optimizer state of each shard stays as it is.

        Args:
            fit: `Fit`.
            epoch: Integer, the epoch that begins.

        Raises:
            ValueError: If workers are training, so that the model cannot be sent again.
        """
        current = self.digest()
        if current == self._sent:
            return
        plan = fit.plan
        late = plan.straggler_timeout is not None
        if epoch > plan.initial_epoch and (late or not plan.in_rounds):
            rule = (
                "free of callbacks that set a vocabulary after the first epoch has begun, except "
                'with mode="synchronous", frequency="epoch" and no `straggler_timeout`'
            )
            raise invalid("callbacks", rule, f"a new vocabulary before epoch {epoch + 1}")
        spec = fit.spec.renewed(fit.monitor.replica.model)
        # Workers keep a replica as long as its digest is the same.
        fit.share(replace(spec, digest=f"{spec.digest[:32]}{current}"))
        self._sent = current
