"""Every mode on `local[2]`: each row counts once, results equal Keras', seeded runs repeat."""

import keras
import numpy as np
import pytest

from kspark import SparkModel

EXCHANGES = {"merges", "bytes_sent", "bytes_received", "computing_seconds", "waiting_seconds"}
EVERY = [
    *[
        ("synchronous", "epoch"),
        ("synchronous", "batch"),
        ("asynchronous", 3),
        ("hogwild", "batch"),
    ],
    pytest.param("synchronous", 3, marks=pytest.mark.thorough),
    pytest.param("asynchronous", "epoch", marks=pytest.mark.thorough),
    pytest.param("asynchronous", "batch", marks=pytest.mark.thorough),
    pytest.param("hogwild", "epoch", marks=pytest.mark.thorough),
    pytest.param("hogwild", 3, marks=pytest.mark.thorough),
]


@keras.saving.register_keras_serializable("tests")
class IdSums(keras.metrics.Metric):
    """Counts rows, and sums their ids and the squares of these, which no other set of rows has."""

    def __init__(self, name="ids", **kwargs):
        super().__init__(name=name, **kwargs)
        self.sums = self.add_variable((3,), "zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        ids = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), self.dtype)
        self.sums.assign_add(
            keras.ops.stack(
                [keras.ops.sum(ids * 0 + 1), keras.ops.sum(ids), keras.ops.sum(ids * ids)]
            )
        )

    def result(self):
        return {"rows": self.sums[0], "ids": self.sums[1], "squares": self.sums[2]}


def id_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[IdSums()])
    return model


def classifier(optimizer="adam", seed=3):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def labelled(rows, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 6)).astype("float32")
    y = (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")
    return x, y


def same(left, right, atol):
    for a, b in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize(("mode", "frequency"), EVERY)
def test_every_row_counts_once_per_epoch(spark, mode, frequency):
    sizes = [1, 0, 37, 9]  # smaller than a batch, empty, skewed, a short last batch
    rows = [
        [(float(i), float(i)) for i in range(sum(sizes[:p]), sum(sizes[: p + 1]))] for p in range(4)
    ]
    rdd = spark.sparkContext.parallelize(rows, 4).flatMap(lambda part: part)
    rdd = rdd.map(lambda r: (np.array([r[0]], "float32"), np.array([r[1]], "float32")))
    history = SparkModel(id_model(), mode, frequency, batch_size=4).fit(rdd, epochs=3, verbose=0)
    ids = np.arange(sum(sizes), dtype=float)
    assert history.history["rows"] == [len(ids)] * 3
    assert history.history["ids"] == [ids.sum()] * 3
    assert history.history["squares"] == [(ids**2).sum()] * 3


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1, 0.9), "adam"]
)
def test_a_single_shard_equals_plain_fit(spark, optimizer):
    x, y = labelled(83)
    config = keras.optimizers.serialize(keras.optimizers.get(optimizer))
    plain = classifier(keras.optimizers.deserialize(config))
    ours = classifier(keras.optimizers.deserialize(config))
    expected = plain.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    history = SparkModel(ours, num_workers=1).fit(
        x, y, batch_size=8, epochs=3, shuffle=False, verbose=0
    )
    same(ours, plain, 1e-6)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, atol=1e-5)


def test_a_second_fit_continues_with_weights_and_optimizer_state(spark):
    x, y = labelled(64)
    plain, ours = classifier(), classifier()
    plain.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    spark_model = SparkModel(ours, num_workers=1, batch_size=8)
    for _ in range(2):
        spark_model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    same(ours, plain, 1e-6)
    assert len(spark_model.training_histories) == 2


def test_identical_shards_give_the_weights_of_one_shard(spark):
    x, y = labelled(40)
    one, two = classifier(), classifier()
    SparkModel(one, num_workers=1, batch_size=8).fit(x, y, epochs=2, shuffle=False, verbose=0)
    twice = np.concatenate([x, x]), np.concatenate([y, y])
    SparkModel(two, num_workers=2, batch_size=8).fit(*twice, epochs=2, shuffle=False, verbose=0)
    same(one, two, 1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.1),
        keras.optimizers.SGD(0.1, 0.9),
        keras.optimizers.Adam(0.01),
        keras.optimizers.AdamW(0.01, weight_decay=0.1),
    ],
)
def test_merged_gradients_equal_those_of_the_joint_batch(spark, optimizer):
    x, y = labelled(64)
    config = keras.optimizers.serialize(optimizer)
    plain = classifier(keras.optimizers.deserialize(config))
    ours = classifier(keras.optimizers.deserialize(config))
    SparkModel(ours, frequency="batch", num_workers=2, batch_size=4).fit(
        x, y, epochs=2, shuffle=False, verbose=0
    )
    # Batch i of the large one holds batch i of each shard.
    halves = [np.arange(0, 32).reshape(8, 4), np.arange(32, 64).reshape(8, 4)]
    order = np.concatenate(halves, axis=1).reshape(-1)
    plain.fit(x[order], y[order], batch_size=8, epochs=2, shuffle=False, verbose=0)
    same(ours, plain, 1e-5)


def test_half_precision_rounds_gradients_before_they_are_merged(spark):
    def made():
        keras.utils.set_random_seed(3)
        half = keras.layers.Dense(8, "relu", dtype="mixed_float16")
        model = keras.Sequential([keras.Input((6,)), half, keras.layers.Dense(3, "softmax")])
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        return model

    x, y = labelled(64)
    ours, plain = made(), made()
    SparkModel(ours, frequency="batch", num_workers=2, batch_size=4).fit(
        x, y, epochs=2, shuffle=False, verbose=0
    )
    order = np.arange(64).reshape(2, 8, 4).swapaxes(0, 1).reshape(-1)
    plain.fit(x[order], y[order], batch_size=8, epochs=2, shuffle=False, verbose=0)
    same(ours, plain, 1e-3)


class Halved(keras.callbacks.Callback):
    """Halves the weights before the second and the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            self.model.set_weights([w / 2 for w in self.model.get_weights()])


@pytest.mark.parametrize(
    "frequency", ["epoch", "batch", pytest.param(2, marks=pytest.mark.thorough)]
)
def test_an_epoch_starts_with_the_rate_and_weights_set_by_callbacks(spark, frequency):
    x, y = labelled(50)
    plain, merged = classifier(keras.optimizers.SGD(0.5)), classifier(keras.optimizers.SGD(0.5))

    def callbacks():
        rates = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 / 4**epoch)
        return [rates, Halved()]

    plain.fit(x, y, 16, 3, 0, callbacks(), shuffle=False)
    SparkModel(merged, frequency=frequency, num_workers=1).fit(
        x, y, 16, 3, 0, callbacks(), 0.5, validation_data=(x, y), validation_freq=2, shuffle=False
    )
    same(plain, merged, 1e-6)


@pytest.mark.parametrize(
    "frequency", ["epoch", "batch", pytest.param(2, marks=pytest.mark.thorough)]
)
def test_the_same_seed_gives_the_same_bytes(spark, frequency):
    x, y = labelled(70)
    models = [classifier(), classifier()]
    for model in models:
        SparkModel(model, frequency=frequency, num_workers=2, seed=5, batch_size=8).fit(
            x, y, epochs=2, verbose=0
        )
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("frequency", ["epoch", "batch", 2])
def test_the_losses_of_several_outputs_are_those_of_keras(spark, frequency):
    x, y = labelled(48)
    targets, histories = {"a": y, "b": x[:, :1]}, []
    for wrap in (lambda m: m, lambda m: SparkModel(m, frequency=frequency, num_workers=1)):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((x.shape[1],))
        outputs = {
            "a": keras.layers.Dense(3, "softmax", name="a")(inputs),
            "b": keras.layers.Dense(1, name="b")(inputs),
        }
        model = keras.Model(inputs, outputs)
        model.compile("sgd", {"a": "sparse_categorical_crossentropy", "b": "mae"})
        histories.append(wrap(model).fit(x, targets, 16, 2, 0, shuffle=False).history)
    for name in ("loss", "a_loss", "b_loss"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-5, err_msg=name)


class Batches(keras.metrics.Metric):
    """The number of batches since the last reset."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = self.add_weight((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(1.0)

    def result(self):
        return self.count


@pytest.mark.parametrize("road", ["live", "rounds"])
def test_validation_has_batches_of_its_own_size(spark, road):
    x, y = labelled(50)
    plain, merged = classifier(), classifier()
    for model in (plain, merged):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=[Batches(name="batches")])
    arguments = {"validation_data": (x, y), "validation_batch_size": 8, "verbose": 0}
    history = plain.fit(x, y, 16, 2, **arguments).history
    spark_model = SparkModel(merged, num_workers=1, road=road)
    assert spark_model.fit(x, y, 16, 2, **arguments).history["val_batches"] == [7.0, 7.0]
    assert history["val_batches"] == [7.0, 7.0]


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_terminate_on_nan_stops_training_as_in_keras(spark, mode):
    x, y = labelled(50)
    x[30] = np.nan
    histories = []
    for wrap in (lambda model: model, lambda model: SparkModel(model, mode, num_workers=1)):
        # Without "relu", which turns NaN into 0 on some processors.
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        stops = [keras.callbacks.TerminateOnNaN()]
        histories.append(wrap(model).fit(x, y, 16, 5, 0, stops).history)
    for history in histories:
        assert np.isnan(history["loss"]).tolist() == [True]


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous", "hogwild"])
def test_every_mode_learns(spark, mode):
    x, y = labelled(600)
    model = classifier(keras.optimizers.Adam(0.02))
    spark_model = SparkModel(model, mode, num_workers=2)
    history = spark_model.fit(x, y, epochs=8, validation_split=0.2, verbose=0)
    assert history.history["val_accuracy"][-1] > 0.85
    recorded = set() if mode == "synchronous" else EXCHANGES
    if mode == "asynchronous":
        recorded = recorded | {"staleness_mean", "staleness_max"}
    exchanges = spark_model.last_fit.exchanges()
    assert set(exchanges) == recorded
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    columns = [*history.history.values(), *exchanges.values()]
    assert {len(column) for column in columns} == {8}
    _, accuracy = model.evaluate(x[480:], y[480:], verbose=0)
    assert history.history["val_accuracy"][-1] == pytest.approx(accuracy, abs=1e-6)


def test_a_round_may_have_more_shards_than_task_slots(spark):
    x, y = labelled(90)
    model = classifier()
    SparkModel(model, num_workers=8, batch_size=4).fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()


def test_state_that_must_not_be_averaged_keeps_its_type(spark):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(20, 4),
            keras.layers.LSTM(6),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=7),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [(v.shape, v.dtype) for v in model.variables]
    random = np.random.default_rng(0)
    x, y = random.integers(0, 20, (60, 5)).astype("int32"), random.integers(0, 2, 60)
    SparkModel(model, num_workers=2, batch_size=8).fit(x, y, epochs=2, verbose=0)
    assert [(v.shape, v.dtype) for v in model.variables] == before


def test_predictions_of_an_rdd_keep_its_order_for_any_number_of_workers(spark):
    x, _ = labelled(50)
    model = classifier()
    parts = [[], list(x[:3]), [], list(x[3:48]), list(x[48:])]
    rows = spark.sparkContext.parallelize(parts, 5).flatMap(lambda part: part)
    predicted = SparkModel(model, num_workers=2).predict(rows)
    np.testing.assert_allclose(np.stack(predicted), model.predict(x, verbose=0), atol=1e-6)
    listed = SparkModel(model).fit(
        x, labels := np.zeros(50), verbose=0, validation_data=[x, labels]
    )
    assert "val_loss" in listed.history


class Interrupted(keras.callbacks.Callback):
    """Raises at the beginning of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedError


@pytest.mark.parametrize("frequency", [3, pytest.param("epoch", marks=pytest.mark.thorough)])
def test_backup_and_restore_continues_an_interrupted_fit(spark, frequency, tmp_path):
    x, y = labelled(40)
    plain = classifier()
    expected = plain.fit(x, y, 16, 4, 0, shuffle=False).history["loss"]

    def fit(*callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        spark_model = SparkModel(classifier(), frequency=frequency, num_workers=1, batch_size=16)
        history = spark_model.fit(
            x, y, epochs=4, verbose=0, shuffle=False, callbacks=[backup, *callbacks]
        )
        return spark_model.master_network, history

    with pytest.raises(InterruptedError):
        fit(Interrupted())
    model, history = fit()
    assert history.epoch == [2, 3]
    assert history.history["loss"] == pytest.approx(expected[2:], abs=1e-5)
    same(model, plain, 1e-5)


def test_a_checkpoint_equals_that_of_plain_fit(spark, tmp_path):
    x, y = labelled(40)
    saved = []
    for number, make in enumerate((lambda m: m, lambda m: SparkModel(m, num_workers=1))):
        path = tmp_path / f"{number}.keras"
        checkpoint = keras.callbacks.ModelCheckpoint(path)
        make(classifier()).fit(x, y, 16, 2, 0, [checkpoint], shuffle=False)
        saved.append(keras.models.load_model(path))
    same(*saved, 1e-6)
    for left, right in zip(*(model.optimizer.variables for model in saved), strict=True):
        np.testing.assert_allclose(left.numpy(), right.numpy(), rtol=0, atol=1e-6)


def test_validation_uses_the_averaged_weights_of_swap_ema_weights(spark):
    x, y = labelled(40)

    def fit(model, make=lambda model: model, **more):
        model.optimizer.build(model.trainable_variables)
        swap = keras.callbacks.SwapEMAWeights()
        history = make(model).fit(
            x, y, 16, 3, 0, [swap], validation_data=(x, y), shuffle=False, **more
        )
        return history.history

    plain, own = (
        classifier(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)) for _ in range(2)
    )
    expected = fit(plain)
    history = fit(own, lambda model: SparkModel(model, num_workers=1))
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, abs=1e-5), name
    same(own, plain, 1e-5)


def test_losses_of_outputs_add_up_to_the_loss(spark):
    inputs = keras.Input((6,))
    heads = [keras.layers.Dense(n, name=name)(inputs) for name, n in (("b", 3), ("a", 1))]
    model = keras.Model(inputs, heads)
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
    model.compile(keras.optimizers.SGD(0.0), losses, loss_weights=[2.0, 0.5])
    x, classes = labelled(50)
    y = [classes, x[:, :1]]
    spark_model = SparkModel(model, num_workers=3, batch_size=4)
    history = spark_model.fit(x, y, validation_data=(x, y), verbose=0).history
    expected = model.evaluate(x, y, batch_size=50, verbose=0, return_dict=True)
    for logs in (
        spark_model.evaluate(x, y, return_dict=True),
        {name: history[name][0] for name in expected},
        {name: history[f"val_{name}"][0] for name in expected},
    ):
        assert logs == pytest.approx(expected, rel=1e-5)
        assert logs["loss"] == pytest.approx(2.0 * logs["b_loss"] + 0.5 * logs["a_loss"])


@pytest.mark.parametrize(
    ("both", "metrics"), [(True, {"b": ["accuracy"], "a": ["mae"]}), (False, None)]
)
def test_labels_of_an_output_without_a_loss_may_be_given_or_omitted(spark, both, metrics):
    inputs = keras.Input((6,))
    heads = [keras.layers.Dense(n, name=name)(inputs) for name, n in (("b", 3), ("a", 1))]
    model = keras.Model(inputs, heads)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", [loss, None], metrics=metrics)
    x, classes = labelled(40)
    y = [classes, x[:, :1] if both else None]
    spark_model = SparkModel(model, num_workers=2, batch_size=8)
    spark_model.fit(x, y, validation_split=0.25, verbose=0)
    expected = model.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)
    assert spark_model.evaluate(x, y, return_dict=True) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("frequency", ["epoch", pytest.param("batch", marks=pytest.mark.thorough)])
def test_mixed_precision_training_equals_plain_fit(spark, frequency):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, plain = classifier(), classifier()
    finally:
        keras.config.set_dtype_policy(before)
    x, y = labelled(40)
    plain.fit(x, y, 8, 2, 0, shuffle=False)
    SparkModel(model, frequency=frequency, num_workers=1).fit(x, y, 8, 2, 0, shuffle=False)
    same(model, plain, 1e-3)
    for left, right in zip(model.optimizer.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_allclose(left.numpy(), right.numpy(), rtol=1e-2, atol=1e-3)
