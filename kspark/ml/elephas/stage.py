"""The base class of Elephas' two stages: the model as JSON, and two formats to save a stage."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, Generic, TypeVar

import keras
from pyspark.ml import Estimator

from kspark.ml.accessors import ElephasStageAccessors
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
"""Params that Elephas does not have. Its classes raise an error for unknown arguments."""

E = TypeVar("E", bound="ElephasStage")


class ElephasReader(StageReader[E], Generic[E]):
    """Reads one of Elephas' stages from a directory in Spark's format or from an HDF5 file.

    Args:
        cls: Class of the stage.
    """

    def load(self, path: str) -> E:
        """Load a stage that kspark or Elephas saved.

        Raises:
            FileNotFoundError: If the file or directory does not exist.
            ValueError: If it contains another kind of stage, contains code that `safeMode`
                refuses, or needs other custom objects.
        """
        name = os.fspath(path)
        if files.is_file(name):
            return self._cls.from_file(name, self._objects, self._safe)
        stage = super().load(name)
        if self._safe:
            params = {param.name: value for param, value in stage.extractParamMap().items()}
            files.refuse_code_in(params, name, trains=isinstance(stage, Estimator))
        return stage.set_params(custom_objects=self._objects) if self._objects else stage


class ElephasStage(
    Stage,
    HasKerasModelConfig,
    HasCustomObjects,
    HasElephasColumns,
    HasOutputType,
    ElephasStageAccessors,
):
    """The base class of both stages."""

    def set_params(self, **kwargs: Any) -> Any:
        """Set Params by name."""
        return self.setParams(**kwargs)

    def get_model(self) -> keras.Model:
        """Build a new, uncompiled Keras model from `keras_model_config`."""
        return model_from_config(
            self.value_of("keras_model_config"), self.value_of("custom_objects")
        )

    def save(self, file_name: str) -> None:
        """Save the stage as an HDF5 file, as Elephas does, or as a directory, as Spark does.

        `load`, `load_ml_estimator` and `load_ml_transformer` read both formats.

        Args:
            file_name: String. A name that ends in `.h5` or `.hdf5` is an HDF5 file; an existing
                file is replaced. Any other name is a directory, written with
                `write().save(file_name)` as by Spark's tuners; it must not exist.
        """
        name = os.fspath(file_name)
        if files.is_file_name(name):
            self.to_file(name)
        else:
            self.write().save(name)

    def _own_params(self) -> dict[str, Any]:
        """Return the values of the Params that Elephas does not have."""
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
        """Read the stage from an HDF5 file. With `safe`, refuse a file that contains code.

        Args:
            path: String, a local path.
            custom_objects: Dictionary of names to custom classes or functions.
            safe: Boolean, whether a file with code is refused.
        """

    @classmethod
    def read(cls: type[E]) -> ElephasReader[E]:
        """Return a reader for directories in Spark's format and HDF5 files."""
        return ElephasReader(cls)
