"""The Keras model that a stage carries: copied for each fit, shared by all transforms."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import Any

import keras
from pyspark.sql import SparkSession

from kspark.cluster.engine import engine_of
from kspark.cluster.remote import is_connect
from kspark.errors import ClusterError
from kspark.job import SharedModel
from kspark.ml.inner import inputs_of, outputs_of, up_to
from kspark.replica import ReplicaSpec
from kspark.replica.custom_objects import checked, collect
from kspark.replica.spec import read_config, saved


class CarriedModel:
    """A Keras model in a stage, and in all copies of that stage.

    Args:
        model: `keras.Model`.
        custom_objects: Mapping from names to custom classes or functions, for those that
            kspark does not find in the model by itself.
    """

    def __init__(self, model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.custom_objects = checked(custom_objects)
        # Stages are used by several threads, for instance those of a cross-validation.
        # One that shares the model may have to clone it meanwhile, which locks again.
        self._lock = RLock()
        self._name = uuid.uuid4().hex
        self._shared: dict[tuple[str, str | None], SharedModel] = {}

    def clone(self) -> keras.Model:
        """A model of its own with the same weights, compile arguments and optimizer state.

        Raises:
            ValueError: If the model cannot be described by plain data.
        """
        with self._lock:
            self.build_optimizer()
            model_bytes = saved(self.model)
        objects = collect(self.model, read_config(model_bytes), self.custom_objects)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(model_bytes)
            # The user's own live model wrote these bytes a moment ago.
            return keras.saving.load_model(path, custom_objects=objects, safe_mode=False)

    def build_optimizer(self) -> None:
        """Create the optimizer's variables, without which a saved model is not whole."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None and self.model.built and not optimizer.built:
            optimizer.build(self.model.trainable_variables)

    def shared(self, spark: SparkSession, layer: str | None = None) -> SharedModel:
        """The model with its present weights, as tasks of a Spark application get it.

        Args:
            spark: `SparkSession`.
            layer: String, the layer whose output is asked for; `None` for the model's own.
        """
        place = (engine_of(spark).application, layer)
        with self._lock:
            key = f"{self._name}-{weights_digest(self.model)}-{layer or ''}"
            kept = self._shared.get(place)
            if kept is None or kept.key != key:
                spec = ReplicaSpec.of(self.predicting(layer), self.custom_objects)
                kept = SharedModel(spark, spec, key)
                self._shared[place] = kept
            return kept

    def predicting(self, layer: str | None = None) -> keras.Model:
        """A model for prediction only, with the same layers, and without optimizer state.

        A model that computes its outputs in ways of its own stays what it is.
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


def need_jvm(spark: SparkSession, what: str) -> None:
    """Refuse a session of Spark Connect.

    Raises:
        ClusterError: If it is one.
    """
    if is_connect(spark):
        raise ClusterError(
            f"{what} needs a session with a JVM on the driver, and this one is of Spark Connect, "
            "where `fit` and `transform` work."
        )


def is_plain(model: keras.Model) -> bool:
    """Whether a model is Keras' own functional or sequential one."""
    is_own = type(model).__module__.split(".")[0] == "keras"
    return is_own and bool(getattr(model, "inputs", None))


def weights_digest(model: keras.Model) -> str:
    """32 hexadecimal digits that change with the values of any weight."""
    digest = hashlib.blake2b(digest_size=16)
    for variable in model.variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()
