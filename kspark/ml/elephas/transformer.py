"""`ElephasTransformer`: the stage that a fitted `ElephasEstimator` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from pyspark.ml import Model
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructField

from kspark import job
from kspark.adapters import Columns
from kspark.adapters.dataframe import check_new_column
from kspark.ml.accessors import ElephasTransformerAccessors
from kspark.ml.carried import CarriedModel
from kspark.ml.datasets import check_dataset
from kspark.ml.elephas import files
from kspark.ml.elephas.losses import ModelType
from kspark.ml.elephas.params import HasInferenceBatchSize
from kspark.ml.elephas.stage import ElephasStage
from kspark.ml.naming import ELEPHAS, KERAS, naming
from kspark.ml.scoring import output_width
from kspark.worker.scores import BINARY, MULTICLASS, ClassScores, Probabilities, Scores, Values

if TYPE_CHECKING:
    from kspark.ml.accessors import ElephasTransformerArguments, Unpack


class ElephasTransformer(Model, ElephasStage, HasInferenceBatchSize, ElephasTransformerAccessors):
    """Adds a column of predictions: a double for regression, an array of class probabilities else.

    The values are the model's outputs without change: if the model returns logits, the column
    contains logits. A regression with several outputs per row adds arrays of doubles.

    Example:

    ```python
    transformer = ElephasEstimator(model, epochs=5).fit(train)
    predictions = transformer.setOutputCol("prediction").transform(test)
    ```

    Args:
        weights: List of arrays, the model's weights.
        model_type: `ModelType`, or `None` if it is unknown.
        history: List of dictionaries from metric name to values per epoch, one per fit.
        **params: Elephas' Params by name.
    """

    __module__ = "kspark.ml"

    def __init__(
        self,
        weights: Any = None,
        model_type: ModelType | None = None,
        history: Any = (),
        **params: Unpack[ElephasTransformerArguments],
    ) -> None:
        super().__init__(**params)
        if not self.isDefined("outputCol"):
            self._setDefault(outputCol=f"{self.uid}__output")
        self._weights = weights
        self.model_type = model_type
        self.history: list[dict[str, list[float]]] = list(history)

    @property
    def weights(self) -> Any:
        """The model's weights, a list of arrays. Assigning them does not change other stages."""
        return self._weights if self.carried is None else self.carried.model.get_weights()

    @weights.setter
    def weights(self, value: Any) -> None:
        if self.carried is not None:
            # Copies of the stage share the model, so change a clone of it.
            model = self.carried.clone()
            model.set_weights(value)
            self.carried = CarriedModel(model, self.carried.custom_objects)
        self._weights = value

    def get_config(self) -> dict[str, Any]:
        """Return the configuration that Elephas writes for a transformer."""
        names = ("keras_model_config", "labelCol", "featuresCol", "outputCol")
        weights = [np.asarray(weight).tolist() for weight in self.weights or []]
        return {
            **{name: self.value_of(name) for name in names},
            "weights": weights,
            "model_type": self.model_type,
        }

    def to_file(self, path: str) -> None:
        """Write the transformer to an HDF5 file."""
        config = self.get_config()
        config["inference_batch_size"] = self.value_of("inference_batch_size")
        config |= {"history": self.history, "model_type": files.encoded(self.model_type)}
        files.write(path, "ElephasTransformer", config, self._own_params(), self.weights or [])

    @classmethod
    def from_file(cls, path: str, custom_objects: dict[str, Any], safe: bool) -> ElephasTransformer:
        """Read a transformer from an HDF5 file. With `safe`, refuse a file that contains code."""
        config, weights = files.read(path, "ElephasTransformer", safe)
        kind = files.decoded(config.pop("model_type", None))
        objects = custom_objects or None
        return cls(weights=weights, model_type=kind, custom_objects=objects, **config)

    def to_save(self) -> CarriedModel:
        """Return the model to save with the stage."""
        return self._model()

    def extra_metadata(self) -> dict[str, Any]:
        """Return the model type and the history, to save with the Params."""
        kind = self.model_type.name if self.model_type else None
        return {"modelType": kind, "history": self.history}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """Restore the model type and the history from saved metadata."""
        kind = metadata["modelType"]
        self.model_type = ModelType[kind] if kind else None
        self.history = metadata["history"]

    def _model(self) -> CarriedModel:
        if self.carried is None:
            model = self.get_model()
            if self._weights is not None:
                model.set_weights(self._weights)
            self.carried = CarriedModel(model, self.value_of("custom_objects"))
        return self.carried

    @naming(ELEPHAS)
    @naming(KERAS)
    def _transform(self, dataset: DataFrame) -> DataFrame:
        check_dataset(dataset)
        carried = self._model()
        columns = Columns(self.getOrDefault("featuresCol"), None, None)
        carried.build(dataset, columns)
        kind, scores = self._score(carried.model)
        name = self.getOrDefault("outputCol")
        check_new_column(dataset, name, "outputCol")
        size = self.value_of("inference_batch_size") or 1024
        shared = carried.shared(dataset.sparkSession)
        added = [StructField(name, kind)]
        return job.score_frame(shared, dataset, columns, added, scores, size)

    def _score(self, model: keras.Model) -> tuple[DataType, Scores]:
        """Return the type of the new column, and the function that computes its values."""
        width = output_width(model)
        if self.model_type == ModelType.REGRESSION and width == 1:
            return DoubleType(), Values()
        if self.value_of("output_type") == "class" and self.model_type != ModelType.REGRESSION:
            kind = MULTICLASS if width > 1 else BINARY
            logits = bool(self.value_of("from_logits"))
            return DoubleType(), ClassScores(kind, logits, raw=False, probability=False)
        return ArrayType(DoubleType()), Probabilities()
