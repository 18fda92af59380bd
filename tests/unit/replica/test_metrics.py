"""Metric states of two halves add up to `keras.Model.evaluate` over both."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from kspark.replica import Replica
from kspark.shards import ArraySpec, LabelStats, ShardHandle, StoredArray

layers, ops = keras.layers, keras.ops


@keras.saving.register_keras_serializable("kspark tests")
class Largest(keras.metrics.Metric):
    """A metric whose state is a maximum."""

    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.value = self.add_weight(initializer="zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(ops.maximum(self.value, ops.max(y_pred)))

    def result(self):
        return self.value


@keras.saving.register_keras_serializable("kspark tests")
class FromOne(keras.metrics.Mean):
    """A metric whose state adds up but does not begin at zero."""

    def __init__(self, name="from_one", **kwargs):
        super().__init__(name=name, **kwargs)
        self.reset_state()

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_pred)

    def reset_state(self):
        self.total.assign(1.0)
        self.count.assign(1.0)


@keras.saving.register_keras_serializable("kspark tests")
class Positives(keras.metrics.Metric):
    """A custom metric that counts, in an integer."""

    def __init__(self, name="positives", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seen = self.add_weight(initializer="zeros", name="seen", dtype="int32")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign_add(ops.sum(ops.cast(y_true > 0, "int32")))

    def result(self):
        return self.seen


def binary(*metrics, **compile_args):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(1, activation="sigmoid", kernel_regularizer="l2")]
    )
    model.compile("sgd", "binary_crossentropy", metrics=list(metrics), **compile_args)
    return model


def binary_rows(count=22):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, 4)).astype("float32")
    return x, rng.integers(0, 2, (count, 1)), rng.random(count).astype("float32")


def test_states_of_two_halves_add_up_to_the_whole(window_of):
    names = ("auc", "precision", "recall", "cosine_similarity", "accuracy")
    metrics = [*names, keras.metrics.BinaryIoU(), keras.metrics.R2Score(), Positives()]
    model = binary(*metrics, weighted_metrics=["mse", keras.metrics.AUC(name="weighted_auc")])
    x, y, weights = binary_rows()
    options = {"sample_weight": weights, "batch_size": 4, "verbose": 0, "return_dict": True}
    expected = model.evaluate(x, y, **options)
    replica = Replica.of(model)
    states = []
    for part in (slice(0, 8), slice(8, None)):
        replica.reset_metrics()
        replica.evaluate(window_of(x[part], y[part], weights[part]), 4)
        states.append(replica.metric_state())
    replica.set_metric_state([a + b for a, b in zip(*states, strict=True)])
    results = replica.metric_results()
    assert all(isinstance(value, float) for value in results.values())
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)
    assert results["positives"] == y.sum()


def test_evaluation_changes_no_weight_and_uses_no_dropout(mlp, rows, window_of):
    model, (x, y) = mlp("sgd", layers.BatchNormalization(), layers.Dropout(0.5)), rows()
    replica = Replica.of(model)
    before, fixed = replica.get_vector(), replica.get_fixed()
    replica.evaluate(window_of(x, y, order=np.arange(len(x))[::-1]), 4)
    np.testing.assert_array_equal(replica.get_vector(), before)
    np.testing.assert_array_equal(replica.get_fixed(), fixed)
    expected = model.evaluate(x, y, batch_size=4, verbose=0)
    np.testing.assert_allclose(replica.metric_results()["loss"], expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 22])
def test_metrics_that_are_sums_are_accepted(count, window_of):
    replica = Replica.of(binary("auc", "precision", Positives(), run_eagerly=True))
    x, y, weights = binary_rows(22)
    replica.evaluate(window_of(x, y, weights), 4)
    before = replica.metric_state()
    replica.check_summable(window_of(x[:count], y[:count], weights[:count]), 4)
    for now, then in zip(replica.metric_state(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_summability_is_checked_once(window_of, monkeypatch):
    replica = Replica.of(binary(run_eagerly=True))
    window = window_of(*binary_rows(4))
    replica.check_summable(window, 4)
    monkeypatch.setattr(replica, "evaluate", None)
    replica.check_summable(window, 4)


def test_a_replica_without_others_takes_any_metric(window_of):
    replica = Replica.of(binary(Largest(), run_eagerly=True))
    replica.alone = True
    window = window_of(*binary_rows(10))
    replica.train(window, 4)
    replica.check_summable(window, 4)
    assert replica.metric_results()["largest"] > 0
    replica.alone = False
    with pytest.raises(ValueError, match="'largest'"):
        replica.train(window, 4)


@pytest.mark.parametrize(("metric", "name"), [(Largest(), "largest"), (FromOne(), "from_one")])
def test_a_metric_that_is_not_a_sum_is_named_in_the_error(metric, name, window_of):
    replica = Replica.of(binary("auc", metric, run_eagerly=True))
    with pytest.raises(ValueError, match=f"metric '{name}' cannot be evaluated"):
        replica.check_summable(window_of(*binary_rows(10)), 4)


def test_a_nested_metric_is_named_in_the_error(window_of):
    model = binary(run_eagerly=True)
    model.compile("sgd", "mse", weighted_metrics=["mae", Largest("deep")], run_eagerly=True)
    with pytest.raises(ValueError, match="'deep'"):
        Replica.of(model).check_summable(window_of(*binary_rows(10)), 4)


def test_driver_prepares_metrics_without_data(window_of):
    x, y, weights = binary_rows()
    worker = Replica.of(binary("auc", "accuracy"))
    worker.evaluate(window_of(x, y, weights), 4)
    driver = Replica.of(binary("auc", "accuracy"))
    assert len(driver.metric_state()) < len(worker.metric_state())
    driver.prepare_metrics()
    driver.prepare_metrics()
    driver.set_metric_state(worker.metric_state())
    assert driver.metric_results() == worker.metric_results()


def handle(*stored):
    y = tuple(StoredArray(f"y{i}", *s, "f", 0) for i, s in enumerate(stored))
    return ShardHandle(0, 1, "", "", 0, y=y, stats=(LabelStats(),) * len(y))


def test_prepared_metrics_fit_several_outputs_and_labels_of_any_shape():
    a = keras.Input((3,))
    outputs = [layers.Dense(4, name="classes")(a), layers.Dense(2, name="numbers")(a)]
    model = keras.Model(a, outputs)
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
    model.compile("sgd", losses, metrics=[["accuracy"], ["mae"]])
    replica = Replica.of(model)
    replica.prepare_metrics()
    names = ["loss", "classes_loss", "numbers_loss", "classes_accuracy", "numbers_mae"]
    assert sorted(replica.metric_results()) == sorted(names)
    assert all(not a.any() for a in replica.metric_state())


def needs_three(y_true, y_pred):
    if y_true.shape[1:] != (3,):
        raise ValueError("three numbers are needed")
    return ops.mean(y_true - ops.mean(y_pred), axis=-1)


def test_prepared_metrics_get_the_shapes_of_labels_from_shards():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", needs_three)
    with pytest.raises(ValueError, match="three numbers are needed"):
        Replica.of(model).prepare_metrics()
    Replica.of(model).prepare_metrics([ShardHandle(0, 0, "", "", 0), handle(("float32", (3,)))])


class AddsLoss(keras.Model):
    """A subclassed model that adds to its loss."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        self.add_loss(ops.mean(x))
        return self.dense(x)


def with_added_loss():
    model = AddsLoss()
    model(np.zeros((1, 4), "float32"))
    return model


def with_regularizer():
    dense = layers.Dense(1, activity_regularizer="l2")
    return keras.Sequential([keras.Input((4,)), dense])


@pytest.mark.parametrize("make", [with_added_loss, with_regularizer])
def test_prepared_metrics_ignore_losses_of_an_earlier_call(make):
    x, y, _ = binary_rows()
    model = make()
    model.compile("sgd", "mse", metrics=["mae"])
    model.evaluate(x, y, verbose=0)
    Replica.of(model).prepare_metrics()


@pytest.mark.parametrize("frequency", ["train", "train_exchanging", "train_merging"])
def test_a_metric_that_is_not_a_sum_is_refused_in_training(frequency, window_of):
    replica = Replica.of(binary("auc", Largest(), run_eagerly=True))
    more = {"train": (), "train_exchanging": (0, [1], None), "train_merging": (0, 1, None)}
    with pytest.raises(ValueError, match="metric 'largest' cannot be evaluated"):
        getattr(replica, frequency)(window_of(*binary_rows(4)), 4, *more[frequency])


def test_metrics_of_keras_are_not_checked_before_training(window_of, monkeypatch):
    replica = Replica.of(binary("auc", "accuracy", run_eagerly=True))
    monkeypatch.setattr(replica, "check_summable", None)
    replica.train(window_of(*binary_rows(4)), 4)


def test_a_list_of_one_output_is_predicted_as_an_array():
    a = keras.Input((3,))
    model = keras.Model(a, [layers.Dense(2)(a)])
    model.compile("sgd", "mse")
    predicted = np.zeros((4, 2))
    assert Replica.of(model).structured_outputs([predicted]) is predicted
    assert isinstance(model.predict(np.zeros((4, 3)), verbose=0), np.ndarray)


def test_state_of_another_model_is_refused(window_of):
    replica = Replica.of(binary("auc"))
    with pytest.raises(ValueError, match="metric_state"):
        replica.set_metric_state([np.zeros(3)])


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (np.nan, False), (np.inf, False)])
def test_a_loss_that_is_not_finite_is_detected(value, finite, window_of):
    x, _, _ = binary_rows(4)
    model = binary(run_eagerly=True)
    model.compile("sgd", "mse", run_eagerly=True)
    replica = Replica.of(model)
    replica.train(window_of(x, np.full((4, 1), value, "float32")), 4)
    assert replica.loss_is_finite() is finite


def test_predictions_equal_those_of_the_model(mlp, rows, window_of):
    model, (x, _) = mlp("sgd", layers.Dropout(0.5)), rows()
    replica = Replica.of(model)
    expected = model.predict(x, verbose=0)
    (predicted,) = replica.predict(window_of(x), 4)
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    (predicted,) = replica.predict(window_of(x, order=np.array([5, 2])), 4)
    np.testing.assert_allclose(predicted, expected[[5, 2]], atol=1e-6)
    (nothing,) = replica.predict(window_of(x[:0]), 4)
    assert nothing.shape == (0, 3)
    assert replica.structured_outputs([predicted]) is predicted


class CountsTraces(keras.Model):
    """Doubles its input, and counts how often its step is traced."""

    def __init__(self):
        super().__init__()
        self.double = keras.layers.Rescaling(2.0)
        self.traces = 0

    def call(self, x):
        return self.double(x)

    def predict_step(self, data):
        self.traces += 1
        return super().predict_step(data)


def test_batches_of_any_length_are_predicted_by_one_trace(window_of):
    model = CountsTraces()
    model.compile("sgd", "mse")
    x = np.arange(22, dtype="float32").reshape(11, 2)
    model(x)
    replica = Replica.of(model, x)
    before = model.traces
    for rows in (11, 4, 7, 1):
        (predicted,) = replica.predict(window_of(x[:rows]), 4)
        np.testing.assert_array_equal(predicted, 2 * x[:rows])
    assert model.traces == before + 1


class TwoHeads(keras.Model):
    """Two outputs, and a mean of the model's own beside those that Keras keeps."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = layers.Dense(1), layers.Dense(3)
        self.largest = keras.metrics.Mean(name="largest_loss")

    def call(self, x):
        return {"one": self.one(x), "two": self.two(x)}

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        self.largest.update_state(ops.max(y_pred["two"]))
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def get_config(self):
        return {}


class OwnStep(TwoHeads):
    """The same with its own training step."""

    def train_step(self, data):
        return super().train_step(data)


def two_headed(make, **compile_args):
    keras.utils.set_random_seed(2)
    model = make()
    model(np.zeros((1, 4), "float32"))
    model.compile(
        keras.optimizers.SGD(0.0),
        {"one": "mse", "two": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        loss_weights={"one": 0.5, "two": 3.0},
        **compile_args,
    )
    return model


def two_headed_rows(count=22):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, 4)).astype("float32")
    return x, {"one": rng.normal(size=(count, 1)), "two": rng.integers(0, 3, count)}


STEPS = {
    "evaluate": lambda replica, window: replica.evaluate(window, 4),
    "train": lambda replica, window: replica.train(window, 4),
    "exchange": lambda replica, window: replica.train_exchanging(
        window, 4, 0, [-(-window.num_examples // 4)], lambda *_: None
    ),
    "merge": lambda replica, window: replica.train_merging(
        window, 4, 0, -(-window.num_examples // 4), lambda gradient, _: gradient
    ),
}


@pytest.mark.parametrize(("make", "step"), [*((TwoHeads, s) for s in STEPS), (OwnStep, "train")])
def test_losses_of_outputs_add_up_to_the_loss_for_any_shards(make, step, window_of):
    x, y = two_headed_rows()
    expected = two_headed(make).evaluate(x, y, batch_size=22, verbose=0, return_dict=True)
    replica = Replica.of(two_headed(make))
    for cuts in ([], [9, 10], [1, 4, 7, 11, 12, 17]):
        states = []
        for rows in np.split(np.arange(22), cuts):
            replica.reset_metrics()
            STEPS[step](replica, window_of(x[rows], {name: a[rows] for name, a in y.items()}))
            states.append(replica.metric_state())
        replica.set_metric_state([sum(parts) for parts in zip(*states, strict=True)])
        results = replica.metric_results()
        for name in ("loss", "one_loss", "two_loss"):
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-5, err_msg=name)
        total = 0.5 * results["one_loss"] + 3.0 * results["two_loss"]
        np.testing.assert_allclose(total, results["loss"], rtol=1e-5)


def test_a_custom_mean_counts_batches_as_in_keras(window_of):
    x, y = two_headed_rows()
    history = two_headed(TwoHeads).fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    replica = Replica.of(two_headed(TwoHeads))
    replica.train(window_of(x, y), 4)
    results = replica.metric_results()
    np.testing.assert_allclose(results["largest_loss"], history["largest_loss"][0], rtol=1e-5)
    assert abs(results["one_loss"] - history["one_loss"][0]) > 1e-3  # Keras counts batches there


def test_the_driver_prepares_an_overridden_loss_with_all_arguments_of_keras():
    replica = Replica.of(two_headed(TwoHeads))
    replica.prepare_metrics()
    assert {"one_loss", "two_loss"} <= set(replica.metric_results())


class OwnStep(keras.Model):
    """A model that computes its loss in `train_step`, and is compiled without one."""

    def __init__(self, tracker=None, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(1)
        self.tracker = tracker

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        return {"loss": keras.ops.mean(self(data[0]))}


def test_the_driver_prepares_a_model_that_computes_its_loss_in_its_step():
    model = OwnStep()
    model.compile("sgd", metrics=["mae"])
    replica = Replica.of(model, np.zeros((1, 3), "float32"), with_labels=True)
    replica.prepare_metrics()
    assert "mae" in replica.metric_results()
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    plain.compile("sgd")
    replica = Replica.of(plain)
    replica.inputs = replace(replica.inputs, targets=(ArraySpec("dense"),))
    with pytest.raises(ValueError, match="No loss to compute"):
        replica.prepare_metrics()


def test_a_loss_that_nothing_updates_is_left_out():
    found = []
    for tracker in (None, keras.metrics.Mean(name="loss")):
        model = OwnStep(tracker)
        model.compile("sgd")
        replica = Replica.of(model, np.zeros((1, 3), "float32"), with_labels=True)
        if tracker is not None:
            tracker.update_state(2.0)
        found.append(replica.metric_results())
    assert found == [{}, {"loss": 2.0}]


class NestedLogs(keras.Model):
    """A model whose `train_step` returns the results of its metrics, one of which is a mapping."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        logs = super().train_step(data)
        return {"inner": {"deep": logs["loss"]}, "loss": logs["loss"]}


def test_nested_results_of_a_train_step_move_up_as_in_keras(window_of):
    x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    model = NestedLogs()
    model(x)
    model.compile("sgd", "mse")
    replica = Replica.of(model)
    replica.train(window_of(x, y), 4)
    results = replica.metric_results()
    assert set(results) == {"deep", "loss"}
    assert results["deep"] == results["loss"]


def test_checking_the_loss_leaves_the_losses_of_single_outputs_alone(window_of):
    inputs = keras.Input((4,))
    outputs = {name: layers.Dense(1, name=name)(inputs) for name in "ab"}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"})
    replica = Replica.of(model)
    x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    window = window_of(x, [y, y])
    replica.evaluate(window, 4)
    before = replica.metric_state()
    replica.check_gradient_merging(window, 4)
    for left, right in zip(replica.metric_state(), before, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_failed_compilation_fails_in_the_same_way_again(window_of):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    replica = Replica.of(model)
    x = np.ones((8, 4), "float32")
    kinds = []
    for _ in range(2):
        with pytest.raises(Exception, match=".") as caught:
            replica.train(window_of(x, np.ones((8, 3, 5), "float32")), 4)
        kinds.append(type(caught.value))
    assert kinds[0] is kinds[1]
