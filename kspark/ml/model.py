"""Fitted stages, whose `transform` adds the outputs of a Keras model to a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from pyspark.ml import Model
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructField

from kspark import job
from kspark.adapters import Columns
from kspark.adapters.dataframe import check_new_column
from kspark.adapters.file_paths import is_files
from kspark.cluster.check import check_cluster_once
from kspark.cluster.interrupts import defers_interrupts
from kspark.errors import Described, invalid, invalid_type
from kspark.job.progress import CallProgress
from kspark.ml.datasets import check_dataset
from kspark.ml.naming import KERAS, naming
from kspark.ml.params import HasFeatures, HasPrediction
from kspark.ml.stage import Stage
from kspark.ml.summary import TrainingSummary
from kspark.session.default import active_session, first_phase, session_of
from kspark.spark_model.files import Destination, score_to
from kspark.spark_model.inputs import opened
from kspark.tracebacks import shows_the_users_line
from kspark.worker.scores import Activations, Probabilities, Scores, Values

if TYPE_CHECKING:
    from kspark.ml.accessors import ModelArguments, Unpack

NEW_COLUMNS = ("predictionCol", "probabilityCol", "rawPredictionCol", "outputCol")
"""Params with the names of columns that `transform` adds."""


class KerasModel(Model, Stage, HasFeatures, HasPrediction):
    """Adds the outputs of a Keras model to a DataFrame.

    `KerasEstimator.fit` returns one; `KerasModel(model)` makes one of any other Keras model.
    `transform` is lazy, keeps all columns and the order of the rows, and works on streaming
    DataFrames. The column `predictionCol` has doubles, or (nested) arrays of doubles. A model
    with several outputs adds one column for each, `<predictionCol>_<name of the output>`.

    Example:

    ```python
    scorer = KerasModel(model, featuresCol="features", predictionCol="score")
    scored = scorer.transform(frame)
    ```

    Args:
        model: `keras.Model`.
        customObjects: Dictionary from names to custom classes or functions. Needed only for
            those that kspark does not find in the model. Defaults to `None`.
        **params: Params by name.

    Raises:
        TypeError: If a Param does not exist, or has a wrong type.
        ValueError: If a Param is out of range.
    """

    __module__ = "kspark.ml"

    def __init__(
        self,
        model: Any = None,
        *,
        customObjects: Mapping[str, Any] | None = None,
        **params: Unpack[ModelArguments],
    ) -> None:
        super().__init__(model, customObjects=customObjects, **params)
        self._summary: TrainingSummary | None = None

    @property
    def kerasModel(self) -> keras.Model:
        """The Keras model. `transform` uses its current weights and vocabularies."""
        return self._model().model

    @property
    def hasSummary(self) -> bool:
        """Whether the model is the result of a fit."""
        return self._summary is not None

    @property
    def summary(self) -> TrainingSummary:
        """The `TrainingSummary` of the fit.

        Raises:
            RuntimeError: If the model is not the result of a fit.
        """
        if self._summary is None:
            raise RuntimeError(f"No training summary available for this {type(self).__name__}")
        return self._summary

    @property
    def history(self) -> dict[str, list[float]]:
        """Loss and metrics per epoch, as in Keras' `History`. Empty without a fit."""
        return self._summary.history if self._summary else {}

    @naming(KERAS)
    @shows_the_users_line
    def _transform(self, dataset: DataFrame) -> DataFrame:
        check_dataset(dataset)
        layer = self.value_of("featureLayer")
        columns = Columns(self.feature_columns(), None, None)
        self._model().build(dataset, columns, self.value_of("preprocess"))
        added, scores = self._activations() if layer else self._scores()
        if not added:
            return dataset
        for field in added:
            check_new_column(dataset, field.name, self._param_of(field.name))
        model = self._shared(dataset.sparkSession)
        size = self.getOrDefault("inferenceBatchSize")
        return job.score_frame(model, dataset, columns, added, scores, size)

    @shows_the_users_line
    @defers_interrupts
    @naming({**KERAS, "output_col": "predictionCol"})
    def transformFiles(
        self,
        path: Any,
        output: Any,
        *,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        overwrite: bool = False,
        verbose: str | int = "auto",
    ) -> Any:
        """Write the rows of Parquet files with the columns that `transform` adds.

        The tasks read and write the files without the JVM; see `SparkModel.predict`.

        Example:

        ```python
        fitted.transformFiles("rows/*.parquet", "scored", columns=["id"])
        ```

        Args:
            path: Path of a file, a folder or a pattern, or a list of paths.
            output: Folder to write: a local path, or a URI.
            columns: List of columns to write beside the added ones. Defaults to `None`, all.
            filters: Which rows to use, as in `pyarrow.parquet.read_table`. Defaults to `None`, all.
            overwrite: Boolean, whether an existing `output` is replaced. Defaults to `False`.
            verbose: As for `SparkModel.predict`. Defaults to `"auto"`.

        Returns:
            The `output`.

        Raises:
            FileExistsError: If the `output` exists, and `overwrite` is `False`.
            OSError: If files do not exist, or cannot be written.
            ValueError: If a column is missing or taken, or no column is added.
            TypeError: If `path` is not a path.
            WorkerError: If a worker failed.
        """
        if not is_files(path):
            raise invalid_type("path", "a path of Parquet files, or a list of paths", path)
        destination = Destination.of(output, columns, overwrite, path, filters)
        if destination is None:
            raise invalid("output", "the path of a folder to write", output)
        layer, features = self.value_of("featureLayer"), Columns(self.feature_columns(), None, None)
        size = self.getOrDefault("inferenceBatchSize")
        with CallProgress(verbose, "Predict") as progress:
            with progress.moving(first_phase(path)):
                spark, rows = session_of(path), opened(path, filters)
                self._model().build(rows, features, self.value_of("preprocess"))
                added, scores = self._activations() if layer else self._scores()
                if not added:
                    raise invalid("predictionCol", "the name of a column to add", "")
                model = self._shared(spark)
            progress.run_on(spark)
            progress.phase("Starting the workers")
            check_cluster_once(spark, model.backend, progress.watch)
            params = {field.name: self._param_of(field.name) for field in added}
            scoring = job.Scoring(model, features, added, scores, size, params)
            done = score_to(destination, scoring, rows, watch=progress.watch)
            if done is not None:
                progress.end(done, {})
        return output

    def _param_of(self, column: str) -> str:
        """Return the Param that names a new column; that of predictions if it names several."""
        params = [p for p in NEW_COLUMNS if self.hasParam(p) and self.value_of(p) == column]
        return params[0] if params else "predictionCol"

    @naming(KERAS)
    def asUDF(self, name: str) -> Any:
        """Register the prediction as a function of Spark SQL.

        `SELECT name(features) FROM table` returns the values of `predictionCol`, or the
        activations of `featureLayer`. If the features are several columns, the function takes
        one argument per column, in their order.

        This sets `spark.sql.execution.arrow.pythonUDF.columnarInput.enabled` to false in the
        session, because Spark 4.3 otherwise fails on vectors from columnar files.

        Example:

        ```python
        fitted.asUDF("score")
        spark.sql("SELECT score(features) FROM table")
        ```

        Args:
            name: String, the name of the function.

        Returns:
            The function, for use with DataFrames.

        Raises:
            ValueError: If the model has several outputs or is not built, or no session is active.
        """
        spark = active_session()
        if spark is None:
            raise invalid("name", "registered while a SparkSession is active", name)
        self._model().check_built()
        layer = self.value_of("featureLayer")
        kind, scores = (ArrayType(DoubleType()), Probabilities()) if layer else self._one_score()
        function = job.score_udf(
            self._shared(spark),
            spark,
            Columns(self.feature_columns(), None, None),
            kind,
            scores,
            self.getOrDefault("inferenceBatchSize"),
        )
        return spark.udf.register(name, function)

    def _shared(self, spark: SparkSession) -> job.SharedModel:
        """Return the model with what makes its inputs, for the tasks of a Spark application."""
        layer, preprocess = self.value_of("featureLayer"), self.value_of("preprocess")
        return self._model().shared(spark, layer, preprocess, self.feature_columns())

    def _one_score(self) -> tuple[DataType, Scores]:
        """Return the type of the prediction, and the scores, of which it is the last."""
        stage = self.copy().setParams(predictionCol=self.getOrDefault("predictionCol") or "value")
        added, scores = stage._scores()
        if len(added) > 1 and isinstance(scores, Values):
            raise invalid("model", "a model of one output", Described(f"{len(added)} outputs"))
        return added[-1].dataType, scores

    def _activations(self) -> tuple[list[StructField], Scores]:
        """Return the new column for `featureLayer`, and the function that computes it."""
        return [StructField(self.getOrDefault("outputCol"), VectorUDT())], Activations()

    def _scores(self) -> tuple[list[StructField], Scores]:
        """Return the new columns, and the function that computes them on the workers."""
        column = self.getOrDefault("predictionCol")
        if not column:
            return [], Values()
        return job.output_fields(self.kerasModel, column), Values()

    def extra_metadata(self) -> dict[str, Any]:
        """See `Stage.extra_metadata`."""
        return {"summary": self._summary.to_dict() if self._summary else None}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """See `Stage.take_metadata`."""
        saved = metadata.get("summary")
        self._summary = TrainingSummary.from_dict(saved) if saved else None


class KerasRegressionModel(KerasModel):
    """A fitted `KerasRegressor`. `predictionCol` has doubles, or arrays of doubles.

    Example:

    ```python
    fitted = KerasRegressor(model, epochs=5).fit(train)
    predictions = fitted.transform(test).select("prediction")
    ```

    Args:
        model: As for `KerasModel`.
        customObjects: As for `KerasModel`.
        **params: Params by name.
    """

    __module__ = "kspark.ml"
