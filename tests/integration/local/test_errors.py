"""The errors of a fit name their cause, and a fit that fails leaves nothing behind."""

import glob
import os
import signal
import tempfile
import threading
import time

import keras
import numpy as np
import pytest
from pyspark import TaskContext

from kspark import SparkModel, temporary
from kspark.errors import NonFiniteError, NotEnoughSlotsError, WorkerError

ROADS = ["synchronous", "hogwild", pytest.param("asynchronous", marks=pytest.mark.thorough)]


def classifier(*layers, loss="sparse_categorical_crossentropy", optimizer="adam"):
    model = keras.Sequential(
        [keras.Input((4,)), *layers, keras.layers.Dense(3, activation="softmax")]
    )
    model.compile(optimizer, loss)
    return model


def data(rows=40):
    random = np.random.default_rng(0)
    return random.normal(size=(rows, 4)).astype("float32"), random.integers(0, 3, rows)


@keras.saving.register_keras_serializable("tests")
class RaisesOnWorkers(keras.layers.Layer):
    def call(self, inputs):
        if TaskContext.get() is not None:
            raise ZeroDivisionError("a mistake of the model's")
        return inputs


@keras.saving.register_keras_serializable("tests")
class EndsTheProcess(keras.layers.Layer):
    """Ends the first process that runs it while a file is there, and removes the file."""

    def __init__(self, flag, **kwargs):
        super().__init__(**kwargs)
        self.flag = flag

    def call(self, inputs):
        if TaskContext.get() is not None and os.path.exists(self.flag):
            os.remove(self.flag)
            os._exit(1)
        return inputs

    def get_config(self):
        return {**super().get_config(), "flag": self.flag}


@pytest.fixture(autouse=True)
def own_memory(monkeypatch):
    """A folder for the memory that this process shares, apart from other processes' tests."""
    if os.path.isdir(temporary.MEMORY):
        with tempfile.TemporaryDirectory(dir=temporary.MEMORY) as folder:
            monkeypatch.setattr(temporary, "MEMORY", folder)
            yield
    else:
        yield


def local_directories(spark):
    """Where Python workers of this session write."""
    rows = spark.sparkContext.parallelize([0], 1)
    return rows.map(lambda _: os.environ["SPARK_LOCAL_DIRS"]).first().split(",")


def left_behind(spark):
    """What a fit could leave: threads, files, persisted data, broadcasts, shared memory."""
    return {
        "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("kspark")),
        "persisted": spark.sparkContext._jsc.getPersistentRDDs().size(),
        "shared": glob.glob(f"{temporary.MEMORY}/kspark-*"),
        "spools": [f for d in local_directories(spark) for f in glob.glob(f"{d}/kspark-*/*")],
    }


@pytest.mark.parametrize("mode", ROADS)
def test_an_exception_on_a_worker_is_reported_with_its_traceback(spark, mode):
    before = left_behind(spark)
    with pytest.raises(WorkerError) as caught:
        SparkModel(classifier(RaisesOnWorkers()), mode).fit(*data(), verbose=0)
    text = str(caught.value)
    assert "ZeroDivisionError" in text
    assert "a mistake of the model's" in text
    assert "Traceback" in text
    assert "in call" in text
    assert caught.value.failure.host
    assert left_behind(spark) == before


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [
        ("synchronous", "epoch"),
        ("asynchronous", "epoch"),
        pytest.param("synchronous", 2, marks=pytest.mark.thorough),
    ],
)
def test_a_process_that_dies_in_validation_does_not_lose_an_epoch(spark, tmp_path, mode, frequency):
    path = tmp_path / "armed"
    arm = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: path.touch() if epoch == 0 else None
    )
    model = classifier(EndsTheProcess(str(path)))  # traced anew by the first validation
    spark_model = SparkModel(model, mode, frequency, num_workers=2)
    history = spark_model.fit(
        *data(), epochs=4, verbose=0, callbacks=[arm], validation_data=data(), validation_freq=2
    )
    assert not path.exists()
    assert [len(history.history[name]) for name in ("loss", "val_loss")] == [4, 2]
    assert [facts.epoch for facts in spark_model.last_fit.epochs] == [0, 1, 2, 3]


@pytest.mark.parametrize("mode", ROADS)
def test_a_fit_leaves_nothing_behind(spark, mode):
    before = left_behind(spark)
    SparkModel(classifier(), mode).fit(*data(), epochs=2, verbose=0)
    assert left_behind(spark) == before


def test_a_fit_that_mixes_rows_leaves_nothing_behind(spark):
    before = left_behind(spark)
    SparkModel(classifier()).fit(*data(), epochs=2, verbose=0, reshuffle="epoch")
    assert left_behind(spark) == before


class Interrupts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize("mode", ROADS)
def test_an_interrupt_frees_all_resources_and_the_next_fit_works(spark, mode):
    before = left_behind(spark)
    spark_model = SparkModel(classifier(), mode)
    with pytest.raises(KeyboardInterrupt):
        spark_model.fit(*data(), epochs=50, verbose=0, callbacks=[Interrupts()])
    assert left_behind(spark) == before
    history = spark_model.fit(*data(), epochs=1, verbose=0)
    assert len(history.history["loss"]) == 1


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_loss_that_is_not_finite_raises_an_error(spark, mode):
    x, y = data()
    x[7, 2] = np.nan
    with pytest.raises(NonFiniteError, match="learning rate"):
        SparkModel(classifier(), mode).fit(x, y, verbose=0)


@pytest.mark.parametrize("mode", ROADS)
def test_weights_that_are_not_finite_raise_an_error_although_the_loss_hides_it(spark, mode):
    """As for Keras, ReLU makes 0 of NaN. The model keeps the weights from before the epoch."""
    x, y = data()
    x[7, 2] = np.nan
    plain, model = (classifier(keras.layers.Dense(5, activation="relu")) for _ in range(2))
    history = plain.fit(x, y, verbose=0).history
    assert np.isfinite(history["loss"][0]) and np.isnan(plain.get_weights()[0]).any()
    before = model.get_weights()
    with pytest.raises(NonFiniteError, match=r"Merged weights .*epoch 1, .*\nHint: .*NaN in"):
        SparkModel(model, mode).fit(x, y, verbose=0)
    for found, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, kept)


def test_too_few_task_slots_raise_an_error(spark):
    with pytest.raises(NotEnoughSlotsError, match=r"3.*2 free task slots") as caught:
        SparkModel(classifier(), "asynchronous", num_workers=3).fit(*data(), verbose=0)
    assert "spark.executor" in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.arange(40) % 4, "class numbers from 0 to 2"),
        (np.arange(40) % 3 - 1, "class numbers from 0 to 2"),
        (np.linspace(0, 1, 40), "class numbers"),
        (np.eye(3)[np.arange(40) % 3], "not one-hot"),
    ],
)
def test_labels_that_do_not_fit_the_loss_are_refused(spark, labels, text):
    with pytest.raises(ValueError, match=text):
        SparkModel(classifier()).fit(data()[0], labels, verbose=0)


@pytest.mark.parametrize("as_rdd", [False, True])
def test_evaluation_checks_labels_as_training_does(spark, as_rdd):
    x, y = data()
    rows = list(zip(x, y + 1, strict=True))
    given = (spark.sparkContext.parallelize(rows, 2),) if as_rdd else (x, y + 1)
    with pytest.raises(ValueError, match="class numbers from 0 to 2"):
        SparkModel(classifier()).evaluate(*given)


def test_text_labels_are_refused_for_a_loss_of_keras(spark):
    x, y = data()
    words = y.astype(str)
    frame = spark.createDataFrame([(x[0].tolist(), "a")], ["features", "label"])
    for method in (SparkModel(classifier()).fit, SparkModel(classifier()).evaluate):
        with pytest.raises(ValueError, match="`y` must be numbers .*StringIndexer"):
            method(x, words)
        with pytest.raises(ValueError, match="text in column 'label'"):
            method(frame)
    rdd = spark.sparkContext.parallelize(list(zip(x, words, strict=True)), 2)
    with pytest.raises(ValueError, match="`y` must be numbers .*StringIndexer"):
        SparkModel(classifier()).fit(rdd)


def test_evaluation_needs_labels(spark):
    with pytest.raises(ValueError, match="`y` must be labels for the outputs"):
        SparkModel(classifier()).evaluate(data()[0])


def test_class_numbers_are_refused_for_a_one_hot_loss(spark):
    with pytest.raises(ValueError, match="one-hot"):
        SparkModel(classifier(loss="categorical_crossentropy")).fit(*data(), verbose=0)


def test_ragged_rows_are_refused(spark):
    rows = [(np.zeros(4, "float32"), 0), (np.zeros(5, "float32"), 1)]
    with pytest.raises(ValueError, match="shape"):
        SparkModel(classifier()).fit(spark.sparkContext.parallelize(rows, 1), verbose=0)


def test_ragged_validation_rows_are_refused(spark):
    rows = [(np.zeros(4, "float32"), 0), (np.zeros(5, "float32"), 1)]
    ragged = spark.sparkContext.parallelize(rows, 1)
    with pytest.raises(ValueError, match="^In `validation_data`: .*shape"):
        SparkModel(classifier()).fit(*data(), validation_data=ragged, verbose=0)


def test_an_invalid_row_leaves_no_shard_of_any_partition(spark):
    before = left_behind(spark)
    rows = [(np.zeros(4, "float32"), 0)] * 3 + [(np.zeros(5, "float32"), 1)]
    with pytest.raises(ValueError, match="shape"):
        SparkModel(classifier()).fit(spark.sparkContext.parallelize(rows, 2), verbose=0)
    assert left_behind(spark) == before


def test_an_interrupt_during_spooling_leaves_nothing_behind(spark, tmp_path):
    before, pipe = left_behind(spark), str(tmp_path / "pipe")
    os.mkfifo(pipe)

    def rows(index, items):
        """The second partition tells when the first one's shard is there, and goes on waiting."""
        folders = os.environ["SPARK_LOCAL_DIRS"].split(",")
        while index and not any(glob.glob(f"{d}/kspark-*/shard-00000-*") for d in folders):
            time.sleep(0.02)
        if index:
            with open(pipe, "w") as stream:
                stream.write("there")
            time.sleep(100)
        yield from items

    def press():
        with open(pipe) as stream:
            stream.read()
        signal.raise_signal(signal.SIGINT)

    watcher = threading.Thread(target=press, daemon=True)
    watcher.start()
    rdd = spark.sparkContext.parallelize([(np.zeros(4, "float32"), 0)] * 4, 2)
    with pytest.raises(KeyboardInterrupt):
        SparkModel(classifier()).fit(rdd.mapPartitionsWithIndex(rows), verbose=0)
    watcher.join()
    assert left_behind(spark) == before


@pytest.mark.parametrize("arguments", [{}, {"preprocess": lambda batch: batch["x"]}])
def test_an_error_of_the_code_of_an_rdd_is_told_once(spark, arguments):
    rows = spark.sparkContext.parallelize(range(8), 2).map(lambda i: ([i / (i - i)] * 4, 0))
    with pytest.raises(WorkerError) as caught:
        SparkModel(classifier()).fit(rows, verbose=0, **arguments)
    text = str(caught.value)
    assert text.startswith("A Spark task raised ZeroDivisionError: ")
    assert text.endswith("zero") and text.count("test_errors.py") == 1
    assert caught.value.__cause__ is None  # which would have Spark's text with the same traceback


def test_input_without_rows_is_refused(spark):
    with pytest.raises(ValueError, match="at least one example"):
        SparkModel(classifier()).fit(spark.sparkContext.emptyRDD(), verbose=0)


def test_unsupported_input_raises_a_type_error(spark):
    with pytest.raises(TypeError):
        SparkModel(classifier()).fit(object(), verbose=0)


def test_a_model_that_is_not_compiled_is_refused(spark):
    with pytest.raises(ValueError, match="compiled"):
        SparkModel(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def test_an_unknown_argument_is_named_in_the_error(spark):
    with pytest.raises(TypeError, match="epoch_count"):
        SparkModel(classifier(), epoch_count=3)


def test_parameter_server_mode_gives_a_deprecation_warning(spark):
    with pytest.warns(DeprecationWarning, match="parameter_server_mode"):
        SparkModel(classifier(), mode="asynchronous", parameter_server_mode="http", port=4000)
