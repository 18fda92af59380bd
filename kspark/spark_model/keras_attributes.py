"""Attributes of the Keras model, so that an object can stand for the model in scripts."""

from __future__ import annotations

from typing import Any

import keras

from kspark.plan.settings import SETTINGS

OWN = frozenset({*SETTINGS, "custom_objects", "preprocess"})
"""Attributes that are those of the object, whatever the Keras model has."""


class KerasAttributes:
    """Has its own attributes, and those of a Keras model.

    What the class does not define is the model's: `summary`, `layers`, `get_weights`, `compile`,
    `optimizer`, `trainable` and so on. They run in this process, on the model that has the merged
    weights. Attributes of the model that are set are set on the model.

    Attributes:
        _model: `keras.Model`.
    """

    _model: keras.Model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the Keras model in this process, as `model(x)` does."""
        return self._model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the Keras model. Python asks for what the object itself lacks."""
        if name.startswith("_") or name in OWN:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute on the Keras model if it is one of the model only."""
        model = self.__dict__.get("_model")
        own = name.startswith("_") or name in OWN or hasattr(type(self), name)
        if own or model is None or not (hasattr(type(model), name) or name in vars(model)):
            super().__setattr__(name, value)
        else:
            setattr(model, name, value)
