"""The driver's view of a fit: what callbacks see, what they may change, how results are listed."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.job.callbacks import FitMonitor, listed
from kspark.replica import Replica

layers = keras.layers


def compiled(optimizer="sgd", **compile_args):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="softmax")])
    model.compile(optimizer, "categorical_crossentropy", **compile_args)
    return model


def monitor_of(model, *callbacks):
    return FitMonitor(Replica.of(model), list(callbacks), 0, 2, 0)


class SetWeights(keras.callbacks.Callback):
    """Sets all weights to a number in one hook."""

    def __init__(self, hook, value=3.0):
        super().__init__()
        setattr(self, hook, lambda *_, **__: self.set(value))

    def set(self, value):
        self.model.set_weights([np.full_like(w, value) for w in self.model.get_weights()])


def test_history_holds_what_callbacks_add_to_the_logs():
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5)
    monitor = monitor_of(compiled(), schedule)
    monitor.begin(3)
    monitor.begin_epoch(0)
    monitor.end_epoch(0, monitor.replica.get_vector(), {"loss": 1.0}, 4)
    assert monitor.history.history == {"loss": [1.0], "learning_rate": [0.5]}


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("on_train_begin", lambda m: m.begin(3)),
        ("on_epoch_begin", lambda m: m.begin_epoch(0)),
        ("on_train_batch_begin", lambda m: m.begin_epoch(0)),
        ("on_batch_end", lambda m: m.end_batches(m.replica.get_vector(), {"loss": 1.0})),
        ("on_epoch_end", lambda m: m.end_epoch(0, m.replica.get_vector(), {"loss": 1.0}, 4)),
    ],
)
def test_weights_that_a_callback_set_are_returned_once(hook, call):
    monitor = monitor_of(compiled(), SetWeights(hook))
    if hook != "on_train_begin":
        monitor.begin(3)
    np.testing.assert_array_equal(call(monitor), np.full(8, 3.0, "float32"))
    assert call(monitor) is None


def test_the_averages_of_the_optimizer_become_the_weights_at_the_end():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model = compiled(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9))
    for _ in range(3):
        model.train_on_batch(x, np.eye(2, dtype="float32")[[0, 1] * 4])
    monitor = monitor_of(model)
    monitor.begin(3)
    before = monitor.replica.get_vector()
    monitor.end()
    after = monitor.replica.get_vector()
    assert not np.array_equal(before, after)
    averages = [v.numpy() for v in model.optimizer.variables if "average" in v.path]
    np.testing.assert_array_equal(after, np.concatenate([a.ravel() for a in averages]))


def test_a_metric_of_several_numbers_keeps_them_and_is_shown_by_its_mean(capsys):
    replica = Replica.of(compiled(metrics=[keras.metrics.F1Score(average=None)]))
    x, y = np.eye(3, dtype="float32"), np.eye(2, dtype="float32")[[0, 1, 1]]
    expected = replica.model.evaluate(x, y, verbose=0, return_dict=True)["f1_score"]
    replica.model.test_on_batch(x, y)
    found = replica.metric_results()["f1_score"]
    np.testing.assert_allclose(found, expected)
    assert found.shape == (2,)
    monitor = FitMonitor(replica, [], 2, 1, 0)
    monitor.begin(3)
    monitor.end_epoch(0, replica.get_vector(), {"f1": np.array([0.25, 0.75])}, 4)
    assert "f1: 0.5000" in capsys.readouterr().out


def test_results_are_listed_in_the_order_of_keras():
    a = keras.Input((3,))
    outputs = [layers.Dense(2, name="z")(a), layers.Dense(1, name="b")(a)]
    model = keras.Model(a, outputs)
    model.compile("sgd", ["mse", "mae"], metrics=[["mae"], ["mse", "mape"]])
    x, y = np.ones((4, 3)), [np.ones((4, 2)), np.ones((4, 1))]
    expected = model.evaluate(x, y, verbose=0)
    results = model.evaluate(x, y, verbose=0, return_dict=True)
    assert listed(model, dict(reversed(results.items()))) == pytest.approx(expected)
    assert listed(compiled(), {"loss": 2.0}) == 2.0


def test_a_backup_is_restored_with_its_epoch_and_optimizer_state(tmp_path):
    x, y = np.ones((4, 3), "float32"), np.eye(2, dtype="float32")[[0, 1] * 2]
    model = compiled("adam")
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    model.fit(x, y, epochs=2, callbacks=[backup], verbose=0)
    again = compiled("adam")
    monitor = FitMonitor(Replica.of(again), [backup], 0, 5, 1)
    assert monitor.needs_optimizer_state
    np.testing.assert_array_equal(monitor.begin(3), monitor.replica.get_vector())
    assert (monitor.initial_epoch, monitor.progress.first, monitor.restored) == (2, 2, True)
    for left, right in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())
    for left, right in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())
    later = FitMonitor(Replica.of(again), [keras.callbacks.TerminateOnNaN()], 0, 5, 1)
    later.begin(3)
    assert (later.initial_epoch, later.restored) == (1, False)
    assert not later.needs_optimizer_state


@pytest.mark.parametrize(
    ("logs", "stops"),
    [
        ({"loss": np.nan}, True),
        ({"loss": np.inf}, True),
        ({"g_loss": 1.0, "d_loss": np.nan}, True),
        ({"loss": 0.5, "mae": np.nan, "val_loss": np.nan}, False),
        ({}, False),
    ],
)
def test_terminate_on_nan_stops_training_after_the_epoch(logs, stops):
    for callbacks in ([keras.callbacks.TerminateOnNaN()], []):
        monitor = FitMonitor(Replica.of(compiled("sgd")), callbacks, 0, 3, 0)
        monitor.begin(3)
        monitor.begin_epoch(0)
        monitor.end_batches(monitor.replica.get_vector(), dict(logs))
        monitor.end_epoch(0, monitor.replica.get_vector(), dict(logs), 8)
        assert monitor.stopped == (stops and bool(callbacks))


def test_an_epoch_that_an_earlier_fit_chose_is_forgotten(tmp_path):
    x, y = np.ones((4, 3), "float32"), np.eye(2, dtype="float32")[[0, 1] * 2]
    model = compiled("sgd")
    for _ in range(2):
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        model.fit(x, y, epochs=2, callbacks=[backup], verbose=0)
    monitor = monitor_of(model)
    monitor.begin(3)
    assert monitor.initial_epoch == 0


class Notes(keras.callbacks.Callback):
    """Records what it sees before and after validation, and sets other weights to validate."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_test_begin(self, logs=None):
        self.told.append(self.model.get_weights()[0].tolist())
        self.model.set_weights([np.full_like(w, 3.0) for w in self.model.get_weights()])

    def on_test_end(self, logs=None):
        self.told.append(logs)


def test_callbacks_may_change_the_weights_that_are_validated():
    notes = Notes()
    monitor = monitor_of(compiled(), notes)
    monitor.begin(3)
    merged = np.zeros(8, "float32")
    validated = monitor.begin_validation(merged)
    np.testing.assert_array_equal(validated, np.full(8, 3.0, "float32"))
    monitor.replica.prepare_metrics()
    state = [np.array(v, "float32") for v in (6.0, 4.0)]
    assert monitor.end_validation([state]) == {"val_loss": 1.5}
    assert notes.told == [np.zeros((3, 2)).tolist(), {"loss": 1.5}]
    assert monitor.end_epoch(0, merged, {}, 4) is None


def test_the_end_of_training_has_the_logs_of_the_last_epoch():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(dict(logs)),
        on_train_end=lambda logs: seen.append(dict(logs)),
    )
    monitor = FitMonitor(Replica.of(model), [callback], 0, 2, 0)
    monitor.begin(3)
    for epoch, loss in enumerate((2.0, 1.0)):
        monitor.begin_epoch(epoch)
        monitor.end_epoch(epoch, monitor.replica.get_vector(), {"loss": loss}, 4)
    monitor.end()
    assert monitor.history.history == {"loss": [2.0, 1.0]}
    assert seen == [{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.0}]


def test_callbacks_get_their_params_once_before_training_begins():
    told = []
    callback = keras.callbacks.Callback()
    callback.set_params = told.append
    monitor = FitMonitor(Replica.of(compiled()), [callback], "auto", 4, 1)
    assert told == []
    monitor.begin(7)
    assert told == [{"verbose": "auto", "epochs": 4, "steps": 7}]
    assert monitor.history.params == told[0]


def test_a_history_and_a_progress_bar_of_the_user_take_the_place_of_the_usual_ones(capsys):
    own, bar = keras.callbacks.History(), keras.callbacks.ProgbarLogger()
    monitor = FitMonitor(Replica.of(compiled()), [own, bar], 2, 1, 0)
    assert monitor.history is own
    monitor.begin(3)
    monitor.begin_epoch(0)
    vector, logs = monitor.replica.get_vector(), {"loss": 1.0}
    monitor.end_batches(vector, logs)
    monitor.end_epoch(0, vector, logs, 4)
    monitor.end()
    assert own.history == {"loss": [1.0]}
    printed = capsys.readouterr().out
    assert printed.count("loss: 1.0000") == 1
    assert "3/3" in printed


# -- while the workers train -----------------------------------------------------------------------


class Batches(keras.callbacks.Callback):
    """Notes the hooks of batches, and does something after one of them."""

    def __init__(self, act=lambda model: None, at=None):
        super().__init__()
        self.seen, self.act, self.at = [], act, at

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["loss"], float(self.model.get_weights()[0].sum())))
        if batch == self.at:
            self.act(self.model)


def test_hooks_between_batches_see_the_figures_and_weights_of_their_moment():
    callback = Batches()
    monitor = monitor_of(compiled(), callback)
    monitor.begin(9)
    monitor.begin_epoch(0)
    start = float(monitor.replica.model.get_weights()[0].sum())
    monitor.pass_batches(4, None, {"loss": 3.0})
    monitor.pass_batches(8, np.ones(8, "f4"), {"loss": 2.0})
    assert monitor.end_batches(np.zeros(8, "f4"), {"loss": 1.0}) is None
    assert callback.seen == [0, (3, 3.0, start), 4, (7, 2.0, 6.0), 8, (8, 1.0, 0.0)]


def stop(model):
    model.stop_training = True


def test_no_hooks_of_batches_run_after_one_that_stops_training():
    """As in Keras, until a callback lets the training go on."""
    callback = Batches(stop, 3)
    monitor = monitor_of(compiled(), callback)
    monitor.begin(9)
    for epoch in range(2):
        monitor.begin_epoch(epoch)
        for done in (4, 8):
            monitor.pass_batches(done, None, {"loss": 3.0})
        assert monitor.end_batches(np.zeros(8, "f4"), {"loss": 1.0}) is None
        assert [seen if isinstance(seen, int) else seen[0] for seen in callback.seen] == [0, 3]
        assert monitor.stopped
        callback.seen.clear()


def test_a_loss_that_is_nan_stops_training_at_a_batch():
    monitor = monitor_of(compiled(), keras.callbacks.TerminateOnNaN())
    monitor.begin(9)
    monitor.begin_epoch(0)
    monitor.pass_batches(4, None, {"loss": 1.0})
    assert not monitor.stopped
    monitor.pass_batches(8, None, {"loss": np.nan})
    assert monitor.stopped


@pytest.mark.parametrize(
    "act",
    [
        lambda model: model.set_weights([w + 1 for w in model.get_weights()]),
        lambda model: model.optimizer.iterations.assign(7),
    ],
)
def test_what_workers_cannot_take_over_within_an_epoch_is_refused(act):
    monitor = monitor_of(compiled(), Batches(act, 3))
    monitor.begin(9)
    monitor.begin_epoch(0)
    with pytest.raises(ValueError, match="`callbacks` must be free of hooks.*after 4 batches"):
        monitor.pass_batches(4, None, {"loss": 1.0})


@pytest.mark.parametrize("vector", [None, np.ones(8, "f4")])
def test_a_failed_epoch_leaves_the_weights_of_the_epoch_before(vector):
    def fill(model):
        model.set_weights([np.full_like(w, 5.0) for w in model.get_weights()])

    monitor = monitor_of(compiled(), Batches(fill, 7))
    monitor.begin(9)
    monitor.begin_epoch(0)
    monitor.pass_batches(4, vector, {"loss": 1.0})
    monitor.end_batches(np.full(8, 2, "f4"), {"loss": 1.0})
    monitor.leave_epoch()  # Nothing has failed before the next epoch.
    monitor.end_epoch(0, np.full(8, 3, "f4"), {"loss": 1.0}, 4)
    monitor.begin_epoch(1)
    monitor.pass_batches(2, vector, {"loss": 1.0})
    with pytest.raises(ValueError, match="after 8 batches"):
        monitor.pass_batches(8, vector, {"loss": 1.0})
    monitor.leave_epoch()
    assert monitor.replica.get_vector().tolist() == [3.0] * 8


def test_a_learning_rate_that_is_set_at_a_batch_is_that_of_the_next_epoch():
    def slow(model):
        model.optimizer.learning_rate = 0.25

    monitor = monitor_of(compiled(), Batches(slow, 3))
    monitor.begin(9)
    monitor.begin_epoch(0)
    monitor.pass_batches(4, None, {"loss": 1.0})
    assert monitor.learning_rate == 0.25


def test_a_backup_within_an_epoch_goes_on_with_that_epoch(tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path, save_freq=6, delete_checkpoint=False)

    monitor = monitor_of(compiled(), backup())
    monitor.begin(9)
    for epoch in range(2):
        monitor.begin_epoch(epoch)
        monitor.pass_batches(4, np.full(8, 1.0, "f4"), {"loss": 3.0})
        monitor.pass_batches(8, np.full(8, 2.0 + epoch, "f4"), {"loss": 2.0})
        if epoch == 0:
            monitor.end_batches(np.zeros(8, "f4"), {"loss": 1.0})
            monitor.end_epoch(epoch, np.zeros(8, "f4"), {"loss": 1.0}, 4)
    later = monitor_of(compiled(), backup())
    np.testing.assert_array_equal(later.begin(9), np.full(8, 3.0, "f4"))
    assert later.initial_epoch == 1
