"""`callbacks_every` and `worker_callbacks` on a local Spark; plain Keras is the oracle."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.util import tensor_util

from kspark import SparkModel
from kspark.errors import WorkerError

callbacks = keras.callbacks

ROWS, SIZE, BATCHES = 90, 8, 12


def data():
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
    return x, 2.0 * x[:, :1]


def a_model():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.5), "mse", metrics=["mae"], jit_compile=False
    )
    return model


def bytes_of(model):
    return [w.tobytes() for w in model.get_weights()]


# -- on the driver ---------------------------------------------------------------------------------


class Trace(callbacks.Callback):
    """Notes the hooks of batches, and stops training after a number of ends."""

    def __init__(self, ends=None):
        super().__init__()
        self.seen, self.ends = [], ends

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append("epoch")

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, dict(logs)))
        self.model.stop_training = len(self.ended) == self.ends

    @property
    def ended(self):
        return [seen for seen in self.seen if isinstance(seen, tuple)]


def scalars(folder):
    """What the training of a folder has in its event files: `{tag: {step: value}}`."""
    found = {}
    for file in sorted(folder.rglob("train/events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag.startswith("batch_"):
                    number = tensor_util.make_ndarray(value.tensor)
                    found.setdefault(value.tag, {})[event.step] = float(number)
    return found


def test_with_one_worker_the_hooks_of_each_batch_are_those_of_keras(spark, tmp_path):
    """The asynchronous worker merges each batch, so that checkpoints have weights of the middle."""
    traces, files, boards = [], [], []
    for name in ("plain", "spark"):
        folder, model, trace = tmp_path / name, a_model(), Trace()
        fit, more = model.fit, {}
        if name == "spark":
            fit = SparkModel(model, num_workers=1).fit
            more = {"callbacks_every": 1}
        given = [
            trace,
            callbacks.ModelCheckpoint(folder / "{epoch}-{batch}.keras", save_freq=5),
            callbacks.TensorBoard(folder, update_freq=2),
        ]
        fit(*data(), SIZE, 2, 0, given, shuffle=False, **more)
        assert trace.params == {"verbose": 0, "epochs": 2, "steps": BATCHES}
        traces.append(trace.seen)
        files.append(sorted(path.name for path in folder.glob("*.keras")))
        boards.append(scalars(folder))
    expected, found = traces
    assert len(expected) == 2 * (1 + 2 * BATCHES)
    for one, other in zip(expected, found, strict=True):
        if not isinstance(one, tuple):
            assert other == one
            continue
        assert (other[0], list(other[1])) == (one[0], list(one[1]))
        np.testing.assert_allclose([*other[1].values()], [*one[1].values()], rtol=0, atol=1e-5)
    assert files[0] == files[1]
    assert len(files[0]) == 4
    assert boards[1].keys() == boards[0].keys() == {"batch_loss", "batch_mae"}
    for tag, steps in boards[0].items():
        assert boards[1][tag] == pytest.approx(steps, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [
        ("asynchronous", 1),
        ("synchronous", "batch"),
        pytest.param("synchronous", "epoch", marks=pytest.mark.thorough),
        pytest.param("hogwild", 2, marks=pytest.mark.thorough),
    ],
)
def test_hooks_run_about_every_so_many_batches_of_all_workers(spark, mode, frequency):
    """A hook that stops training is heard at the end of the epoch, and is the last one."""
    trace = Trace(ends=6)
    spark_model = SparkModel(a_model(), mode, frequency, num_workers=2)
    history = spark_model.fit(*data(), SIZE, 9, 0, [trace], callbacks_every=3)
    assert trace.params["steps"] == 12  # 45 rows of each worker are 6 batches
    assert len(history.epoch) == 2
    first, second = trace.ended[:4], trace.ended[4:]
    for number, (batch, logs) in enumerate(first):
        # Each worker reports after two batches.
        assert 3 * number + 2 <= batch <= 3 * number + 3
        assert list(logs) == ["loss", "mae"]
    assert first[-1][0] == 11
    assert first[-1][1] == {name: values[0] for name, values in history.history.items()}
    assert len(second) == 2
    begun = [seen for seen in trace.seen if isinstance(seen, int)]
    assert begun == [0, *(batch + 1 for batch, _ in first[:-1]), 0, second[0][0] + 1]


# -- beside the data -------------------------------------------------------------------------------


class Notes(callbacks.Callback):
    """Writes a line per hook to a file of the worker."""

    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    def note(self, hook, *given):
        with open(f"{self.folder}/{self.params.get('worker', 0)}", "a") as file:
            file.write(json.dumps([hook, *given]) + "\n")

    def on_train_begin(self, logs=None):
        self.note("train begins", self.params.get("num_workers"), self.params["steps"])

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch begins", epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.note("batch ends", batch)

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch ends", epoch, logs)

    def on_train_end(self, logs=None):
        self.note("train ends", logs)


def lines(folder, worker):
    return [json.loads(line) for line in (folder / str(worker)).read_text().splitlines()]


def test_with_one_worker_the_hooks_beside_the_data_are_those_of_keras(spark, tmp_path):
    """They change no byte. The validation in between does not change their metrics."""
    plain, beside, trained = tmp_path / "plain", tmp_path / "beside", []
    plain.mkdir()
    beside.mkdir()
    a_model().fit(*data(), SIZE, 2, 0, [Notes(plain)], shuffle=False)
    for given in (None, [Notes(beside)]):
        model = a_model()
        SparkModel(model, num_workers=1, road="live").fit(
            *data(), SIZE, 2, shuffle=False, validation_data=data(), worker_callbacks=given
        )
        trained.append(bytes_of(model))
    expected, found = lines(plain, 0), lines(beside, 0)
    assert [line[:2] for line in found[1:-1]] == [line[:2] for line in expected[1:-1]]
    assert found[0] == ["train begins", 1, BATCHES]
    for one, other in zip(expected, found, strict=True):
        if isinstance(one[-1], dict):
            assert other[-1] == pytest.approx(one[-1], rel=0, abs=1e-5)
    assert trained[0] == trained[1]


def test_in_jobs_of_an_epoch_callbacks_are_made_anew(spark, tmp_path):
    spark_model = SparkModel(a_model(), num_workers=2, road="rounds")
    spark_model.fit(*data(), SIZE, 2, worker_callbacks=lambda: Notes(tmp_path))
    for worker in (0, 1):
        hooks = [line[0] for line in lines(tmp_path, worker)]
        epoch = ["epoch begins", *["batch ends"] * 6, "epoch ends"]
        assert hooks == ["train begins", *epoch, "train ends"] * 2
        assert lines(tmp_path, worker)[0][1:] == [2, 6]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("mode", "frequency", "workers"),
    [
        *(("synchronous", frequency, 2) for frequency in ("epoch", "batch", 5)),
        *(("asynchronous", frequency, 1) for frequency in ("epoch", 5)),
        ("hogwild", 5, 1),
    ],
)
def test_callbacks_that_read_change_no_byte(spark, tmp_path, mode, frequency, workers):
    trained = []
    for more in ({}, {"worker_callbacks": [Notes(tmp_path)], "callbacks_every": 3}):
        model = a_model()
        SparkModel(model, mode, frequency, num_workers=workers, seed=1).fit(
            *data(), SIZE, 2, 0, [Trace()], **more
        )
        trained.append(bytes_of(model))
    assert trained[0] == trained[1]
    assert len(lines(tmp_path, workers - 1)) == 2 + 2 * (2 + BATCHES // workers)


class SetsWeights(callbacks.Callback):
    """Sets all weights at the end of an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.set_weights([np.full_like(w, 0.5 + epoch) for w in self.model.get_weights()])


@pytest.mark.parametrize(
    ("mode", "frequency", "road"),
    [
        ("synchronous", "epoch", "live"),
        ("asynchronous", 5, "auto"),
        pytest.param("synchronous", "epoch", "rounds", marks=pytest.mark.thorough),
        pytest.param("asynchronous", "epoch", "auto", marks=pytest.mark.thorough),
        pytest.param("synchronous", 5, "auto", marks=pytest.mark.thorough),
        pytest.param("hogwild", 1, "auto", marks=pytest.mark.thorough),
    ],
)
def test_weights_that_a_worker_sets_are_exchanged(spark, mode, frequency, road):
    model = a_model()
    spark_model = SparkModel(model, mode, frequency, num_workers=1, road=road)
    spark_model.fit(*data(), SIZE, 2, worker_callbacks=[SetsWeights()])
    for weights in model.get_weights():
        np.testing.assert_allclose(weights, 1.5, rtol=1e-6)


class Fails(callbacks.Callback):
    """Raises an error in one hook."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.fail)

    def fail(self, *_, **__):
        raise ZeroDivisionError("in a callback")


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_end"])
@pytest.mark.parametrize(
    ("mode", "road"),
    [
        ("synchronous", "live"),
        pytest.param("synchronous", "rounds", marks=pytest.mark.thorough),
        pytest.param("asynchronous", "auto", marks=pytest.mark.thorough),
    ],
)
def test_errors_have_the_traceback_of_the_worker(spark, mode, road, hook):
    spark_model = SparkModel(a_model(), mode, "epoch", num_workers=1, road=road)
    with pytest.raises(WorkerError, match=r"(?s)ZeroDivisionError: in a callback.*in fail"):
        spark_model.fit(*data(), SIZE, 2, worker_callbacks=[Fails(hook)])


class FailsEarly(callbacks.Callback):
    """Raises an error when its task ends after the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.last = epoch

    def on_train_end(self, logs=None):
        if self.last == 0:
            raise ZeroDivisionError("in a callback")


def test_where_rows_are_mixed_the_end_of_the_callbacks_is_waited_for(spark):
    spark_model = SparkModel(a_model(), num_workers=2, road="live")
    with pytest.raises(WorkerError, match="ZeroDivisionError: in a callback"):
        spark_model.fit(*data(), SIZE, 2, reshuffle="epoch", worker_callbacks=[FailsEarly()])
