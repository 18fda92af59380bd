"""Watch the vocabularies of a model's lookup layers, which callbacks may set between epochs."""

from __future__ import annotations

import keras

from kspark.saving.vocabularies import is_lookup, layers_of, table_digest


class Vocabularies:
    """The vocabularies that the workers of a fit have.

    Args:
        model: The driver's `keras.Model`.

    Attributes:
        digest: String, digest of the vocabularies. Empty for a model without lookup layers.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = [layer for layer in layers_of(model) if is_lookup(layer)]
        self.digest = self._current()

    def _current(self) -> str:
        return b"".join(table_digest(layer) for layer in self._layers).hex()

    def changed(self) -> bool:
        """Whether a vocabulary has changed since the last call. Updates `digest`."""
        before, self.digest = self.digest, self._current()
        return self.digest != before
