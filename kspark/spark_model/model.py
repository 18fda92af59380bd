"""`SparkModel`: a compiled Keras model that trains on Spark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from pyspark.sql import DataFrame

from kspark import compression as codecs
from kspark import job, optimizers, saving
from kspark.adapters import Columns
from kspark.cluster.check import check_cluster_once
from kspark.cluster.interrupts import defers_interrupts
from kspark.job.callbacks import checked_callbacks, listed, merged_metrics
from kspark.job.report import FitReport
from kspark.plan import TrainingPlan
from kspark.plan.checks import check_integer
from kspark.plan.settings import PLAN_SETTINGS, SETTINGS
from kspark.replica import ReplicaSpec
from kspark.spark_model.arguments import (
    check_backend,
    check_class_weight,
    check_exclusive,
    check_road,
    check_rule,
    check_schedule,
    compiled_model,
    refuse_unknown,
)
from kspark.spark_model.inputs import (
    Source,
    TrainingData,
    active_session,
    gathered,
    output_columns,
)
from kspark.spark_model.training import Outcome, train


class SparkModel:
    """Trains, evaluates and runs a compiled Keras model on Spark.

    Example:

    ```python
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    spark_model = SparkModel(model)
    history = spark_model.fit(x, y, epochs=5, batch_size=64, validation_split=0.1)
    ```

    Args:
        model: A compiled `keras.Model` (Sequential, functional, or subclassed with
            `get_config`), or a function without arguments that returns one. It is
            trained in place: after `fit` it holds the merged weights.
        mode: `"synchronous"` (replicas are merged together), `"asynchronous"` (each
            replica's change is applied as it comes) or `"hogwild"` (as asynchronous,
            without locks). Defaults to `"synchronous"`.
        frequency: When replicas exchange with the aggregator: `"epoch"`, `"batch"`, or
            an integer number of local batches. Defaults to `"epoch"`.
        num_workers: Integer, number of shards the data is divided into. Defaults to
            the data's own partitions, or the task slots.
        server_optimizer: What a merged change does to the global weights: a name, a
            configuration or a `ServerOptimizer`. Defaults to `"average"`.
        custom_objects: Dictionary of names to custom classes or functions, for those
            that kspark does not find in the model by itself.
        batch_size: Integer, default of `fit`, `evaluate` and `predict`. Defaults to 32.
        port: Integer or pair (first, last), where the driver listens in live modes; 0: anywhere.
        seed: Integer: two synchronous fits give the same bytes. Default: drawn by NumPy's own.
        timeout: Float, seconds to wait for a worker that is not connected.
        max_failures: Integer, how often a lost worker is started again.
        on_nonfinite: `"raise"` or `"ignore"`, for a loss that is NaN or infinite.
        max_staleness: Integer >= 0, with mode="asynchronous": a replica that is more than
            so many exchanges ahead of the slowest waits. Defaults to `None`, nobody waits.
        compression: What deltas and gradients travel as: `None`, `"float16"`, `"bfloat16"`,
            `"int8"`, `"top_k"`, a configuration or a codec of `kspark.compression`.
        straggler_timeout: Float, seconds that a round waits for the others when more than half
            of the shards have come. A late shard trains on and is merged later, so that `fit`
            makes up to E passes over its rows. The last round, and by default all, wait for all.
        **elephas: `parameter_server_mode`, which is not needed; all else is refused.

    Raises:
        ValueError: If an argument is out of range, or the model is not compiled.
        TypeError: If an argument is of a wrong type, or unknown.
    """

    saved_as = "SparkModel"

    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model],
        mode: str = "synchronous",
        frequency: str | int = "epoch",
        *,
        num_workers: int | None = None,
        server_optimizer: Any = "average",
        custom_objects: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        port: int | tuple[int, int] = 0,
        seed: int | None = None,
        timeout: float = 60.0,
        max_failures: int = 2,
        on_nonfinite: str = "raise",
        max_staleness: int | None = None,
        compression: Any = None,
        straggler_timeout: float | None = None,
        **elephas: Any,
    ) -> None:
        refuse_unknown(elephas)
        self._model = compiled_model(model)
        self.mode = mode
        self.frequency = frequency
        self.num_workers = num_workers
        self.server_optimizer = optimizers.get(server_optimizer, custom_objects)
        self.custom_objects = dict(custom_objects or {})
        self.batch_size = batch_size
        self.port = port
        self.seed = seed
        self.timeout = timeout
        self.max_failures = max_failures
        self.on_nonfinite = on_nonfinite
        self.max_staleness = max_staleness
        self.compression = codecs.get(compression)
        self.straggler_timeout = straggler_timeout
        self._outcome = Outcome()
        self._histories: list[dict[str, list[float]]] = []
        plan = self._plan(seed=0 if seed is None else seed)  # a seed is drawn by `fit` alone
        check_rule(self.server_optimizer, plan)
        check_backend(plan)

    # -- training ------------------------------------------------------------------------

    @defers_interrupts
    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        validation_freq: int | Sequence[int] = 1,
        *,
        features_col: Any = "features",
        label_col: Any = "label",
        weight_col: str | None = None,
        scale_lr: str | None = None,
        warmup_epochs: float = 0.0,
    ) -> keras.callbacks.History:
        """Train the model on the workers. A second `fit` goes on where the first ended.

        Every row is used exactly once per epoch. Callbacks run on the driver, once per
        epoch, on merged weights and on the metrics of all workers together.

        Args:
            x: NumPy array, list or dict of arrays; an RDD of `(x, y)` or
                `(x, y, sample_weight)`; a Spark DataFrame.
            y: Labels, if `x` does not hold them.
            batch_size: Integer, examples per batch and worker.
            epochs: Integer, epoch to train up to.
            verbose: `"auto"`, 0 (silent), 1 (a line updated in place) or 2 (a line per epoch).
            callbacks: List of `keras.callbacks.Callback`.
            validation_split: Float in [0, 1). The last part of arrays, or of every
                partition, validates and does not train.
            validation_data: As `x`, or a tuple `(x, y)` or `(x, y, sample_weight)`.
            shuffle: Boolean, whether every shard is shuffled before each epoch.
            class_weight: Dictionary of class index to weight.
            sample_weight: Array of one weight per example, if `x` does not hold them.
            initial_epoch: Integer, epoch to start at.
            validation_freq: Integer, or epochs (from 1) after which to validate.
            features_col: DataFrame column of the features, list of numeric columns, or dict
                of input name to column(s). `label_col`, `weight_col`: labels and weights.
            scale_lr: `"linear"` or `"sqrt"`, with mode="synchronous" and frequency="batch": k
                workers train with k or sqrt(k) times the model's learning rate, which it keeps.
            warmup_epochs: Float, the first epochs, in which that factor grows from 1.

        Returns:
            A Keras `History` of all workers together, and of the merged model's validation.

        Raises:
            ValueError: If the data does not fit the model.
            WorkerError: If a worker failed; it holds the original traceback.
            ClusterError: If the cluster cannot run this.
        """
        check_exclusive(validation_split, validation_data, class_weight, sample_weight)
        plan = self._plan(
            batch_size=self.batch_size if batch_size is None else batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            shuffle=shuffle,
            class_weight=class_weight,
            validation_freq=validation_freq,
            scale_lr=scale_lr,
            warmup_epochs=warmup_epochs,
        )
        given = checked_callbacks(callbacks)
        columns = Columns(features_col, label_col, weight_col)
        source = Source(self._model, x, columns, self.num_workers, labelled=y is None)
        check_schedule(plan, source.replica.learning_rate)
        check_class_weight(class_weight, len(source.replica.inputs.targets))
        check_road(source.spark, plan)
        data = TrainingData.of(source, (x, y, sample_weight), validation_split, validation_data)
        spec = ReplicaSpec.of(self._model, self.custom_objects)
        rule, outcome = self.server_optimizer, self._outcome
        history = train(source, plan, spec, data, rule, outcome, given, verbose)
        self._histories.append(history.history)
        self._model.history = history
        return history

    def _plan(self, **arguments: Any) -> TrainingPlan:
        """The plan of the settings as they are now, with some of them or of `fit` replaced."""
        settings = {name: getattr(self, name) for name in PLAN_SETTINGS}
        return TrainingPlan.create(**{**settings, **arguments})

    # -- evaluation and prediction ----------------------------------------------------------

    @defers_interrupts
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        return_dict: bool = False,
        *,
        features_col: Any = "features",
        label_col: Any = "label",
        weight_col: str | None = None,
    ) -> Any:
        """Loss and metrics over all rows, exact: metric states are merged, not results.

        Args:
            x: As for `fit`, and so are `features_col`, `label_col` and `weight_col`.
            y: Labels, if `x` does not hold them.
            batch_size: Integer, examples per batch.
            verbose: Accepted for Keras' sake; evaluation prints nothing.
            sample_weight: Array of one weight per example.
            return_dict: Boolean, whether to return a dictionary.

        Returns:
            Scalar loss, or a list `[loss, *metrics]`, or a dictionary.

        Raises:
            ValueError: If the data does not fit the model.
            WorkerError: If a worker failed, or a metric's state cannot be summed.
        """
        size = self._batch_size(batch_size)
        columns = Columns(features_col, label_col, weight_col)
        source = Source(self._model, x, columns, self.num_workers, labelled=y is None)
        examples, _ = source.training(x, y, sample_weight, 0.0)
        spec = ReplicaSpec.of(self._model, self.custom_objects)
        check_cluster_once(source.spark, spec.backend)
        parts = job.evaluate(source.spark, spec, examples, size)
        source.replica.prepare_metrics(parts)
        results = merged_metrics(source.replica, [p.metrics for p in parts])
        return results if return_dict else listed(self._model, results)

    @defers_interrupts
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        *,
        features_col: Any = "features",
        output_col: str = "prediction",
    ) -> Any:
        """Outputs of the model for every row, in the order of the rows.

        Args:
            x: Arrays as for `fit`, an RDD of features, or a DataFrame.
            batch_size: Integer, examples per batch.
            verbose: Accepted for Keras' sake; prediction prints nothing.
            features_col: As for `fit`.
            output_col: Name of the column that a DataFrame gets.

        Returns:
            For arrays what `keras.Model.predict` returns; for an RDD one array per row; for
            a DataFrame a lazy DataFrame with one more column (per output).
        """
        size = self._batch_size(batch_size)
        columns = Columns(features_col, None, None)
        source = Source(self._model, x, columns, self.num_workers, labelled=False)
        spec = ReplicaSpec.of(self._model, self.custom_objects)
        if isinstance(x, DataFrame):
            outputs = output_columns(source.replica, output_col)
            return job.predict_frame(source.spark, spec, x, columns, outputs, size)
        examples = source.features(x)
        check_cluster_once(source.spark, spec.backend)
        chunks = job.predict(source.spark, spec, examples, size)
        return gathered(chunks, source.replica, as_rows=hasattr(x, "mapPartitions"))

    def _batch_size(self, batch_size: int | None) -> int:
        return check_integer("batch_size", self.batch_size if batch_size is None else batch_size, 1)

    @property
    def master_network(self) -> keras.Model:
        """The Keras model, which holds the merged weights after `fit`."""
        return self._model

    @master_network.setter
    def master_network(self, model: keras.Model) -> None:
        self._model = compiled_model(model)

    @property
    def last_fit(self) -> FitReport | None:
        """What the last `fit` tells of its epochs and workers, also if it failed; or `None`."""
        return self._outcome.report

    @property
    def training_histories(self) -> list[dict[str, list[float]]]:
        """One history dictionary per `fit`."""
        return self._histories

    def get_config(self) -> dict[str, Any]:
        """kspark's own configuration, as plain data."""
        return {
            name: setting.plain(setting.checked(name, getattr(self, name)))
            for name, setting in SETTINGS.items()
        }

    def save(self, path: str, overwrite: bool = False) -> None:
        """Write the model, its optimizer state and kspark's configuration to one file.

        Args:
            path: String that ends in `.keras` or `.h5`; local, or any URI Spark can write.
            overwrite: Boolean. An existing file is an error unless `True`.

        Raises:
            FileExistsError: If the file exists and `overwrite` is `False`.
            ValueError: If the path ends in something else.
        """
        saving.save_model(
            self._model,
            self.get_config(),
            str(path),
            overwrite=overwrite,
            server_state=self._outcome.server_state,
            spark=active_session(),
            class_name=self.saved_as,
        )
