"""`InferenceModel`: evaluate and predict with a compiled Keras model on Spark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from pyspark.resource import ResourceProfile
from pyspark.sql import DataFrame

from kspark import job
from kspark.adapters import Columns, Factory, Stream
from kspark.cluster.check import check_cluster_once
from kspark.cluster.interrupts import defers_interrupts
from kspark.cluster.resources import checked_profile, on_resources
from kspark.job.call_callbacks import PREDICT, TEST, CallCallbacks
from kspark.job.callbacks import listed, merged_metrics
from kspark.job.display import checked_verbose
from kspark.job.progress import CallProgress
from kspark.plan.checks import check_integer, check_steps
from kspark.replica.steps import checked
from kspark.session.default import first_phase
from kspark.spark_model.argument_names import explains_unknown_arguments
from kspark.spark_model.arguments import (
    OUTPUT_COL,
    check_collects,
    check_output_col,
    compiled_model,
)
from kspark.spark_model.factories import readable
from kspark.spark_model.files import Destination, score_to
from kspark.spark_model.inputs import Source, limit_stream, opened
from kspark.spark_model.keras_attributes import KerasAttributes
from kspark.spark_model.predictions import gathered
from kspark.spark_model.preprocessing import Steps
from kspark.tracebacks import shows_the_users_line
from kspark.worker.scores import Values


class InferenceModel(KerasAttributes):
    """Evaluates and predicts with a compiled Keras model on Spark. The base of `SparkModel`.

    Args:
        model: A compiled `keras.Model`, or a function without arguments that returns one.
        num_workers: Integer, the number of shards. Defaults to `None`, which keeps the
            partitions of the data.
        custom_objects: Dictionary from names to custom classes or functions.
        batch_size: Integer, the default batch size.
        preprocess: What makes the model's inputs from the rows, see `SparkModel`.
        resources: `pyspark.resource.ResourceProfile` of the tasks, see `SparkModel`.
    """

    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model],
        num_workers: int | None,
        custom_objects: Mapping[str, Any] | None,
        batch_size: int,
        preprocess: Any = None,
        resources: ResourceProfile | None = None,
    ) -> None:
        self._model = compiled_model(model)
        self.resources = checked_profile(resources)
        self.preprocess = checked("preprocess", preprocess)
        self.num_workers = num_workers
        self.custom_objects = dict(custom_objects or {})
        self.batch_size = batch_size

    @shows_the_users_line
    @defers_interrupts
    @explains_unknown_arguments
    @on_resources
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        return_dict: bool = False,
        *,
        features_col: Any = "features",
        label_col: Any = "label",
        weight_col: Any = None,
        filters: Any = None,
        preprocess: Any = None,
    ) -> Any:
        """Compute the loss and the metrics over all rows.

        The result is exact: kspark merges the states of the metrics, not their results.

        Example:

        ```python
        loss, accuracy = spark_model.evaluate(x, y)
        results = spark_model.evaluate(frame, return_dict=True)  # {"accuracy": ..., "loss": ...}
        ```

        Args:
            x: Features, of the same kinds as for `fit`.
            y: Labels, if `x` does not contain them. Defaults to `None`.
            batch_size: Integer, number of examples per batch. Defaults to `None`: the size of the
                first batch of `x`, if it has batches, else the `batch_size` of the model.
            verbose: `"auto"`, 0 (silent), 1 (a bar of the rows that are done, or else of the
                partitions, then a line) or 2 (a line). `"auto"` is 1 on a terminal or in a
                notebook, else 2. Defaults to `"auto"`.
            sample_weight: Array of one weight per example, if `x` does not contain them.
                Defaults to `None`.
            steps: Integer, number of batches to evaluate, from the first rows on. Defaults to
                `None`, all rows.
            callbacks: List of `keras.callbacks.Callback`, which run on the driver: hooks of batches
                once, around all batches. Defaults to `None`.
            return_dict: Boolean, whether to return a dictionary. Defaults to `False`.
            features_col: Column(s) of the features, as for `fit`. Defaults to `"features"`.
            label_col: Column(s) of the labels, as for `fit`. Defaults to `"label"`.
            weight_col: Column of the sample weights, which has numbers, or arrays of one weight
                per time step; or a list or dictionary of columns, one per output. Defaults to
                `None`.
            filters: Which rows of Parquet files to evaluate, as for `fit`. Defaults to `None`, all.
            preprocess: What makes the model's inputs from the rows, only for this call; `False`:
                the rows are the inputs. Defaults to `None`, that of this object.

        Returns:
            The loss as a scalar, or a list `[loss, *metrics]` if the model has metrics. With
            `return_dict=True`, a dictionary from names to values.

        Raises:
            ValueError: If the data does not fit the model.
            TypeError: If an argument has a wrong type.
            WorkerError: If a worker failed, or the state of a metric cannot be summed.
        """
        self._model = compiled_model(self._model)
        watchers = CallCallbacks(TEST, self._model, callbacks)
        x = readable(x, limited=steps is not None)
        size, count = self._sizes(x, batch_size, steps)
        columns = Columns(features_col, label_col, weight_col)
        row_steps = Steps.of(self.preprocess, preprocess, None, self.custom_objects)
        with CallProgress(verbose, "Evaluate") as progress:
            with progress.moving(first_phase(x)):
                x = opened(x, filters, y)
                source = Source.of(self._model, x, y, columns, self.num_workers, row_steps)
                spark = source.spark
            progress.run_on(spark)
            limit_stream(x, count, progress)
            examples = source.evaluation(x, y, sample_weight, count)
            spec = source.spec(self._model, self.custom_objects)
            progress.phase("Starting the workers")
            check_cluster_once(spark, spec.backend, progress.watch)
            watchers.begin(progress.display, examples.num_examples, size, verbose)
            parts = job.evaluate(spark, spec, examples, size, progress)
            source.replica.prepare_metrics(parts)
            results = merged_metrics(source.replica, [p.metrics for p in parts])
            rows = sum(p.num_examples for p in parts)
            watchers.end(rows, size, results)
            progress.end(rows, results)
        return dict(sorted(results.items())) if return_dict else listed(self._model, results)

    @shows_the_users_line
    @defers_interrupts
    @explains_unknown_arguments
    @on_resources
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        *,
        features_col: Any = "features",
        output_col: str = OUTPUT_COL,
        filters: Any = None,
        output: Any = None,
        columns: Sequence[str] | None = None,
        overwrite: bool = False,
        preprocess: Any = None,
    ) -> Any:
        """Compute the model's outputs for all rows, in the order of the rows.

        Example:

        ```python
        classes = spark_model.predict(x).argmax(axis=1)
        frame = spark_model.predict(frame)  # with the column "prediction"
        spark_model.predict("rows/*.parquet", output="scored")  # files in, files out
        ```

        Args:
            x: Arrays as for `fit`, an RDD of features, a Spark DataFrame, or batches or paths of
                Parquet files as for `fit`.
            batch_size: Integer, number of examples per batch. Defaults to `None`: the size of the
                first batch of `x`, if it has batches, else the `batch_size` of the model.
            verbose: As for `evaluate`. It has no effect for a DataFrame, which Spark predicts
                when the result is used. Defaults to `"auto"`.
            steps: Integer, number of batches to predict, from the first rows on. Defaults to
                `None`, all rows.
            callbacks: As for `evaluate`; not for a DataFrame, and not with `output`. Defaults to
                `None`.
            features_col: Column(s) of the features, as for `fit`. Defaults to `"features"`.
            output_col: String, name of the column that is added to a DataFrame or to files. A
                model with several outputs adds one column for each, `<output_col>_<name of the
                output>`. It must be left out where no column is added. Defaults to
                `"prediction"`.
            filters: Which rows of Parquet files to predict, as for `fit`. Defaults to `None`, all.
            output: Folder to which the rows of Parquet files are written with the added column(s),
                as Parquet files whose names sort like the rows: a local path, or a URI. It is
                written as a whole or not at all. Defaults to `None`: predictions are returned.
            columns: List of columns to write beside the added ones. Defaults to `None`, all.
            overwrite: Boolean, whether an existing `output` is replaced. Defaults to `False`.
            preprocess: As for `evaluate`. Defaults to `None`.

        Returns:
            For arrays and files, the same as `keras.Model.predict`. For an RDD, a list with one
            array per row. For a DataFrame, a lazy DataFrame with the added column(s). With
            `output`, that path.

        Raises:
            ValueError: If the data does not fit the model, or the name of an added column is
                taken.
            FileExistsError: If the `output` exists, and `overwrite` is `False`.
            OSError: If files do not exist, or cannot be written.
            TypeError: If an argument has a wrong type.
            WorkerError: If a worker failed.
        """
        watchers = CallCallbacks(PREDICT, self._model, callbacks)
        x = readable(x, limited=steps is not None)
        size, count = self._sizes(x, batch_size, steps)
        features, shown = Columns(features_col, None, None), checked_verbose(verbose)
        lazy = isinstance(x, DataFrame)
        destination = Destination.of(output, columns, overwrite, x, filters)
        check_collects(watchers, collects=not lazy and destination is None)
        check_output_col(output_col, adds=lazy or destination is not None)
        row_steps = Steps.of(self.preprocess, preprocess, None, self.custom_objects)
        with CallProgress(0 if lazy else shown, "Predict") as progress:
            with progress.moving(first_phase(x)):
                x = opened(x, filters)
                workers = self.num_workers
                source = Source(self._model, x, features, workers, labelled=False, steps=row_steps)
                spec = source.spec(self._model, self.custom_objects)
                spark, features = source.spark, source.columns
            if lazy:
                added = job.output_fields(self._model, output_col)
                x = x if count is None else x.limit(count)
                return job.predict_frame(spark, spec, x, features, added, size)
            progress.run_on(spark)
            limit_stream(x, count, progress)
            progress.phase("Starting the workers")
            check_cluster_once(spark, spec.backend, progress.watch)
            if destination is not None:
                added = job.output_fields(self._model, output_col)
                scoring = job.Scoring(job.SharedModel(spark, spec), features, added, Values(), size)
                watch = progress.watch
                done = score_to(destination, scoring, x, self.num_workers, count, watch)
                if done is not None:
                    progress.end(done, {})
                return output
            examples = source.features(x, count)
            watchers.begin(progress.display, examples.num_examples, size, shown)
            chunks = job.predict(spark, spec, examples, size, progress)
            found = gathered(chunks, source.replica, as_rows=hasattr(x, "mapPartitions"))
            rows = sum(len(arrays[0]) for arrays in chunks)
            watchers.end(rows, size, {"outputs": found})
            progress.end(rows, {})
        return found

    def _batch_size(self, given: int | None, x: Any) -> int:
        """Return the given batch size, or that of the batches of `x`, or that of this model."""
        if given is not None:
            return given
        return x.batch_size if isinstance(x, Stream) else self.batch_size

    def _sizes(self, x: Any, batch_size: int | None, steps: int | None) -> tuple[int, int | None]:
        """Return the batch size, and the number of rows of `steps` batches; `None` for all."""
        given, batch_size = batch_size, self._batch_size(batch_size, x)
        size, batches = check_integer("batch_size", batch_size, 1), check_steps("steps", steps)
        if isinstance(x, Factory):
            x.batch_size, x.steps = given, batches
            return size, None
        return size, None if batches is None else size * batches

    @property
    def master_network(self) -> keras.Model:
        """The Keras model. After `fit` it has the merged weights."""
        return self._model

    @master_network.setter
    def master_network(self, model: keras.Model) -> None:
        self._model = compiled_model(model)
