"""The base of all kspark stages: a Keras model, Params, `save` and `load`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import keras
from pyspark.ml.util import MLReadable, MLWritable

from kspark.errors import invalid, invalid_type
from kspark.job.tables import html_table
from kspark.ml.carried import CarriedModel
from kspark.ml.params import StageParams
from kspark.ml.persistence import StageReader, StageWriter

S = TypeVar("S", bound="Stage")

LONGEST_VALUE = 60
"""Characters of a Param's value that a notebook shows."""


class Stage(StageParams, MLWritable, MLReadable[Any]):
    """A stage with a Keras model.

    Args:
        model: `keras.Model`, or for estimators a function that returns one. Defaults to
            `None`, a stage without a model.
        customObjects: Dictionary from names to custom classes or functions. Defaults to
            `None`.
        **params: Params by name.
    """

    carried: CarriedModel | None
    not_compiled: ValueError | None
    """Why the model was loaded without its loss, metrics and optimizer, if it was."""

    def __init__(
        self, model: Any = None, *, customObjects: Mapping[str, Any] | None = None, **params: Any
    ) -> None:
        super().__init__(**params)
        self.carried = None
        self.not_compiled = None
        if model is not None:
            self.carried = CarriedModel(self._checked(model), customObjects)
        elif customObjects is not None:
            raise invalid("customObjects", "left out without a model", customObjects)

    def _checked(self, model: Any) -> keras.Model:
        """Check that this stage can use a model, and return the model."""
        if not isinstance(model, keras.Model):
            raise invalid_type("model", "a `keras.Model`", model)
        return model

    def _model(self) -> CarriedModel:
        """Return the model.

        Raises:
            ValueError: If the stage has no model.
        """
        if self.carried is None:
            raise invalid("model", f"given to `{type(self).__name__}`", None)
        return self.carried

    def check_trainable(self) -> None:
        """Refuse to train, or save for training, a model that was loaded without its loss.

        Raises:
            ValueError: If it was.
        """
        if self.not_compiled is not None:
            raise self.not_compiled

    def _repr_html_(self) -> str:
        """Return the model and the Params that were set as an HTML table, which notebooks show."""
        model = None if self.carried is None else self.carried.model
        rows = [("model", "none" if model is None else described(model))]
        rows += [(p.name, shortened(self.getOrDefault(p))) for p in self.params if self.isSet(p)]
        return html_table(self.uid, ("Param", "value"), rows)

    @classmethod
    def read(cls: type[S]) -> StageReader[S]:
        """Return a reader with `load(path)`, `customObjects(dictionary)`, `safeMode(boolean)`."""
        return StageReader(cls)

    def write(self) -> StageWriter:
        """Return a writer with `overwrite()` and `save(path)`."""
        return StageWriter(self)

    def to_save(self) -> CarriedModel | None:
        """Return the model to save with the stage, or `None`."""
        return self.carried

    def extra_metadata(self) -> dict[str, Any]:
        """Return further data to save with the stage, as JSON data."""
        return {}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """Restore the data of `extra_metadata`.

        Args:
            metadata: Dictionary, the saved JSON data.
        """


def described(model: keras.Model) -> str:
    """Return the name and the size of a model."""
    size = f"{model.count_params():,} parameters" if model.built else "not built"
    return f"{model.name}, {size}"


def shortened(value: Any) -> str:
    """Return a value as text of at most `LONGEST_VALUE` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
