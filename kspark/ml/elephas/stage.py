"""What Elephas' two stages have in common: their model as JSON, and two ways to be saved."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, Generic, TypeVar

import keras

from kspark.ml.elephas import files
from kspark.ml.elephas.models import model_from_config
from kspark.ml.elephas.params import (
    HasCustomObjects,
    HasElephasColumns,
    HasKerasModelConfig,
    HasOutputType,
)
from kspark.ml.persistence import StageReader
from kspark.ml.stage import Stage

OWN_PARAMS = ("output_type", "from_logits")
"""Params that Elephas does not have: its classes refuse to be made with them."""

E = TypeVar("E", bound="ElephasStage")


class ElephasReader(StageReader[E], Generic[E]):
    """Reads a stage of Elephas': a directory of Spark's or an HDF5 file.

    Args:
        cls: Class of the stage.
    """

    def load(self, path: str) -> E:
        """Read what `save` wrote, here or in Elephas.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If another kind of stage was saved there, it holds code (see `safeMode`),
                or needs custom objects.
        """
        name = os.fspath(path)
        if files.is_file(name):
            return self._cls.from_file(name, self._objects, self._safe)
        stage = super().load(name)
        if self._safe:
            files.refuse_code_in({p.name: v for p, v in stage.extractParamMap().items()}, name)
        return stage.set_params(custom_objects=self._objects) if self._objects else stage


class ElephasStage(Stage, HasKerasModelConfig, HasCustomObjects, HasElephasColumns, HasOutputType):
    """What both stages have in common."""

    def set_params(self, **kwargs: Any) -> Any:
        """Set Params by name."""
        return self.setParams(**kwargs)

    def get_model(self) -> keras.Model:
        """A new, uncompiled Keras model of `keras_model_config`."""
        return model_from_config(
            self.value_of("keras_model_config"), self.value_of("custom_objects")
        )

    def save(self, file_name: str) -> None:
        """Write an HDF5 file as Elephas does, or Spark's directory.

        Both load again by `load`, `load_ml_estimator` and `load_ml_transformer`.

        Args:
            file_name: String. If it ends in `.h5` or `.hdf5`, an HDF5 file, which replaces one that
                exists. Every other name becomes a directory that must not exist yet, as by
                `write().save(file_name)`: Spark's tuners save their stages so.
        """
        name = os.fspath(file_name)
        if files.is_file_name(name):
            self.to_file(name)
        else:
            self.write().save(name)

    def _own_params(self) -> dict[str, Any]:
        """Values of the Params that Elephas does not have."""
        return {name: self.value_of(name) for name in OWN_PARAMS}

    @abstractmethod
    def to_file(self, path: str) -> None:
        """Write the stage to an HDF5 file.

        Args:
            path: String, a local path.
        """

    @classmethod
    @abstractmethod
    def from_file(cls: type[E], path: str, custom_objects: dict[str, Any], safe: bool) -> E:
        """Read the stage from an HDF5 file; if `safe`, one without code.

        Args:
            path: String, a local path.
            custom_objects: Dictionary of names to custom classes or functions.
            safe: Boolean, whether a file with code is refused.
        """

    @classmethod
    def read(cls: type[E]) -> ElephasReader[E]:
        """As for all stages; the reader also takes HDF5 files."""
        return ElephasReader(cls)
