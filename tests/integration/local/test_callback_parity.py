"""Callbacks of Keras and of users do the same in `SparkModel.fit` as in `keras.Model.fit`.

Each test fits the same model twice, once with plain Keras and once with one worker.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.util import tensor_util

from kspark import SparkModel

callbacks = keras.callbacks

STEPS = 3
"""Batches of an epoch, and of a validation."""


def rows():
    """Training rows, and validation rows whose loss falls at first and then rises."""
    x = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
    return x, 2.0 * x[:, :1], (x[::-1], x[::-1, :1])


def model_of(optimizer=None, **compile_args):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh", name="first"),
            keras.layers.Dense(1, name="last"),
        ],
        name="model",
    )
    optimizer = optimizer or keras.optimizers.SGD(0.05)
    # Without XLA, which takes longer to compile these models than they take to train.
    model.compile(optimizer, "mse", metrics=["mae"], jit_compile=False, **compile_args)
    return model


class Fitted:
    """One of the two fits, with its model, its callbacks and its folder."""

    def __init__(self, model, fit, folder, make, epochs, **arguments):
        folder.mkdir(exist_ok=True)
        self.model, self.folder = model, folder
        self.callbacks = [*make(folder)]
        x, y, validation = rows()
        arguments = {"validation_data": validation, "shuffle": False, **arguments}
        self.history = fit(x, y, 16, epochs, 0, self.callbacks, **arguments)

    @property
    def files(self):
        return sorted(path.name for path in self.folder.iterdir())


def both(make, tmp_path, epochs=6, optimizer=lambda: None, **arguments):
    """Fit with plain Keras, and with one worker. Returns both, with equal histories."""
    plain, ours = model_of(optimizer()), model_of(optimizer())
    fits = {"plain": (plain, plain.fit), "spark": (ours, SparkModel(ours, num_workers=1).fit)}
    fitted = [Fitted(*f, tmp_path / name, make, epochs, **arguments) for name, f in fits.items()]
    same(*(fit.history.history for fit in fitted))
    assert fitted[0].history.epoch == fitted[1].history.epoch
    same_weights(*(fit.model for fit in fitted))
    return fitted


def same(expected, found):
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def same_weights(expected, found):
    for one, other in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


def same_optimizers(expected, found):
    pairs = zip(expected.optimizer.variables, found.optimizer.variables, strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=0, atol=1e-5)


# -- Keras' callbacks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 3, "restore_best_weights": True},
        {"monitor": "val_mae", "start_from_epoch": 6, "patience": 1, "restore_best_weights": True},
    ],
)
def test_early_stopping(spark, tmp_path, arguments):
    plain, ours = both(lambda _: [callbacks.EarlyStopping(**arguments)], tmp_path, epochs=12)
    assert 1 < len(ours.history.epoch) < 12
    (expected,), (found,) = plain.callbacks, ours.callbacks
    assert found.stopped_epoch == expected.stopped_epoch > 0
    assert found.best_epoch == expected.best_epoch


def test_reduce_lr_on_plateau(spark, tmp_path):
    def make(_):
        return [callbacks.ReduceLROnPlateau(factor=0.5, patience=1, cooldown=1, min_lr=0.02)]

    _, ours = both(make, tmp_path, epochs=10)
    rates = ours.history.history["learning_rate"]
    assert len(set(rates)) == 3
    assert min(rates) == pytest.approx(0.02)


def test_learning_rate_scheduler(spark, tmp_path):
    def make(_):
        return [callbacks.LearningRateScheduler(lambda epoch, rate: rate / (epoch + 1))]

    _, ours = both(make, tmp_path, epochs=3)
    np.testing.assert_allclose(ours.history.history["learning_rate"], [0.05, 0.025, 0.05 / 6])


@pytest.mark.parametrize(
    "arguments",
    [
        {"filepath": "{epoch:02d}-{val_loss:.2f}.keras"},
        {
            "filepath": "{epoch}.weights.h5",
            "save_weights_only": True,
            "save_best_only": True,
            "monitor": "val_mae",
        },
    ],
)
def test_model_checkpoint(spark, tmp_path, arguments):
    def make(folder):
        name = arguments["filepath"]
        return [callbacks.ModelCheckpoint(**{**arguments, "filepath": folder / name})]

    plain, ours = both(make, tmp_path, optimizer=lambda: keras.optimizers.Adam(0.1))
    assert ours.files == plain.files
    assert len(ours.files) == 6 or "save_best_only" in arguments
    for name in ours.files:
        saved = []
        for folder in (plain.folder, ours.folder):
            if name.endswith(".keras"):
                saved.append(keras.models.load_model(folder / name))
            else:
                saved.append(model_of(keras.optimizers.Adam(0.1)))
                saved[-1].load_weights(folder / name)
        same_weights(*saved)
        if name.endswith(".keras"):
            same_optimizers(*saved)


def test_csv_logger(spark, tmp_path):
    def make(folder):
        return [
            callbacks.CSVLogger(folder / "new.csv"),
            callbacks.CSVLogger(folder / "all.csv", separator=";", append=True),
            callbacks.LearningRateScheduler(lambda epoch: 0.01),
        ]

    for name in ("plain", "spark"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.csv").write_text("epoch;loss;mae;val_loss;val_mae\n0;1;2;3;4\n")
    plain, ours = both(make, tmp_path, epochs=2)
    for name, separator, lines in (("new.csv", ",", 3), ("all.csv", ";", 4)):
        tables = []
        for folder in (plain.folder, ours.folder):
            text = (folder / name).read_text().splitlines()
            tables.append([line.split(separator) for line in text])
        expected, found = tables
        assert len(found) == lines
        assert found[0] == expected[0] == ["epoch", "loss", "mae", "val_loss", "val_mae"]
        numbers = [[line for line in t if line[0] != "epoch"] for t in tables]
        np.testing.assert_allclose(*np.array(numbers, float), rtol=1e-4)


def test_terminate_on_nan_raises_on_demand(spark):
    x, y, _ = rows()
    for wrap in (lambda model: model, lambda model: SparkModel(model, num_workers=1)):
        with pytest.raises(RuntimeError, match="NaN or Inf loss encountered at batch"):
            wrap(model_of()).fit(
                np.full_like(x, np.inf), y, 16, 5, 0, [callbacks.TerminateOnNaN(raise_error=True)]
            )


def test_swap_ema_weights_after_each_epoch(spark, tmp_path):
    def make(folder):
        return [
            callbacks.SwapEMAWeights(swap_on_epoch=True),
            callbacks.ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True),
        ]

    def optimizer():
        return keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8)

    plain, ours = both(make, tmp_path, 3, optimizer, validation_data=None)
    for name in ("1.weights.h5", "2.weights.h5", "3.weights.h5"):
        saved = [model_of(optimizer()), model_of(optimizer())]
        for model, fitted in zip(saved, (plain, ours), strict=True):
            model.load_weights(fitted.folder / name)
        same_weights(*saved)


class Receiver(BaseHTTPRequestHandler):
    """Keeps what `RemoteMonitor` posts, by its path."""

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.setdefault(self.path, []).append(json.loads(text))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_remote_monitor(spark, tmp_path):
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.received = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"

        def make(folder):
            return [callbacks.RemoteMonitor(root, f"/{folder.name}", send_as_json=True)]

        both(make, tmp_path, epochs=2)
        server.shutdown()
    expected, found = server.received["/plain"], server.received["/spark"]
    assert len(found) == len(expected) == 2
    for one, other in zip(expected, found, strict=True):
        same(one, other)


def test_history(spark):
    """One that is used again goes on, and has what Keras' has."""
    x, y, _ = rows()
    histories = []
    for wrap in (
        lambda model: model,
        lambda model: SparkModel(model, "asynchronous", 2, num_workers=1),
    ):
        own, model = callbacks.History(), wrap(model_of())
        for _ in range(2):
            assert model.fit(x, y, 16, 2, 0, [own], shuffle=False) is own
        histories.append(own.history)
    expected, found = histories
    assert {len(column) for column in found.values()} == {4}
    same(expected, found)


# -- TensorBoard -----------------------------------------------------------------------------------


def events(folder):
    """Everything in the event files of a folder: `{(writer, tag): {step: value}}`."""
    found = {}
    for file in sorted(folder.rglob("events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                steps = found.setdefault((file.parent.name, value.tag), {})
                steps[event.step] = tensor_util.make_ndarray(value.tensor)
    return found


def layers_in(conceptual_graph):
    config = json.loads(conceptual_graph.item())["config"]
    return [layer["class_name"] for layer in config["layers"]]


def test_tensorboard_scalars_histograms_images_and_embeddings(spark, tmp_path):
    def make(folder):
        return [
            callbacks.TensorBoard(
                folder,
                histogram_freq=2,
                write_images=True,
                write_steps_per_second=True,
                embeddings_freq=2,
            )
        ]

    plain, ours = both(make, tmp_path, epochs=3)
    expected, found = events(plain.folder), events(ours.folder)
    assert found.keys() == expected.keys()
    counters = found["validation", "evaluation_loss_vs_iterations"]
    assert list(counters) == [STEPS, 2 * STEPS, 3 * STEPS]
    assert {"epoch_loss", "epoch_learning_rate", "keras"} <= {tag for _, tag in found}
    for key, steps in found.items():
        assert list(steps) == list(expected[key]), key
        for step, value in steps.items():
            if key[1] == "epoch_steps_per_second":
                assert value > 0
            elif value.dtype.kind == "f":
                np.testing.assert_allclose(value, expected[key][step], rtol=1e-3, atol=1e-4)
            elif key[1] == "keras":
                assert layers_in(value) == layers_in(expected[key][step])
            else:  # encoded images
                assert value.shape == expected[key][step].shape
    embeddings = {path.name for path in ours.folder.rglob("keras_embedding*")}
    assert embeddings == {path.name for path in plain.folder.rglob("keras_embedding*")}
    assert len(embeddings) == 2


# -- callbacks of users ----------------------------------------------------------------------------

HOOKS = [
    *("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end"),
    *("on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
]


class Trace(callbacks.Callback):
    """Notes each call of a hook, with its arguments, the learning rate and the steps."""

    def __init__(self):
        super().__init__()
        self.seen = []
        for hook in HOOKS:
            setattr(self, hook, self.noting(hook))

    def noting(self, hook):
        def note(*index, logs=None):
            if index and not isinstance(index[-1], int):
                *index, logs = index
            rate, steps = self.model.optimizer.learning_rate, self.model.optimizer.iterations
            self.seen.append((hook, list(index), logs or {}, float(rate), int(steps)))

        return note


def test_hooks_run_as_with_an_epoch_in_one_execution(spark):
    """Keras calls the hooks of batches once per execution, of `steps_per_execution` batches."""
    traces = []
    for number in range(2):
        model = model_of(steps_per_execution=1 if number else STEPS)
        fit = SparkModel(model, num_workers=1).fit if number else model.fit
        x, y, validation = rows()
        trace = Trace()
        fit(x, y, 16, 2, 0, [trace], validation_data=validation, shuffle=False)
        traces.append(trace)
    expected, found = (trace.seen for trace in traces)
    assert [call[:2] for call in found] == [call[:2] for call in expected]
    assert len(found) == 2 + 2 * 8
    for one, other in zip(expected, found, strict=True):
        same(one[2], other[2])
        assert one[3:] == other[3:]
    assert traces[1].params == {"verbose": 0, "epochs": 2, "steps": STEPS}
    assert traces[0].params == traces[1].params


class Curious(callbacks.Callback):
    """Predicts and evaluates with the model, sets the learning rate, and stops training."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        x, y, _ = rows()
        self.seen.append(self.model.predict(x[:2], verbose=0).tolist())
        self.seen.append(self.model.evaluate(x, y, verbose=0))
        logs["seen"] = float(epoch)
        self.model.optimizer.learning_rate = 0.05 / (epoch + 2)
        self.model.stop_training = epoch == 3


def test_callbacks_predict_evaluate_set_the_rate_add_to_the_logs_and_stop(spark, tmp_path):
    plain, ours = both(lambda _: [Curious()], tmp_path, epochs=9)
    assert ours.history.history["seen"] == [0.0, 1.0, 2.0, 3.0]
    (expected,), (found,) = plain.callbacks, ours.callbacks
    for one, other in zip(expected.seen, found.seen, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_lambda_callback(spark, tmp_path):
    def make(folder):
        def note(*values):
            with (folder / "notes").open("a") as file:
                file.write(f"{values[0] if values else 'end'}\n")

        return [
            callbacks.LambdaCallback(
                on_epoch_begin=note, on_epoch_end=note, on_train_end=lambda logs: note()
            )
        ]

    plain, ours = both(make, tmp_path, epochs=2)
    notes = (ours.folder / "notes").read_text()
    assert notes == (plain.folder / "notes").read_text() == "0\n0\n1\n1\nend\n"


@pytest.mark.parametrize(
    ("mode", "frequency", "road"),
    [
        ("synchronous", "epoch", "auto"),
        ("asynchronous", 2, "auto"),
        pytest.param("synchronous", "epoch", "rounds", marks=pytest.mark.thorough),
        pytest.param("synchronous", 2, "auto", marks=pytest.mark.thorough),
    ],
)
def test_hooks_of_batches_run_once_per_epoch_in_every_mode(spark, mode, frequency, road, caplog):
    """Weights that they set are validated, and `stop_training` is heard."""
    seen = []

    def end(batch, logs):
        seen.append((batch, sorted(logs), callback.params["steps"]))
        model.set_weights([np.zeros_like(w) for w in model.get_weights()])
        model.stop_training = len(seen) == 2

    x, y, validation = rows()
    model = model_of()
    callback = callbacks.LambdaCallback(on_train_batch_end=end)
    spark_model = SparkModel(model, mode, frequency, num_workers=2, road=road)
    with caplog.at_level("WARNING", "kspark"):
        history = spark_model.fit(x, y, 16, 5, 0, [callback], validation_data=validation)
    # 24 rows of each worker are two batches.
    assert seen == [(1, ["loss", "mae"], 2)] * 2
    assert not any(w.any() for w in model.get_weights())
    zeros = float(np.mean(np.square(validation[1])))
    assert history.history["val_loss"] == pytest.approx([zeros, zeros])
    assert "`on_train_batch_end` of LambdaCallback will be called once per epoch" in caplog.text
