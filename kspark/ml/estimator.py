"""`KerasEstimator`: a compiled Keras model as a stage of a Spark ML pipeline."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import keras
from pyspark.ml import Estimator
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType

from kspark.adapters import Columns
from kspark.adapters.dataframe import chosen_column
from kspark.errors import invalid
from kspark.ml.carried import CarriedModel
from kspark.ml.datasets import check_dataset
from kspark.ml.model import KerasModel, KerasRegressionModel
from kspark.ml.naming import KERAS, naming
from kspark.ml.params import HasFeatures, HasPrediction, HasTargets, HasTraining
from kspark.ml.scoring import output_width
from kspark.ml.stage import Stage
from kspark.ml.summary import TrainingSummary
from kspark.replica.checks import check_model
from kspark.spark_model import SparkModel
from kspark.spark_model.arguments import compiled_model
from kspark.tracebacks import shows_the_users_line

if TYPE_CHECKING:
    from kspark.ml.accessors import EstimatorArguments, Unpack

M = TypeVar("M", bound=KerasModel)


class KerasEstimator(Estimator[Any], Stage, HasFeatures, HasTargets, HasTraining, HasPrediction):
    """Trains a compiled Keras model on a DataFrame.

    Example:

    ```python
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    estimator = KerasEstimator(model, featuresCol="features", labelCol="label", epochs=5)
    fitted = estimator.fit(train)
    predictions = fitted.transform(test)
    ```

    `fit` trains a copy of the model. The model itself does not change, and every fit starts
    from its weights. A model without an input shape is built from the first row of the first fit.

    Args:
        model: A compiled `keras.Model`, or a function without arguments that returns one.
        customObjects: Dictionary from names to custom classes or functions. Needed only for
            those that kspark does not find in the model. Defaults to `None`.
        **params: Params by name.

    Raises:
        TypeError: If a Param does not exist, or has a wrong type.
        ValueError: If a Param is out of range, or the model is not compiled.
    """

    __module__ = "kspark.ml"

    if TYPE_CHECKING:

        def __init__(
            self,
            model: Any = None,
            *,
            customObjects: Mapping[str, Any] | None = None,
            **params: Unpack[EstimatorArguments],
        ) -> None: ...

    def setModel(self, model: Any) -> KerasEstimator:
        """Set the compiled `keras.Model` to train. Returns `self`."""
        objects = self.carried.custom_objects if self.carried else None
        self.carried = CarriedModel(self._checked(model), objects)
        self.not_compiled = None
        return self

    def getModel(self) -> keras.Model:
        """Return the Keras model, from whose weights every fit starts."""
        return self._model().model

    def _checked(self, model: Any) -> keras.Model:
        return compiled_model(model)

    @naming(KERAS)
    @shows_the_users_line
    def _fit(self, dataset: DataFrame) -> KerasModel:
        check_dataset(dataset)
        carried = self._model()
        self.check_trainable()
        preprocess = self.value_of("preprocess")
        carried.build(dataset, Columns(self.feature_columns(), None), preprocess)
        check_model(carried.model)
        model, objects = carried.clone(), carried.custom_objects
        arguments = self.model_arguments()
        trained = SparkModel(model, custom_objects=objects, preprocess=preprocess, **arguments)
        frame = self._labelled(dataset, model)
        indicator = self.value_of("validationIndicatorCol")
        split = self.getOrDefault("validationSplit")
        if indicator and split:
            raise invalid("validationSplit", "0 when `validationIndicatorCol` is set", split)
        with divided(frame, indicator) as (train, held_out):
            history = trained.fit(
                train,
                epochs=self.getOrDefault("epochs"),
                verbose=self.getOrDefault("verbose"),
                callbacks=own_callbacks(self.value_of("callbacks")),
                validation_split=split,
                validation_data=held_out,
                shuffle=self.getOrDefault("shuffle"),
                class_weight=self.class_weights(),
                features_col=self.feature_columns(),
                label_col=self.getOrDefault("labelCol"),
                weight_col=self.value_of("weightCol"),
                reshuffle=self.value_of("reshuffle"),
                scale_lr=self.value_of("scaleLr"),
                warmup_epochs=self.getOrDefault("warmupEpochs"),
                augment=self.value_of("augment"),
            )
        fitted = self._fitted(CarriedModel(model, objects))
        report = trained.last_fit
        fitted._summary = TrainingSummary(history.history, report.workers if report else [])
        return fitted

    def to_save(self) -> CarriedModel | None:
        """Return the model to save with the stage, or `None`."""
        self.check_trainable()
        return self.carried

    def _labelled(self, dataset: DataFrame, model: keras.Model) -> DataFrame:
        """Return the rows with labels in the form that the loss of the model takes."""
        return dataset

    def _fitted(self, carried: CarriedModel) -> KerasModel:
        """Return the fitted stage with the trained model."""
        return self._as(KerasModel(), carried)

    def _as(self, fitted: M, carried: CarriedModel) -> M:
        """Give a fitted stage this stage's Params and uid, and a model."""
        fitted._resetUid(self.uid)
        fitted.carried = carried
        return self._copyValues(fitted)


class KerasRegressor(KerasEstimator):
    """A `KerasEstimator` for regression, with a model of one output: a number or a vector per row.

    The fitted stage adds `predictionCol`: a double, which Spark's `RegressionEvaluator` takes,
    or an array of doubles.

    Example:

    ```python
    regressor = KerasRegressor(model, featuresCol="features", labelCol="price", epochs=5)
    predictions = regressor.fit(train).transform(test)
    ```

    Args:
        model: As for `KerasEstimator`.
        customObjects: As for `KerasEstimator`.
        **params: Params by name.
    """

    __module__ = "kspark.ml"

    def _checked(self, model: Any) -> keras.Model:
        checked = compiled_model(model)
        if checked.built:
            output_width(checked)
        return checked

    def _fitted(self, carried: CarriedModel) -> KerasRegressionModel:
        return self._as(KerasRegressionModel(), carried)


@contextmanager
def divided(
    frame: DataFrame, indicator: str | None
) -> Iterator[tuple[DataFrame, DataFrame | None]]:
    """Divide a DataFrame into rows to train on and rows to validate on.

    Inside the block the rows are cached, so that both parts come from the same rows, even if
    the DataFrame is not deterministic.

    Args:
        frame: DataFrame.
        indicator: String, a boolean column that is true for rows to validate on; null counts
            as false. `None` for no division.

    Raises:
        ValueError: If the column is missing, or its type is not boolean.
    """
    if indicator is None:
        yield frame, None
        return
    column: Column = chosen_column(frame, indicator, indicator)
    kind = frame.select(column).schema.fields[0].dataType
    if not isinstance(kind, BooleanType):
        found = f"{indicator}: {kind.simpleString()}"
        raise invalid("validationIndicatorCol", "a column of booleans", found)
    validates = F.coalesce(column, F.lit(False))
    mine = not frame.is_cached
    if mine:
        frame.persist()
    try:
        yield frame.filter(~validates), frame.filter(validates)
    finally:
        if mine:
            frame.unpersist()


def own_callbacks(callbacks: Any) -> list[keras.callbacks.Callback] | None:
    """Copy callbacks, or call the function that makes them, so that fits share no state."""
    if callbacks is None:
        return None
    if callable(callbacks):
        return list(callbacks())
    return [copy.copy(callback) for callback in callbacks]
