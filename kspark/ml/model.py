"""Fitted stages: `transform` runs a Keras model over the rows of a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from pyspark.ml import Model
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructField

from kspark import job
from kspark.adapters import Columns
from kspark.adapters.dataframe import column_name
from kspark.errors import invalid
from kspark.job.inference import output_type
from kspark.ml.naming import KERAS, naming
from kspark.ml.params import HasFeatures, HasPrediction
from kspark.ml.stage import Stage
from kspark.ml.summary import TrainingSummary
from kspark.replica.labels import output_shapes
from kspark.replica.signature import output_names
from kspark.spark_model.inputs import active_session
from kspark.worker.scores import Activations, Probabilities, Scores, Values

NEW_COLUMNS = ("predictionCol", "probabilityCol", "rawPredictionCol", "outputCol")
"""Params that name what `transform` adds."""


class KerasModel(Model, Stage, HasFeatures, HasPrediction):
    """Adds a Keras model's outputs to a DataFrame.

    `KerasEstimator.fit` returns one; any other Keras model becomes one by
    `KerasModel(model)`. `transform` is lazy, keeps all columns and the order of rows,
    and works on streaming DataFrames. The column `predictionCol` holds a double, or
    (nested) arrays of doubles; a model of several outputs gives one column each,
    `<predictionCol>_<output's name>`.

    Example:

    ```python
    scorer = KerasModel(model, featuresCol="features", predictionCol="score")
    scored = scorer.transform(frame)
    ```

    Args:
        model: `keras.Model`.
        customObjects: Dictionary of names to custom classes or functions.
        **params: `featuresCol`, `inputCols`, `predictionCol`, `inferenceBatchSize`,
            `featureLayer`, `outputCol`; see `explainParams()`.

    Raises:
        TypeError: If a Param does not exist, or has a wrong type.
        ValueError: If a Param is out of range.
    """

    __module__ = "kspark.ml"

    def __init__(
        self, model: Any = None, *, customObjects: Mapping[str, Any] | None = None, **params: Any
    ) -> None:
        super().__init__(model, customObjects=customObjects, **params)
        self._summary: TrainingSummary | None = None

    @property
    def kerasModel(self) -> keras.Model:
        """The Keras model. `transform` uses the weights it has when it is called."""
        return self._model().model

    @property
    def hasSummary(self) -> bool:
        """Whether the model comes from a fit."""
        return self._summary is not None

    @property
    def summary(self) -> TrainingSummary:
        """How the fit went.

        Raises:
            RuntimeError: If the model does not come from a fit.
        """
        if self._summary is None:
            raise RuntimeError(f"No training summary available for this {type(self).__name__}")
        return self._summary

    @property
    def history(self) -> dict[str, list[float]]:
        """Loss and metrics per epoch, as in Keras' `History`; empty without a fit."""
        return self._summary.history if self._summary else {}

    @naming(KERAS)
    def _transform(self, dataset: DataFrame) -> DataFrame:
        layer = self.value_of("featureLayer")
        added, scores = self._activations() if layer else self._scores()
        if not added:
            return dataset
        for field in added:
            if column_name(dataset, field.name):
                raise self._taken(field.name, dataset.columns)
        model = self._model().shared(dataset.sparkSession, layer)
        columns = Columns(self.feature_columns(), None, None)
        size = self.getOrDefault("inferenceBatchSize")
        return job.score_frame(model, dataset, columns, added, scores, size)

    def _taken(self, name: str, columns: list[str]) -> ValueError:
        """The error for a new column whose name an old one has."""
        params = [p for p in NEW_COLUMNS if self.hasParam(p) and self.value_of(p) == name]
        return taken(params[0] if params else NEW_COLUMNS[0], name, columns)

    @naming(KERAS)
    def asUDF(self, name: str) -> Any:
        """Register the prediction as a function of Spark SQL.

        `SELECT name(features) FROM table` gives what `predictionCol` holds, or the
        activations of `featureLayer`. A model of several inputs, or of a list of columns,
        takes as many arguments, in that order.

        Behind a columnar reader, Spark 4.3 fails at vectors of which it makes no rows, so
        `spark.sql.execution.arrow.pythonUDF.columnarInput.enabled` is turned off in the
        session.

        Args:
            name: String, the function's name.

        Returns:
            The function, for use with DataFrames.

        Raises:
            ValueError: If the model has several outputs.
        """
        spark = active_session()
        if spark is None:
            raise invalid("name", "registered while a SparkSession is active", name)
        layer = self.value_of("featureLayer")
        kind, scores = (ArrayType(DoubleType()), Probabilities()) if layer else self._one_score()
        function = job.score_udf(
            self._model().shared(spark, layer),
            spark,
            Columns(self.feature_columns(), None, None),
            kind,
            scores,
            self.getOrDefault("inferenceBatchSize"),
        )
        return spark.udf.register(name, function)

    def _one_score(self) -> tuple[DataType, Scores]:
        """What a function gives: the last of the scores, which is the prediction."""
        stage = self.copy().setParams(predictionCol=self.getOrDefault("predictionCol") or "value")
        added, scores = stage._scores()
        if len(added) > 1 and isinstance(scores, Values):
            raise invalid("model", "a model of one output", [field.name for field in added])
        return added[-1].dataType, scores

    def _activations(self) -> tuple[list[StructField], Scores]:
        """The new column of `featureLayer`."""
        return [StructField(self.getOrDefault("outputCol"), VectorUDT())], Activations()

    def _scores(self) -> tuple[list[StructField], Scores]:
        """The new columns, and what makes them on the workers."""
        column = self.getOrDefault("predictionCol")
        if not column:
            return [], Values()
        names, _ = output_names(self.kerasModel)
        shapes = output_shapes(self.kerasModel, names)
        titles = [column] if len(names) == 1 else [f"{column}_{name}" for name in names]
        return [
            StructField(title, output_type(shapes[name]))
            for title, name in zip(titles, names, strict=True)
        ], Values()

    def extra_metadata(self) -> dict[str, Any]:
        """See `Stage.extra_metadata`."""
        return {"summary": self._summary.to_dict() if self._summary else None}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """See `Stage.take_metadata`."""
        saved = metadata.get("summary")
        self._summary = TrainingSummary.from_dict(saved) if saved else None


def taken(argument: str, name: str, columns: list[str]) -> ValueError:
    """The error for a new column whose name an old one has."""
    return invalid(argument, f"a name that is not among the columns {columns}", name)


class KerasRegressionModel(KerasModel):
    """A fitted `KerasRegressor`: `predictionCol` holds a double, or an array of doubles.

    Example:

    ```python
    fitted = KerasRegressor(model, epochs=5).fit(train)
    predictions = fitted.transform(test).select("prediction")
    ```
    """

    __module__ = "kspark.ml"
