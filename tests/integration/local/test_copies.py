"""What lies outside the model's variables is the same on the driver and on the workers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import SparkModel, load_spark_model
from kspark.ml import KerasRegressor

layers, ops = keras.layers, keras.ops

X = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
Y = X[:, :1]


class Weighted(keras.losses.Loss):
    """A loss whose weight a callback changes."""

    def __init__(self):
        super().__init__()
        self.weight = keras.Variable(1.0, trainable=False)

    def call(self, y_true, y_pred):
        return self.weight * ops.mean(ops.square(y_true - y_pred), axis=-1)


class SwitchOff(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.loss.weight.assign(0.0)


class Counting(keras.losses.Loss):
    """A loss that changes its own variable."""

    def __init__(self):
        super().__init__()
        self.calls = keras.Variable(0.0, trainable=False)

    def call(self, y_true, y_pred):
        self.calls.assign_add(1.0)
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


def dense(loss, *inner, optimizer="sgd"):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dense(1)])
    model.compile(optimizer, loss)
    return model


@pytest.mark.parametrize("frequency", ["epoch", "batch"])
def test_variables_of_the_loss_follow_the_callbacks(frequency, spark):
    model = dense(Weighted())
    spark_model = SparkModel(model, frequency=frequency, num_workers=1)
    history = spark_model.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[SwitchOff()])
    assert history.history["loss"][0] > 0
    assert history.history["loss"][1:] == [0.0, 0.0]


def test_variables_that_the_loss_changes_come_back(spark):
    ours, theirs = dense(Counting()), dense(Counting())
    SparkModel(ours, num_workers=1).fit(X, Y, epochs=2, batch_size=8, verbose=0, shuffle=False)
    theirs.fit(X, Y, epochs=2, batch_size=8, verbose=0, shuffle=False)
    assert float(ours.loss.calls) == float(theirs.loss.calls)


class OwnLoss(keras.Model):
    """A model that computes its loss in `train_step`. Its layers get their variables from rows."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)
        self.mean = keras.metrics.Mean(name="loss")

    def get_config(self):
        return {}

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        import tensorflow as tf

        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        y = x if y is None else y
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}

    @property
    def metrics(self):
        return [self.mean]


@pytest.mark.parametrize("labels", [(Y,), ()], ids=["labels", "none"])
@pytest.mark.filterwarnings("ignore:.build... was called")
def test_a_loss_that_only_a_train_step_has_trains_as_in_keras(labels, spark):
    def made():
        keras.utils.set_random_seed(2)
        model = OwnLoss()
        model.build((None, 3))
        model.compile("sgd")
        return model

    ours, theirs = made(), made()
    wrapped = SparkModel(ours, num_workers=1)
    fits = [m.fit(X, *labels, epochs=2, verbose=0, shuffle=False) for m in (wrapped, theirs)]
    assert fits[0].history["loss"] == pytest.approx(fits[1].history["loss"], abs=1e-6)
    np.testing.assert_allclose(ours.get_weights()[0], theirs.get_weights()[0], atol=1e-6)


class Largest(keras.metrics.Metric):
    """The largest prediction, a state that cannot be summed over workers."""

    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.value = self.add_weight(initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(ops.maximum(self.value, ops.max(ops.abs(y_pred))))

    def result(self):
        return ops.copy(self.value)  # Keras would show a variable's value after the validation.


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_one_worker_takes_metrics_that_cannot_be_summed(mode, spark):
    histories, evaluated = [], []
    for wrap in (lambda model: model, lambda model: SparkModel(model, mode, num_workers=1)):
        model = dense("mse")
        model.compile("sgd", "mse", metrics=[Largest()])
        wrapped = wrap(model)
        fitted = wrapped.fit(X, Y, epochs=2, verbose=0, shuffle=False, validation_split=0.25)
        histories.append(fitted.history)
        evaluated.append(wrapped.evaluate(X, Y, verbose=0))
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, abs=1e-5)
    assert evaluated[1] == pytest.approx(evaluated[0], abs=1e-5)


def test_a_stage_trains_lora_and_keeps_its_seeds(spark):
    frame = spark.createDataFrame(
        [(x.tolist(), float(y[0])) for x, y in zip(X, Y, strict=True)], ["features", "label"]
    ).coalesce(2)
    model = dense("mse", layers.Dense(4), layers.Dropout(0.3))
    model.layers[0].enable_lora(2)
    model.compile("adam", "mse")
    stage = KerasRegressor(model, epochs=2, batchSize=8, numWorkers=2, seed=1, verbose=0)
    first, second = (stage.fit(frame).kerasModel for _ in range(2))
    for ours, theirs in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    factor = first.layers[0].lora_kernel_b.numpy()
    assert np.abs(factor).max() > 0


def test_a_saved_model_goes_on_as_the_model_itself(tmp_path, spark):
    model = dense("mse", layers.Dense(4))
    model.layers[0].enable_lora(2)
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.2)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1].bias])
    model.compile(optimizer, "mse")
    ours = SparkModel(model, num_workers=1, seed=3)
    fit = {"batch_size": 8, "verbose": 0}
    ours.fit(X, Y, epochs=1, **fit)
    ours.save(str(tmp_path / "model.keras"))
    loaded = load_spark_model(str(tmp_path / "model.keras"))
    histories = [each.fit(X, Y, epochs=2, **fit).history["loss"] for each in (ours, loaded)]
    np.testing.assert_allclose(*histories, rtol=1e-6)
    for mine, theirs in zip(
        ours.master_network.variables, loaded.master_network.variables, strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), atol=1e-7)
