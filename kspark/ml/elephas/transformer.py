"""`ElephasTransformer`: what a fitted `ElephasEstimator` is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from pyspark.ml import Model
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructField

from kspark import job
from kspark.adapters import Columns
from kspark.adapters.dataframe import check_new_column
from kspark.ml.carried import CarriedModel
from kspark.ml.elephas import files
from kspark.ml.elephas.losses import ModelType
from kspark.ml.elephas.params import HasInferenceBatchSize
from kspark.ml.elephas.stage import ElephasStage
from kspark.ml.naming import ELEPHAS, KERAS, naming
from kspark.ml.scoring import output_width
from kspark.worker.scores import BINARY, MULTICLASS, ClassScores, Probabilities, Scores, Values


class ElephasTransformer(Model, ElephasStage, HasInferenceBatchSize):
    """Adds a column of predictions: doubles of a regression, else the class probabilities.

    That is the model's output as it is; of a model that gives logits, these. A regression of
    several numbers per row adds arrays of doubles.

    Example:

    ```python
    transformer = ElephasEstimator(model, epochs=5).fit(train)
    predictions = transformer.setOutputCol("prediction").transform(test)
    ```

    Args:
        weights: List of arrays, the model's weights.
        model_type: `ModelType` or `None`.
        history: List of dictionaries, one per fit.
        **params: Elephas' Params by name.
    """

    __module__ = "kspark.ml"

    def __init__(
        self,
        weights: Any = None,
        model_type: ModelType | None = None,
        history: Any = (),
        **params: Any,
    ) -> None:
        super().__init__(**params)
        if not self.isDefined("outputCol"):
            self._setDefault(outputCol=f"{self.uid}__output")
        self._weights = weights
        self.model_type = model_type
        self.history: list[dict[str, list[float]]] = list(history)

    @property
    def weights(self) -> Any:
        """The model's weights, a list of arrays. Assigned ones are those of this stage alone."""
        return self._weights if self.carried is None else self.carried.model.get_weights()

    @weights.setter
    def weights(self, value: Any) -> None:
        if self.carried is not None:
            # Copies of the stage hold the same model: theirs stays as it is.
            model = self.carried.clone()
            model.set_weights(value)
            self.carried = CarriedModel(model, self.carried.custom_objects)
        self._weights = value

    def get_config(self) -> dict[str, Any]:
        """Elephas' configuration of a transformer."""
        names = ("keras_model_config", "labelCol", "featuresCol", "outputCol")
        weights = [np.asarray(weight).tolist() for weight in self.weights or []]
        return {
            **{name: self.value_of(name) for name in names},
            "weights": weights,
            "model_type": self.model_type,
        }

    def to_file(self, path: str) -> None:
        """See `ElephasStage.to_file`."""
        config = self.get_config()
        config["inference_batch_size"] = self.value_of("inference_batch_size")
        config |= {"history": self.history, "model_type": files.encoded(self.model_type)}
        files.write(path, "ElephasTransformer", config, self._own_params(), self.weights or [])

    @classmethod
    def from_file(cls, path: str, custom_objects: dict[str, Any], safe: bool) -> ElephasTransformer:
        """See `ElephasStage.from_file`."""
        config, weights = files.read(path, "ElephasTransformer", safe)
        kind = files.decoded(config.pop("model_type", None))
        objects = custom_objects or None
        return cls(weights=weights, model_type=kind, custom_objects=objects, **config)

    def to_save(self) -> CarriedModel:
        """See `Stage.to_save`."""
        return self._model()

    def extra_metadata(self) -> dict[str, Any]:
        """See `Stage.extra_metadata`."""
        kind = self.model_type.name if self.model_type else None
        return {"modelType": kind, "history": self.history}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """See `Stage.take_metadata`."""
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
        carried = self._model()
        kind, scores = self._score(carried.model)
        name = self.getOrDefault("outputCol")
        check_new_column(dataset, name, "outputCol")
        columns = Columns(self.getOrDefault("featuresCol"), None, None)
        size = self.value_of("inference_batch_size") or 1024
        shared = carried.shared(dataset.sparkSession)
        added = [StructField(name, kind)]
        return job.score_frame(shared, dataset, columns, added, scores, size)

    def _score(self, model: keras.Model) -> tuple[DataType, Scores]:
        """The type of the new column, and what makes its values of the model's output."""
        width = output_width(model)
        if self.model_type == ModelType.REGRESSION and width == 1:
            return DoubleType(), Values()
        if self.value_of("output_type") == "class" and self.model_type != ModelType.REGRESSION:
            kind = MULTICLASS if width > 1 else BINARY
            logits = bool(self.value_of("from_logits"))
            return DoubleType(), ClassScores(kind, logits, raw=False, probability=False)
        return ArrayType(DoubleType()), Probabilities()
