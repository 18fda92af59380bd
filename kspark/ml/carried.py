"""The Keras model of a stage: copied for each fit, shared by all transforms."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from threading import RLock
from typing import Any

import keras
from pyspark.sql import DataFrame, SparkSession

from kspark.adapters import Columns
from kspark.adapters.feeds import feature_names
from kspark.cluster.engine import engine_of
from kspark.errors import Described, invalid
from kspark.files.table import ParquetFiles
from kspark.job import SharedModel
from kspark.ml.inner import inputs_of, outputs_of, up_to
from kspark.replica import ReplicaSpec
from kspark.replica.custom_objects import checked
from kspark.replica.digest import model_digest, step_digest
from kspark.replica.model_spec import ModelSpec
from kspark.replica.preprocessing import Preprocessing
from kspark.replica.signature import build_model, is_arrays, is_built
from kspark.replica.steps import Step
from kspark.session.default import session_of
from kspark.spark_model.inputs import example_for
from kspark.spark_model.preprocessing import RawRows


class CarriedModel:
    """The Keras model that a stage and all copies of the stage share.

    Args:
        model: `keras.Model`.
        custom_objects: Mapping from names to custom classes or functions that kspark does not
            find in the model. Defaults to `None`.
    """

    def __init__(self, model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.custom_objects = checked(custom_objects)
        # Several threads may use a stage, for example in a cross-validation. The lock is
        # reentrant, because `shared` may call `clone`.
        self._lock = RLock()
        self._name = uuid.uuid4().hex
        self._shared: dict[tuple[str, str | None], SharedModel] = {}

    def clone(self) -> keras.Model:
        """Copy the model with its weights, compile arguments and optimizer state.

        Raises:
            ValueError: If no equal copy can be made; see `ModelSpec`.
        """
        with self._lock:
            spec = ModelSpec.of(self.model, self.custom_objects)
        return spec.make()

    def build(
        self, dataset: DataFrame | ParquetFiles, columns: Columns, preprocess: Any = None
    ) -> None:
        """Build a model without an input shape from the first row of a DataFrame or of files.

        Args:
            dataset: DataFrame or `ParquetFiles`.
            columns: `Columns` that name the features.
            preprocess: What makes the model's inputs of the row. Defaults to `None`.

        Raises:
            ValueError: If there is no row to build the model from.
        """
        with self._lock:
            if not is_built(self.model):
                example = self._example(dataset, columns, preprocess)
                if is_arrays(example):
                    build_model(self.model, example)
        self.check_built()

    def _example(self, dataset: DataFrame | ParquetFiles, columns: Columns, preprocess: Any) -> Any:
        step = Step.of("preprocess", preprocess, self.custom_objects)
        if step is None:
            return example_for(self.model, dataset, columns, labelled=False)
        session = session_of(dataset)
        raw = RawRows.of(session, self.model, dataset, columns, None, labelled=True)
        return raw.first_inputs(step)

    def check_built(self) -> None:
        """Refuse a model that has no variables yet.

        Raises:
            ValueError: If the model is not built.
        """
        if not self.model.built:
            rule = "built: give it a `keras.Input`, or call it on one example"
            raise invalid("model", rule, Described(f"the model {self.model.name!r}"))

    def build_optimizer(self) -> None:
        """Create the variables of the optimizer, which a complete saved model must have."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None and self.model.built and not optimizer.built:
            optimizer.build(self.model.trainable_variables)

    def shared(
        self,
        spark: SparkSession,
        layer: str | None = None,
        preprocess: Any = None,
        features: Any = "features",
    ) -> SharedModel:
        """Return the model with its current weights, for the tasks of a Spark application.

        Args:
            spark: `SparkSession`.
            layer: String, the layer whose output to compute. Defaults to `None`, the output
                of the model.
            preprocess: What makes the model's inputs of the columns. Defaults to `None`.
            features: The columns of the features, as in `Columns`, for `preprocess`.
        """
        place = (engine_of(spark).application, layer)
        with self._lock:
            key = f"{self._name}-{model_digest(self.model)}-{layer or ''}"
            preprocessing = None
            if preprocess is not None:
                names = feature_names(features)
                key += f"-{step_digest(preprocess)}-{'-'.join(names)}"
            kept = self._shared.get(place)
            if kept is None or kept.key != key:
                if preprocess is not None:
                    step = Step.of("preprocess", preprocess, self.custom_objects)
                    preprocessing = Preprocessing(names, step)
                spec = ReplicaSpec.of(
                    self.predicting(layer), self.custom_objects, preprocessing=preprocessing
                )
                kept = SharedModel(spark, spec, key)
                self._shared[place] = kept
            return kept

    def predicting(self, layer: str | None = None) -> keras.Model:
        """Make a model for prediction from the same layers, without optimizer state.

        A subclassed model is used as it is, or as a compiled copy if it is not compiled.

        Args:
            layer: String, the layer whose output to compute. Defaults to `None`, the output
                of the model.
        """
        model = self.model
        if layer is not None:
            model = up_to(model, layer)
        elif is_plain(model):
            model = keras.Model(inputs_of(model), outputs_of(model), name=model.name)
        elif not model.compiled:
            model = self.clone()
        if not model.compiled:
            model.compile(optimizer="sgd")
        return model


def is_plain(model: keras.Model) -> bool:
    """Whether a model is functional or sequential, and not of a class of the user."""
    is_own = type(model).__module__.split(".")[0] == "keras"
    return is_own and bool(getattr(model, "inputs", None))
