"""`SparkModel`: train a compiled Keras model on Spark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kspark import compression as codecs
from kspark import optimizers
from kspark.adapters import Columns
from kspark.cluster.interrupts import defers_interrupts
from kspark.cluster.resources import on_resources
from kspark.errors import inside
from kspark.job.callback_checks import checked_callbacks, stops_on_nan
from kspark.job.progress import Phases
from kspark.job.worker_callbacks import pickled_callbacks
from kspark.plan import TrainingPlan
from kspark.plan.settings import PLAN_SETTINGS
from kspark.session.default import first_phase
from kspark.spark_model.argument_names import explains_unknown_arguments
from kspark.spark_model.arguments import (
    check_exclusive,
    check_fit,
    check_gradients,
    check_rule,
    compiled_model,
    refuse_unknown,
)
from kspark.spark_model.autologging import autologged
from kspark.spark_model.checkpointing import KEPT, Checkpointing
from kspark.spark_model.factories import readable
from kspark.spark_model.inputs import Source, TrainingData, limit_stream, opened, sized
from kspark.spark_model.preprocessing import Steps
from kspark.spark_model.saved import SavedModel
from kspark.spark_model.training import Outcome, train
from kspark.tracebacks import shows_the_users_line


class SparkModel(SavedModel):
    """Trains, evaluates and predicts with a compiled Keras model on Spark.

    The data is divided into *shards*, one per worker. Each worker trains a *replica*, a copy
    of the model, on its shard. An *aggregator* on the driver merges the changes of all
    replicas into the global weights. The Keras model has the merged weights after `fit`.

    The settings are also attributes of the same names: a new value applies to the next call. Other
    attributes, such as `summary` and `compile`, are those of the Keras model, and run in this
    process. Without a Spark session, the first call that needs one starts it: under `spark-submit`
    that of the cluster, otherwise one on this machine.

    Example:

    ```python
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    spark_model = SparkModel(model)
    history = spark_model.fit(x, y, epochs=5, batch_size=64, validation_split=0.1)
    ```

    Args:
        model: A compiled `keras.Model` (Sequential, functional, or subclassed with
            `get_config`), or a function without arguments that returns one. It is trained in
            place.
        mode: String, how replicas are merged. `"synchronous"`: all together.
            `"asynchronous"`: each delta is applied when it arrives. `"hogwild"`: as
            `"asynchronous"`, but without locks. Defaults to `"synchronous"`.
        frequency: When replicas exchange: `"epoch"`, `"batch"`, an integer >= 1, a number of
            batches, or `"fit"`, once at the end (see `OneShot`). Defaults to `"epoch"`.
        num_workers: Integer >= 1, the number of shards. Defaults to `None`: the number of
            partitions of the data, or of task slots for arrays. If all workers must run at the
            same time, it is at most the number of task slots.
        server_optimizer: Rule that applies a merged delta to the global weights: a name, a
            configuration, a `kspark.optimizers.ServerOptimizer` or a `keras.optimizers.Optimizer`,
            of which a copy is used. Defaults to `"average"`.
        custom_objects: Dictionary from names to custom classes or functions. Needed only for
            those that kspark does not find in the model. Defaults to `None`.
        batch_size: Integer >= 1, examples per batch and worker, the default of `fit`,
            `evaluate` and `predict`. Defaults to `32`.
        port: Integer, the port on which the driver listens, except with `road="rounds"`, or a
            pair `(first, last)` to try one after the other. Defaults to `0`, any free port.
        road: String, how the driver and the workers exchange. `"rounds"`: in one Spark job per
            epoch, for the default mode and frequency. `"live"`: in one long Spark job, whose
            tasks all run at the same time and are connected to the driver. Defaults to
            `"auto"`: live where that is possible; `last_fit.road` says which one and why. Both
            give the same weights.
        seed: Integer >= 0. With the same seed, two synchronous fits give the same bytes.
            Defaults to `None`: each `fit` draws one from NumPy's global generator.
        timeout: Float, seconds to wait for a worker that is not connected, or hangs without
            computing. Defaults to `60.0`.
        step_timeout: Float, seconds that a worker may train one step, the first one's compilation
            included, before it is ended and replaced. Defaults to `None`, no limit.
        max_failures: Integer >= 0, how often a lost worker is started again. Defaults to `2`.
        on_nonfinite: String, what happens if a loss, or a merged weight at the end of an epoch, is
            NaN or infinite: `"raise"` or `"ignore"`. Defaults to `"raise"`. With the callback
            `TerminateOnNaN`, training stops after an epoch with such a loss instead.
        max_staleness: Integer >= 0, for `mode="asynchronous"`: a replica waits if it is more
            than this number of exchanges ahead of the slowest one. Defaults to `None`: no
            replica waits.
        compression: How deltas and gradients are encoded: `"float16"`, `"bfloat16"`,
            `"int8"`, `"top_k"`, a configuration, or a codec of `kspark.compression`.
            Defaults to `None`, no loss of precision.
        straggler_timeout: Float, seconds that a round waits for the other shards once more
            than half have finished, for the default mode and frequency. A late shard trains
            on and is merged in a later round, so it may train on its rows less than `epochs`
            times. The last round waits for all. Defaults to `None`: each round waits for all.
        preprocess: What makes the model's inputs from the rows of each batch, on the workers: a
            function of a dictionary from names to arrays, or a Keras layer. `fit`, `evaluate` and
            `predict` use it, and `save` keeps it. Defaults to `None`: rows are the inputs.
        resources: `pyspark.resource.ResourceProfile` of the tasks, for instance with GPUs. `save`
            does not keep it. Defaults to `None`: the session's settings.
        **elephas: `parameter_server_mode`, accepted with a warning. Anything else is an error.

    Raises:
        ValueError: If an argument is out of range, does not go with another one, or the model
            is not compiled.
        TypeError: If an argument has a wrong type, or is unknown.
    """

    @shows_the_users_line
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
        road: str = "auto",
        seed: int | None = None,
        timeout: float = 60.0,
        step_timeout: float | None = None,
        max_failures: int = 2,
        on_nonfinite: str = "raise",
        max_staleness: int | None = None,
        compression: Any = None,
        straggler_timeout: float | None = None,
        preprocess: Any = None,
        resources: Any = None,
        **elephas: Any,
    ) -> None:
        refuse_unknown(elephas)
        super().__init__(model, num_workers, custom_objects, batch_size, preprocess, resources)
        self.mode, self.frequency = mode, frequency
        self.server_optimizer = optimizers.get(server_optimizer, custom_objects)
        self.port, self.road, self.seed = port, road, seed
        self.timeout, self.step_timeout = timeout, step_timeout
        self.max_failures = max_failures
        self.on_nonfinite = on_nonfinite
        self.max_staleness = max_staleness
        self.compression = codecs.get(compression)
        self.straggler_timeout = straggler_timeout
        self._outcome = Outcome()
        self._histories: list[dict[str, list[float]]] = []
        # Check the settings; the seed is a placeholder, because only `fit` draws one.
        self._plan(seed=0 if seed is None else seed)

    @shows_the_users_line
    @defers_interrupts
    @explains_unknown_arguments
    @on_resources
    def fit(
        self,
        x: Any = None,
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
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        *,
        features_col: Any = "features",
        label_col: Any = "label",
        weight_col: Any = None,
        filters: Any = None,
        reshuffle: str | int | None = None,
        scale_lr: str | None = None,
        warmup_epochs: float = 0.0,
        checkpoint: Any = None,
        resume: bool = False,
        checkpoints_kept: int = KEPT,
        callbacks_every: int | None = None,
        worker_callbacks: Any = None,
        preprocess: Any = None,
        augment: Any = None,
    ) -> keras.callbacks.History:
        """Train the model for a number of epochs.

        Callbacks run on the driver, with the merged weights and the metrics over all workers. A
        second `fit` continues with the weights and the optimizer state of the first.

        Example:

        ```python
        history = spark_model.fit(x, y, epochs=5, validation_split=0.1)
        history = spark_model.fit(frame, features_col=["age", "income"], label_col="default")
        history = spark_model.fit("rows/*.parquet", features_col="pixels", label_col="digit")
        ```

        Args:
            x: Features: a NumPy array, or a list or dictionary of arrays; a pandas DataFrame
                or a pyarrow Table; an RDD of `(x, y)` or `(x, y, sample_weight)`; a Spark
                DataFrame; Parquet files, which the workers read without Spark: a path of a
                file, a folder or a pattern such as `"folder/*.parquet"`, or a list of paths;
                rows of `kspark.data.spool`; a `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch
                `DataLoader` or generator of batches, read once; or a function of
                `(worker, num_workers)` that returns one.
            y: Labels, if `x` does not contain them. Defaults to `None`.
            batch_size: Integer, number of examples per batch and worker. Defaults to `None`:
                the size of the first batch of `x`, if it has batches, else the `batch_size` of
                the model.
            epochs: Integer >= 1, the epoch to train up to. Defaults to `1`.
            verbose: 0 (silent), 1 (a bar that moves within each epoch), 2 (a line per epoch) or
                `"auto"`: 1 on a terminal or in a notebook, else 2. Defaults to `"auto"`.
            callbacks: List of `keras.callbacks.Callback`. Defaults to `None`.
            validation_split: Float in [0, 1), the fraction of the rows to validate on instead
                of training: the last rows of arrays, or of each shard. Defaults to `0.0`.
            validation_data: Data to validate on instead of a split: of the same kinds as `x`, or
                a tuple `(x, y)` or `(x, y, sample_weight)`. Defaults to `None`.
            shuffle: Boolean, whether to shuffle each shard before each epoch. Defaults to
                `True`.
            class_weight: Dictionary from class index to weight. Defaults to `None`.
            sample_weight: Array of one weight per example, if `x` does not contain them.
                Defaults to `None`.
            initial_epoch: Integer >= 0, the epoch to start at. Defaults to `0`.
            steps_per_epoch: Integer, number of batches in an epoch, of all workers together. The
                next epoch goes on where this one stopped, and after the last row comes the first.
                Defaults to `None`, an epoch uses each row once.
            validation_steps: Integer, number of batches to validate on, from the first rows on.
                Defaults to `None`, all rows.
            validation_batch_size: Integer, number of examples per batch of the validation.
                Defaults to `None`: the size of its first batch, if it has batches, else the
                `batch_size`.
            validation_freq: Integer, validate after every so many epochs; or a collection of
                epochs, counted from 1, to validate after. Defaults to `1`.
            features_col: Column of the features in a table, a list of columns, or a dictionary
                from input name to column(s). A model with one input gets the columns of a
                list side by side; a model with several gets one each. Defaults to `"features"`.
            label_col: Column of the labels, or a list or dictionary of columns for a model
                with several outputs. Defaults to `"label"`.
            weight_col: Column of the sample weights, which has numbers, or arrays of one weight
                per time step; or a list or dictionary of columns, one per output. Defaults to
                `None`.
            filters: Which rows of Parquet files to train on, as in `pyarrow.parquet.read_table`: a
                list of tuples such as `[("age", ">", 17)]`, a list of such lists, or an expression
                of `pyarrow.compute`. Defaults to `None`, all rows.
            reshuffle: `"epoch"`, which is 1, or an integer n >= 1. Training rows are mixed between
                the workers before the first epoch, and then before epochs n, 2n, ..., counted from
                0: all get equally many, in another order also with `shuffle=False`. Rows that
                validate are not mixed. Defaults to `None`: rows stay with their worker.
            scale_lr: `"linear"` or `"sqrt"`, for `mode="synchronous"` with
                `frequency="batch"`: k workers train with k or sqrt(k) times the learning rate.
                The model keeps its own learning rate. Defaults to `None`, no scaling.
            warmup_epochs: Float, number of epochs in which the factor of `scale_lr` grows
                from 1. Defaults to `0.0`.
            checkpoint: Folder to which the state of the fit is written after each epoch: a
                local path, or a URI that Spark can write. Defaults to `None`: none is written.
            resume: Boolean, whether to go on from the last checkpoint, if there is one. The
                other arguments must be those of the interrupted fit. Defaults to `False`.
            checkpoints_kept: Integer >= 1, how many checkpoints to keep. Defaults to `2`.
            callbacks_every: Integer >= 1, number of batches, of all workers together, after which
                to call `on_train_batch_end` of the `callbacks` while the workers train. Defaults
                to `None`, once per epoch.
            worker_callbacks: List of `keras.callbacks.Callback`, or a function without arguments
                that returns one. They run beside the data, with each worker's own model and
                metrics. Defaults to `None`.
            preprocess: Sets `preprocess` of this object, which `evaluate` and `predict` then use,
                too; `False` for none. Defaults to `None`, that of this object.
            augment: Function of the model's inputs, or a Keras layer, that changes each batch in
                training only, after `preprocess`. Defaults to `None`.

        Returns:
            A `keras.callbacks.History` with the metrics over all workers, and those of the
            merged model on the validation rows.

        Raises:
            ValueError: If an argument is out of range, or the data or the checkpoint does not fit.
            TypeError: If an argument has a wrong type.
            FileExistsError: If there are checkpoints in the folder, but `resume` is `False`.
            OSError: If a checkpoint cannot be written or read, or files do not exist.
            WorkerError: If a worker failed. The message has the traceback of the worker.
            ClusterError: If the cluster cannot run the fit.
        """
        check_exclusive(validation_split, class_weight, sample_weight)
        self._model = compiled_model(self._model)
        checked = checked_callbacks(callbacks, callbacks_every)
        plan = self._plan(
            on_nonfinite="ignore" if stops_on_nan(checked) else self.on_nonfinite,
            batch_size=self.batch_size if batch_size is None else batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            shuffle=shuffle,
            reshuffle=reshuffle,
            class_weight=class_weight,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
            scale_lr=scale_lr,
            warmup_epochs=warmup_epochs,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            callbacks_every=callbacks_every,
            worker_callbacks=pickled_callbacks(worker_callbacks),
        )
        x = readable(x, limited=steps_per_epoch is not None)
        with inside("validation_data"):
            validation_data = readable(validation_data, limited=validation_steps is not None)
        plan = sized(plan, x, validation_data, batch_size, validation_batch_size)
        keeping = Checkpointing.of(checkpoint, resume, checkpoints_kept, self.seed, plan, checked)
        check_gradients(self._model, plan)
        cols = Columns(features_col, label_col, weight_col)
        steps = Steps.of(self.preprocess, preprocess, augment, self.custom_objects)
        with Phases(verbose) as progress:
            with progress.moving(first_phase(x)):
                x = opened(x, filters, y)
                source = Source.of(self._model, x, y, cols, self.num_workers, steps)
                spark = source.spark
            check_fit(spark, plan, source.replica, class_weight)
            progress.run_on(spark)
            limit_stream(x, plan.rows_to_read, progress)
            rows, count = (x, y, sample_weight), plan.validation_rows
            data = TrainingData.of(source, rows, validation_split, validation_data, count)
            spec = source.spec(self._model, self.custom_objects)
        with (
            autologged(self._model, plan, validation_split, checked) as logged,
            steps.set_on(self),
        ):
            rule, outcome = self._rule(), self._outcome
            history = train(source, plan, spec, data, rule, outcome, logged, verbose, keeping)
        self._histories.append(history.history)
        self._model.history = history
        return history

    def _plan(self, **arguments: Any) -> TrainingPlan:
        """Check the current settings, with `arguments` in place of some, and make a plan."""
        plan = TrainingPlan.create(**{n: getattr(self, n) for n in PLAN_SETTINGS} | arguments)
        check_rule(self._rule(), plan)
        return plan
