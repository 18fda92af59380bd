"""The two roads of the default mode: the same bytes, and rounds at the first obstacle."""

import os
import signal
import threading
import time

import keras
import numpy as np
import pytest
from pyspark import TaskContext

from kspark import SparkModel
from kspark.errors import NotEnoughSlotsError, WorkerError
from kspark.live import sharing
from kspark.rounds.dispatcher import Dispatcher

LIVE = "All workers run at the same time."


def labelled(rows, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def classifier(*layers, optimizer="adam"):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            *layers,
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def bytes_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable).tobytes() for variable in variables]


def fitted(road, data, layers=(), settings=None, **arguments):
    """A model that was trained on a road, and its `SparkModel` and history."""
    model = classifier(*layers)
    spark_model = SparkModel(
        model, road=road, seed=5, **{"num_workers": 2, "batch_size": 8, **(settings or {})}
    )
    history = spark_model.fit(*data, **{"epochs": 4, "verbose": 0, **arguments})
    return model, spark_model, history.history


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({}, {"validation_split": 0.2}),
        ({"server_optimizer": "adam", "compression": "int8"}, {"validation_data": labelled(31, 1)}),
        ({"server_optimizer": "elastic_average"}, {}),
    ],
)
def test_both_roads_give_the_same_bytes(spark, settings, arguments):
    data = labelled(77)
    (rounds, by_job, expected), (live, at_once, history) = (
        fitted(road, data, settings=settings, **arguments) for road in ("rounds", "auto")
    )
    assert (by_job.last_fit.road, at_once.last_fit.road) == ("rounds", "live")
    assert at_once.last_fit.road_reason == LIVE
    assert bytes_of(live) == bytes_of(rounds)
    assert history == expected
    assert at_once.last_fit.to_dict()["road"] == "live"


def test_callbacks_see_the_same_on_both_roads(spark, tmp_path):
    """Files of each epoch with the optimizer's state, a rate that changes, and an early end."""
    data, seen = labelled(60), {}
    for road in ("rounds", "live"):
        steps = []
        callbacks = [
            keras.callbacks.ModelCheckpoint(f"{tmp_path}/{road}-{{epoch}}.keras"),
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs, seen=steps: seen.append(logs["loss"])
            ),
            keras.callbacks.EarlyStopping("loss", patience=0, min_delta=10.0),
        ]
        model, spark_model, _ = fitted(road, data, callbacks=callbacks)
        files = [keras.saving.load_model(f"{tmp_path}/{road}-{epoch}.keras") for epoch in (1, 2)]
        seen[road] = [*map(bytes_of, files), bytes_of(model), steps]
        assert spark_model.last_fit.road == road
        assert len(steps) == 2
    assert seen["live"] == seen["rounds"]


class Job(keras.callbacks.Callback):
    """Runs a Spark job of the user's own after every epoch, which needs all task slots."""

    def __init__(self, spark):
        super().__init__()
        self.spark, self.counts = spark, []

    def on_epoch_end(self, epoch, logs=None):
        self.counts.append(self.spark.sparkContext.parallelize(range(8), 2).count())


def test_a_job_of_a_callback_does_not_wait_for_ever(spark):
    data, job = labelled(60), Job(spark)
    expected, *_ = fitted("rounds", data, epochs=6)
    model, spark_model, _ = fitted("auto", data, callbacks=[job], epochs=6)
    assert job.counts == [8] * 6
    assert bytes_of(model) == bytes_of(expected)
    assert spark_model.last_fit.road == "rounds"
    assert "between two epochs" in spark_model.last_fit.road_reason


def test_two_fits_at_the_same_time_share_the_slots(spark):
    """Each of them lets the other have slots between two epochs."""
    data, trained = labelled(60), {}
    expected = bytes_of(fitted("rounds", data, epochs=3)[0])

    def fit(number):
        model, spark_model = models[number]
        spark_model.fit(*data, epochs=3, verbose=0)
        trained[number] = bytes_of(model)

    models = []
    for _ in range(2):
        model = classifier()
        models.append((model, SparkModel(model, num_workers=2, batch_size=8, seed=5)))
    threads = [threading.Thread(target=fit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert trained == {0: expected, 1: expected}


class Background(keras.callbacks.Callback):
    """Submits a Spark job from another thread, and waits for it some epochs later."""

    def __init__(self, spark):
        super().__init__()
        self.jobs = spark.sparkContext.statusTracker().getActiveJobsIds
        self.thread = threading.Thread(
            target=spark.sparkContext.parallelize(range(8), 2).count, daemon=True
        )

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.thread.start()
            while len(self.jobs()) < 2 and self.thread.is_alive():
                time.sleep(0.01)
        if epoch == 3:
            self.thread.join(60)
            assert not self.thread.is_alive()


def test_a_job_of_another_thread_gets_slots_before_the_fit_ends(spark, monkeypatch):
    monkeypatch.setattr(Dispatcher.__init__, "__defaults__", (60.0,))  # not because of idleness
    _, spark_model, _ = fitted("auto", labelled(60), callbacks=[Background(spark)])
    assert spark_model.last_fit.road == "rounds"
    assert "Another Spark job of the session is running" in spark_model.last_fit.road_reason


@keras.saving.register_keras_serializable("tests.roads")
class DiesOnce(keras.layers.Layer):
    """Kills the worker that trains shard 1, at its third batch, unless a file exists."""

    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        self.file = path

    def call(self, x):
        import tensorflow as tf

        def die():
            context = TaskContext.get()
            if context is None or context.partitionId() != 1 or os.path.exists(self.file + ".died"):
                return 0.0
            with open(self.file, "ab") as file:
                file.write(b".")
            if os.path.getsize(self.file) == 12:
                open(self.file + ".died", "wb").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return 0.0

        return x + tf.reshape(tf.py_function(die, [], tf.float32), ())

    def get_config(self):
        return {**super().get_config(), "path": self.file}


def test_a_lost_process_ends_the_live_road_but_no_epoch(spark, tmp_path):
    data = labelled(77)
    (tmp_path / "healthy.died").touch()
    expected, *_ = fitted("live", data, layers=[DiesOnce(str(tmp_path / "healthy"))])
    model, spark_model, history = fitted("live", data, layers=[DiesOnce(str(tmp_path / "killed"))])
    assert (tmp_path / "killed.died").exists()
    assert bytes_of(model) == bytes_of(expected)
    assert len(history["loss"]) == 4
    report = spark_model.last_fit
    assert report.road == "rounds"
    assert report.road_reason.startswith("Epoch ")


def test_gradients_in_shared_memory_give_the_same_bytes_also_if_a_process_is_lost(
    spark, tmp_path, monkeypatch
):
    data, settings = labelled(77), {"frequency": "batch"}
    (tmp_path / "healthy.died").touch()
    healthy, mortal = (DiesOnce(str(tmp_path / name)) for name in ("healthy", "killed"))
    near, by_memory, _ = fitted("auto", data, [healthy], settings)
    lost, *_ = fitted("auto", data, [mortal], settings)
    monkeypatch.setattr(sharing, "MAX_BYTES", 0)
    far, by_connection, _ = fitted("auto", data, [healthy], settings)
    assert (tmp_path / "killed.died").exists()
    assert bytes_of(near) == bytes_of(lost) == bytes_of(far)
    sent = [w.last_fit.workers[1][0]["bytes_sent"] for w in (by_memory, by_connection)]
    gradient = 4 * near.count_params()
    assert sent[0] < sent[1] - 4 * gradient  # five batches an epoch


def test_an_error_of_the_model_is_the_same_on_both_roads(spark):
    x, y = labelled(40)
    y[:] = 7  # no class of the model
    texts = []
    for road in ("rounds", "live"):
        with pytest.raises(WorkerError) as raised:
            fitted(road, (x * np.inf, labelled(40)[1]))
        texts.append(str(raised.value).splitlines()[0])
    assert texts[0] == texts[1]


def test_more_shards_than_slots_are_trained_in_rounds(spark):
    _, spark_model, _ = fitted("auto", labelled(60), settings={"num_workers": 3}, epochs=2)
    assert spark_model.last_fit.road == "rounds"
    assert spark_model.last_fit.road_reason == "There are 3 shards and 2 task slots."
    with pytest.raises(NotEnoughSlotsError, match=r'^road="live" runs all.* 3.* 2 free task slots'):
        fitted("live", labelled(60), settings={"num_workers": 3})
    frame = spark.createDataFrame([([1.0] * 6, 0)] * 9, ["features", "label"]).repartition(3)
    with pytest.raises(NotEnoughSlotsError):
        SparkModel(classifier(), road="live").fit(frame, verbose=0)


def test_a_partition_without_rows_takes_no_part(spark):
    frame = spark.createDataFrame([([1.0] * 6, 0)] * 8, ["features", "label"])
    frame = frame.repartition(2, "label")  # all rows have one label
    assert sorted(frame.rdd.glom().map(len).collect()) == [0, 8]
    models = [classifier(), classifier()]
    for model, road in zip(models, ("rounds", "live"), strict=True):
        SparkModel(model, road=road, seed=5).fit(frame, epochs=3, verbose=0)
    assert bytes_of(models[0]) == bytes_of(models[1])


class Vocabulary(keras.callbacks.Callback):
    """Sets another vocabulary before the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.layers[0].set_vocabulary(["c", "b", "a"])


def test_a_new_vocabulary_reaches_the_tasks_of_a_long_job(spark):
    x, y = np.array([["a"], ["b"], ["c"], ["a"]] * 10), np.array([0.0, 1.0, 2.0, 0.0] * 10)
    models = []
    for road in ("rounds", "live"):
        keras.utils.set_random_seed(3)
        lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="one_hot")
        model = keras.Sequential([keras.Input((1,), dtype="string"), lookup, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        spark_model = SparkModel(model, road=road, seed=5, num_workers=2)
        spark_model.fit(x, y, epochs=4, verbose=0, callbacks=[Vocabulary()])
        assert spark_model.last_fit.road == road
        models.append(model)
    assert bytes_of(models[0]) == bytes_of(models[1])


def test_a_fit_that_allows_no_failure_survives_an_obstacle(spark):
    """The processes that the driver ends at an obstacle are not failures of their shards."""
    data, calls = labelled(60), []
    expected, *_ = fitted("rounds", data)
    add_result = Dispatcher.report

    def report(self, shard, attempt, meta, arrays):
        calls.append(shard)
        if len(calls) == 9:
            self._stumble("The test ends the long job.")
        return add_result(self, shard, attempt, meta, arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "report", report)
        model, spark_model, _ = fitted("auto", data, settings={"max_failures": 0})
    assert spark_model.last_fit.road == "rounds"
    assert bytes_of(model) == bytes_of(expected)


def test_the_road_of_other_modes(spark):
    _, spark_model, _ = fitted("auto", labelled(40), settings={"mode": "asynchronous"}, epochs=1)
    assert spark_model.last_fit.road == "live"
    assert "within an epoch" in spark_model.last_fit.road_reason
    with pytest.raises(ValueError, match=r'`road` must be "auto" or "live" with mode="hogwild"'):
        SparkModel(classifier(), mode="hogwild", road="rounds")
