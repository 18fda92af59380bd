"""Callbacks beside a replica see what `keras.Model.fit` shows them, and change no byte."""

from __future__ import annotations

import json
import threading

import keras
import numpy as np
import pytest

from kspark.replica import Replica
from kspark.replica.callbacks import ReplicaCallbacks, dump_callbacks, load_callbacks
from kspark.worker.progress import Reporter

COUNT, SIZE, BATCHES, EPOCHS = 46, 4, 12, 2
PARAMS = {"verbose": 0, "epochs": EPOCHS, "steps": BATCHES}
MORE = {"worker": 1, "num_workers": 3}


class Notes(keras.callbacks.Callback):
    """Writes a line per hook, with its arguments and the sum of the weights."""

    def __init__(self, path):
        super().__init__()
        self.path = str(path)

    def note(self, hook, *given):
        weights = float(sum(w.sum() for w in self.model.get_weights()))
        with open(self.path, "a") as file:
            file.write(json.dumps([hook, *given, weights]) + "\n")

    def on_train_begin(self, logs=None):
        self.note("train begins", self.params)

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch begins", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch ends", epoch, logs)

    def on_train_end(self, logs=None):
        self.note("train ends", logs)


class BatchNotes(Notes):
    """The same, for batches."""

    def on_train_batch_begin(self, batch, logs=None):
        self.note("batch begins", batch)

    def on_train_batch_end(self, batch, logs=None):
        self.note("batch ends", batch, logs)


class Sets(keras.callbacks.Callback):
    """Does something in one hook."""

    def __init__(self, hook, act):
        super().__init__()
        setattr(self, hook, lambda *_, **__: act(self.model))


def a_model(steps=1):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False, steps_per_execution=steps)
    return model


def data():
    rng = np.random.default_rng(0)
    return rng.random((COUNT, 3), np.float32), rng.random((COUNT, 2), np.float32)


def train_beside(model, callbacks, window_of, **more):
    """Train as a worker does. Returns the bytes of what it has trained."""
    replica, window = Replica.of(model), window_of(*data())
    pickled = None if callbacks is None else dump_callbacks(callbacks)
    reporter = Reporter(callbacks=ReplicaCallbacks(pickled, {**PARAMS, **MORE}, **more))
    reporter.callbacks.attach(replica)
    for epoch in range(EPOCHS):
        replica.reset_metrics()
        reporter.begin(epoch, COUNT)
        for start, stop in reporter.pieces(0, BATCHES):
            replica.train(window, SIZE, start, stop)
            reporter.trained(replica, SIZE * (stop - start))
        reporter.callbacks.end_epoch()
    reporter.callbacks.end()
    state = [replica.get_vector(), *replica.get_optimizer_state(), *replica.get_fixed()]
    return [array.tobytes() for array in (*state, *replica.metric_state())]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(expected, found):
    """Compare nested lists and dictionaries; numbers up to rounding."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        same(list(expected.values()), list(found.values()))
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(expected, found, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize(("kind", "steps"), [(Notes, 1), (BatchNotes, 1), (BatchNotes, 3)])
def test_hooks_run_as_in_keras(kind, steps, window_of, tmp_path):
    x, y = data()
    plain, beside = tmp_path / "plain", tmp_path / "beside"
    a_model(steps).fit(x, y, SIZE, EPOCHS, 0, [kind(plain)], shuffle=False)
    found = train_beside(a_model(steps), [kind(beside)], window_of)
    expected = lines(plain)
    assert expected[0][1] == PARAMS
    expected[0][1] = {**PARAMS, **MORE}
    same(expected, lines(beside))
    assert found == train_beside(a_model(steps), None, window_of)


def test_a_function_makes_them_on_the_worker(window_of, tmp_path):
    path = tmp_path / "notes"

    def make():
        made = Notes(path)
        made.lock = threading.Lock()
        return made

    with pytest.raises(ValueError, match=r"In `worker_callbacks`: .*cannot be sent.*a function"):
        dump_callbacks([make()])
    train_beside(a_model(), make, window_of)
    assert [line[0] for line in lines(path)][-2:] == ["epoch ends", "train ends"]
    with pytest.raises(TypeError, match="must be a function that returns Keras callbacks"):
        load_callbacks(dump_callbacks(lambda: [print]))
    assert load_callbacks(dump_callbacks(list)) == []


def test_a_model_that_a_callback_refers_to_is_not_sent():
    callback = keras.callbacks.Callback()
    callback.set_model(a_model())
    with pytest.raises(ValueError, match="live Sequential"):
        dump_callbacks([callback])


@pytest.mark.parametrize("hook", ["on_train_begin", "on_batch_end", "on_epoch_end", "on_train_end"])
def test_a_worker_does_not_stop_by_itself(hook, window_of):
    def stop(model):
        model.stop_training = True

    with pytest.raises(ValueError, match=r"leave `stop_training` alone.*Received: .*of worker 1"):
        train_beside(a_model(), [Sets(hook, stop)], window_of)


def test_changes_of_weights_are_refused_where_gradients_are_exchanged(window_of):
    def change(model):
        model.set_weights([w + 1 for w in model.get_weights()])

    callbacks = [Sets("on_epoch_begin", change)]
    train_beside(a_model(), callbacks, window_of)
    with pytest.raises(ValueError, match="leave weights alone.*set in on_epoch_begin of worker 1"):
        train_beside(a_model(), callbacks, window_of, may_set_weights=False)


def test_hooks_run_before_the_exchange_after_their_batch():
    none, by_epoch = ReplicaCallbacks(), ReplicaCallbacks(b"")
    assert [none.precede(last=last) for last in (False, True)] == [False, False]
    assert [by_epoch.precede(last=last) for last in (False, True)] == [False, True]
    by_epoch.batches = 1
    assert [by_epoch.precede(last=last) for last in (False, True)] == [True, True]
