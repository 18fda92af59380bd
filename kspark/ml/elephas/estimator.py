"""`ElephasEstimator`: Elephas' estimator, trained by kspark."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import keras
from pyspark.ml import Estimator
from pyspark.sql import DataFrame, SparkSession

from kspark.cluster.slots import task_slots
from kspark.ml.accessors import ElephasEstimatorAccessors
from kspark.ml.carried import CarriedModel
from kspark.ml.datasets import check_dataset
from kspark.ml.elephas import files
from kspark.ml.elephas.compiling import ARGUMENTS, compile_arguments, own_parts
from kspark.ml.elephas.labels import with_encoded_labels
from kspark.ml.elephas.losses import LossModelTypeMapper, ModelType
from kspark.ml.elephas.models import architecture, described, same_compiled
from kspark.ml.elephas.params import (
    HasBatchSize,
    HasCategoricalLabels,
    HasEpochs,
    HasFrequency,
    HasKerasOptimizerConfig,
    HasLoss,
    HasMetrics,
    HasMode,
    HasNumberOfClasses,
    HasNumberOfWorkers,
    HasValidationSplit,
    HasVerbosity,
)
from kspark.ml.elephas.stage import ElephasStage
from kspark.ml.elephas.transformer import ElephasTransformer
from kspark.ml.estimator import KerasEstimator
from kspark.ml.label_columns import refused_labels
from kspark.ml.naming import ELEPHAS, naming
from kspark.ml.scoring import compiled_loss, gives_margins, last_activation, takes_logits
from kspark.plan import TrainingPlan
from kspark.replica.labels import loss_name
from kspark.saving.rebuild import rebuilt
from kspark.spark_model.arguments import check_session
from kspark.spark_model.positional_metrics import correct_positional_metrics
from kspark.tracebacks import shows_the_users_line

if TYPE_CHECKING:
    from kspark.ml.accessors import ElephasEstimatorArguments, Unpack

logger = logging.getLogger("kspark")

CONFIG_KEYS = (
    *("keras_model_config", "mode", "frequency", "num_workers", "categorical", "loss"),
    *("metrics", "validation_split", "featuresCol", "labelCol", "epochs", "batch_size"),
    *("verbose", "nb_classes", "outputCol"),
)
"""Params in the configuration that Elephas writes, in the same order."""


class ElephasEstimator(
    Estimator[Any],
    ElephasStage,
    HasCategoricalLabels,
    HasValidationSplit,
    HasMode,
    HasEpochs,
    HasBatchSize,
    HasFrequency,
    HasVerbosity,
    HasNumberOfClasses,
    HasNumberOfWorkers,
    HasLoss,
    HasMetrics,
    HasKerasOptimizerConfig,
    ElephasEstimatorAccessors,
):
    """Trains a Keras model, given as JSON, on a DataFrame.

    For new programs, use `KerasClassifier` or `KerasRegressor`. Differences to Elephas:
    `mode` and `frequency` take effect; modes that need all workers at once use at most as
    many workers as the cluster has task slots; without `optimizer_config` the optimizer is
    Keras' default.

    Example:

    ```python
    estimator = ElephasEstimator(model, featuresCol="features", labelCol="label", epochs=5)
    predictions = estimator.fit(train).transform(test)
    ```

    Args:
        model: A compiled `keras.Model`, in place of `keras_model_config`,
            `optimizer_config`, `loss` and `metrics`. Every fit trains a copy of it, compiled
            in the same way except for those of these Params that were changed since.
        **params: Elephas' Params by name.

    Raises:
        TypeError: If a Param does not exist, or has a wrong type.
    """

    __module__ = "kspark.ml"
    DEFAULTS = {"outputCol": "prediction"}

    def __init__(self, model: Any = None, **params: Unpack[ElephasEstimatorArguments]) -> None:
        if isinstance(model, keras.Model):
            correct_positional_metrics(model)
        super().__init__(**{**described(model), **params})
        if model is not None:
            self.carried = CarriedModel(model, self.value_of("custom_objects"))

    def setParams(self, **params: Any) -> Any:
        """Set Params by name. Adds custom functions in `loss` and `metrics` to `custom_objects`."""
        if own := own_parts([params.get("loss"), params.get("metrics")]):
            known = params.get("custom_objects") or self.value_of("custom_objects")
            params["custom_objects"] = {**known, **own}
        return super().setParams(**params)

    def set_loss(self, loss: Any) -> Any:
        """Set `loss`: a name, or a function, which is also added to `custom_objects`."""
        return self.setParams(loss=loss)

    def set_metrics(self, metrics: Any) -> Any:
        """Set `metrics`: names or metrics. Adds custom functions to `custom_objects`."""
        return self.setParams(metrics=metrics)

    def to_save(self) -> CarriedModel | None:
        """Return the model to save with the stage, or `None`."""
        self.check_trainable()
        return self.carried

    def get_config(self) -> dict[str, Any]:
        """Return the configuration that Elephas writes for an estimator."""
        return {name: self.value_of(name) for name in CONFIG_KEYS}

    def to_file(self, path: str) -> None:
        """Write the estimator to an HDF5 file."""
        config, given = self.get_config(), self.given()
        config["optimizer_config"] = self.value_of("optimizer_config")
        if given is not None:
            config["keras_model_config"] = given.model.to_json()
        weights = given.model.get_weights() if given else []
        files.write(path, "ElephasEstimator", config, self._own_params(), weights)

    @classmethod
    def from_file(cls, path: str, custom_objects: dict[str, Any], safe: bool) -> ElephasEstimator:
        """Read an estimator from an HDF5 file. With `safe`, refuse a file that contains code."""
        config, weights = files.read(path, "ElephasEstimator", safe)
        model = None
        if weights:
            model = rebuilt(config["keras_model_config"], weights, custom_objects, path)
        return cls(model, custom_objects=custom_objects or None, **config)

    @naming(ELEPHAS)
    @shows_the_users_line
    def _fit(self, dataset: DataFrame) -> ElephasTransformer:
        check_dataset(dataset)
        model = self._compiled()
        mode, frequency = self.value_of("mode"), self.value_of("frequency")
        stage = KerasEstimator(
            model,
            customObjects=self.value_of("custom_objects"),
            featuresCol=self.getOrDefault("featuresCol"),
            labelCol=self.getOrDefault("labelCol"),
            mode=mode,
            frequency=frequency,
            numWorkers=self._workers(dataset.sparkSession),
            epochs=self.value_of("epochs"),
            batchSize=self.value_of("batch_size"),
            verbose=self.value_of("verbose"),
            validationSplit=self.value_of("validation_split"),
        )
        with refused_labels():
            fitted = stage.fit(
                with_encoded_labels(
                    dataset,
                    self.getOrDefault("labelCol"),
                    model,
                    categorical=self.value_of("categorical"),
                    nb_classes=self.value_of("nb_classes"),
                )
            )
        return self._transformer(fitted.kerasModel, fitted.history)

    def _workers(self, spark: SparkSession) -> int:
        """Return `num_workers`, limited to the task slots if all workers must run at once.

        Elephas' default is 8, whatever the size of the cluster.
        """
        wanted = int(self.value_of("num_workers"))
        mode, frequency = self.value_of("mode"), self.value_of("frequency")
        plan = TrainingPlan.create(mode=mode, frequency=frequency)
        check_session(spark, plan)
        if plan.in_rounds or wanted <= (slots := task_slots(spark)):
            return wanted
        logger.warning(
            'num_workers is %d, but mode="%s" runs all workers at once and the cluster has %d '
            "task slots: training with %d workers.",
            *(wanted, mode, slots, slots),
        )
        return slots

    def given(self) -> CarriedModel | None:
        """Return the `model` argument, or `None` if `keras_model_config` was changed since."""
        if self.carried is None:
            return None
        wanted = architecture(self.value_of("keras_model_config"))
        return self.carried if architecture(self.carried.model.to_json()) == wanted else None

    def _compiled(self) -> keras.Model:
        """Return a compiled copy of the model to train.

        Raises:
            ValueError: If there is no model or no loss.
        """
        params = {name: self.value_of(name) for name in (*ARGUMENTS, "custom_objects")}
        given = self.given()
        if given is not None:
            self.check_trainable()
        if given is not None and given.model.compiled:
            return same_compiled(given, params)
        model = self.get_model()
        if given is not None:
            model.set_weights(given.model.get_weights())
        model.compile(**compile_arguments(params, params["custom_objects"]))
        return model

    def _transformer(
        self, model: keras.Model, history: dict[str, list[float]]
    ) -> ElephasTransformer:
        loss = compiled_loss(model)
        # Whether the outputs are logits or margins: 0 separates two classes then, not 0.5.
        from_logits = takes_logits(loss) or gives_margins(loss_name(loss), model)
        fitted = ElephasTransformer(
            keras_model_config=model.to_json(),
            weights=model.get_weights(),
            model_type=model_type(self.value_of("loss"), model),
            history=[history],
            from_logits=from_logits,
        )
        fitted._resetUid(self.uid)
        # The JSON of the estimator may be that of a model that the rows have built since.
        return self._copyValues(fitted, {self.keras_model_config: model.to_json()})


def model_type(loss: str, model: keras.Model) -> ModelType:
    """Determine what a model predicts, by its loss or else by its last activation."""
    known = LossModelTypeMapper().get_model_type(loss)
    if known is not None:
        return known
    is_linear = last_activation(model) in ("", "linear", "relu")
    return ModelType.REGRESSION if is_linear else ModelType.CLASSIFICATION
