"""What every kspark stage has: a Keras model, Params, `save` and `load`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import keras
from pyspark.ml.util import MLReadable, MLWritable

from kspark.errors import invalid, invalid_type
from kspark.ml.carried import CarriedModel
from kspark.ml.params import StageParams
from kspark.ml.persistence import StageReader, StageWriter

S = TypeVar("S", bound="Stage")


class Stage(StageParams, MLWritable, MLReadable[Any]):
    """A stage with a Keras model.

    Args:
        model: `keras.Model`, or a function without arguments that returns one.
        customObjects: Dictionary of names to custom classes or functions.
        **params: Params by name.
    """

    carried: CarriedModel | None

    def __init__(
        self, model: Any = None, *, customObjects: Mapping[str, Any] | None = None, **params: Any
    ) -> None:
        super().__init__(**params)
        self.carried = None
        if model is not None:
            self.carried = CarriedModel(self._checked(model), customObjects)
        elif customObjects is not None:
            raise invalid("customObjects", "left out without a model", customObjects)

    def _checked(self, model: Any) -> keras.Model:
        """The model, if this stage can work with it."""
        if not isinstance(model, keras.Model):
            raise invalid_type("model", "a `keras.Model`", model)
        return model

    def _model(self) -> CarriedModel:
        """The model.

        Raises:
            ValueError: If there is none.
        """
        if self.carried is None:
            raise invalid("model", f"given to `{type(self).__name__}`", None)
        return self.carried

    @classmethod
    def read(cls: type[S]) -> StageReader[S]:
        """A reader, with `load(path)`, `customObjects(dictionary)` and `safeMode(boolean)`."""
        return StageReader(cls)

    def write(self) -> StageWriter:
        """A writer, with `overwrite()` and `save(path)`."""
        return StageWriter(self)

    def to_save(self) -> CarriedModel | None:
        """The model that is saved with the stage."""
        return self.carried

    def extra_metadata(self) -> dict[str, Any]:
        """What is saved beside the Params and the model, as JSON data."""
        return {}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """Take back what `extra_metadata` gave.

        Args:
            metadata: Dictionary, the JSON data that was saved.
        """
