"""Keras' own options of models and of `compile`, through `fit`, `transform`, `save` and `load`."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest

from kspark import SparkModel, load_spark_model
from kspark.ml import KerasModel

layers, ops = keras.layers, keras.ops
BACKEND = keras.backend.backend()
ROWS, BATCH = 48, 8


@keras.saving.register_keras_serializable("breadth")
class Penalty(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return x


def perceptron(*more, regularizer=None, shape=None, dtype=None):
    inputs = keras.Input((6,)) if shape is None else keras.Input(batch_shape=shape)
    hidden = layers.Dense(8, "relu", kernel_regularizer=regularizer, dtype=dtype)
    return keras.Sequential([inputs, hidden, *more, layers.Dense(1)])


def compiled(model, optimizer="adam", **options):
    model.compile(optimizer, "mse", **{"metrics": ["mae"], **options})
    return model


def several_steps():
    return compiled(perceptron(), steps_per_execution=4)


def just_in_time():
    return compiled(perceptron(), jit_compile=True)


def eager():
    return compiled(perceptron(), run_eagerly=True)


def scaled_loss():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=8.0)
    return compiled(perceptron(dtype="mixed_float16"), optimizer, auto_scale_loss=True)


def scaled_automatically():
    """`compile` wraps the optimizer of a model of half precision by itself."""
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1)])
    model = keras.models.clone_model(model, clone_function=lambda layer: of_policy(layer, policy))
    model.dtype_policy = policy
    return compiled(model, keras.optimizers.SGD(0.05))


def of_policy(layer, policy):
    return layer.from_config({**layer.get_config(), "dtype": policy})


def unscaled_loss():
    return compiled(perceptron(dtype="mixed_float16"), "sgd", auto_scale_loss=False)


def losses_of_layers():
    return compiled(perceptron(Penalty(activity_regularizer="l2")))


def regularized():
    return compiled(perceptron(regularizer=keras.regularizers.L1L2(1e-3, 1e-2)))


def weighted():
    return compiled(perceptron(), weighted_metrics=["mse", keras.metrics.MeanAbsoluteError()])


def moving_average():
    return compiled(perceptron(), keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))


def overwritten_average():
    options = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}
    return compiled(perceptron(), keras.optimizers.SGD(0.05, **options))


def accumulated():
    return compiled(perceptron(), keras.optimizers.SGD(0.05, gradient_accumulation_steps=2))


def fixed_batch():
    return compiled(perceptron(shape=(BATCH, 6)))


thorough = pytest.mark.thorough
CASES = [
    *([several_steps] if BACKEND != "torch" else []),  # Keras refuses it there.
    losses_of_layers,
    overwritten_average,
    fixed_batch,
    *(
        pytest.param(case, marks=thorough)
        for case in (
            just_in_time,
            eager,
            scaled_loss,
            scaled_automatically,
            unscaled_loss,
            regularized,
            weighted,
            moving_average,
            accumulated,
        )
    ),
]


def made(make):
    keras.utils.set_random_seed(2)
    return make()


def rows():
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 6)).astype("float32")
    return x, (x[:, :1] * 2 + 1).astype("float32"), random.random(ROWS).astype("float32")


def same(ours, theirs, atol):
    for left, right in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=atol)


@pytest.mark.parametrize("make", CASES)
def test_fit_transform_save_and_load_do_what_keras_does(spark, tmp_path, make):
    x, y, weights = rows()
    atol = 2e-3 if "scale" in make.__name__ else 1e-5
    plain, ours = made(make), made(make)
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0}
    expected = plain.fit(x, y, batch_size=BATCH, sample_weight=weights, **arguments).history
    spark_model = SparkModel(ours, num_workers=1, batch_size=BATCH)
    found = spark_model.fit(x, y, sample_weight=weights, **arguments).history
    same(ours, plain, atol)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=atol, err_msg=name)

    frame = spark.createDataFrame(pd.DataFrame({"features": x.tolist()}), "features array<float>")
    predicted = plain.predict(x, batch_size=BATCH, verbose=0)[:, 0]
    stage = KerasModel(ours, inferenceBatchSize=BATCH)
    stage.save(str(tmp_path / "stage"))
    for scorer in (stage, KerasModel.load(str(tmp_path / "stage"))):
        scores = [row.prediction for row in scorer.transform(frame).collect()]
        np.testing.assert_allclose(scores, predicted, rtol=1e-3, atol=atol)

    spark_model.save(str(tmp_path / "model.keras"))
    loaded = load_spark_model(str(tmp_path / "model.keras"))
    for model in (spark_model, loaded):
        model.fit(x, y, sample_weight=weights, **arguments)
    same(loaded, ours, atol)
    if BACKEND == "jax" and plain.optimizer.use_ema:
        return  # Keras 3.15's own second `fit` raises an error.
    plain.fit(x, y, batch_size=BATCH, sample_weight=weights, **arguments)
    same(ours, plain, 2 * atol)


def test_a_feature_space_prepares_the_rows_of_fit_and_transform(spark, tmp_path):
    space = keras.utils.FeatureSpace
    features = space(
        {
            "age": space.float_normalized(),
            "hours": space.float_discretized(num_bins=4),
            "job": space.string_categorical(num_oov_indices=1),
        }
    )
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": random.normal(40, 9, ROWS).astype("float32"),
            "hours": random.normal(38, 5, ROWS).astype("float32"),
            "job": np.array(["nurse", "cook", "clerk"])[np.arange(ROWS) % 3],
        }
    )
    columns = {name: table[name].to_numpy() for name in table}
    import tensorflow as tf  # `FeatureSpace.adapt` takes nothing else, with any backend.

    features.adapt(tf.data.Dataset.from_tensor_slices(columns))
    encoded = keras.ops.convert_to_numpy(features(columns))
    labels = (table["age"] > 40).to_numpy("float32")

    def model():
        keras.utils.set_random_seed(2)
        found = keras.Sequential([keras.Input(encoded.shape[1:]), layers.Dense(1)])
        return compiled(found)

    plain, ours = model(), model()
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0}
    plain.fit(encoded, labels, batch_size=BATCH, **arguments)
    frame = spark.createDataFrame(table.assign(label=labels))
    spark_model = SparkModel(ours, num_workers=1, batch_size=BATCH, preprocess=features)
    spark_model.fit(frame, features_col=list(table), label_col="label", **arguments)
    same(ours, plain, 1e-5)
    stage = KerasModel(ours, featuresCol=list(table), preprocess=features)
    stage.save(str(tmp_path / "stage"))
    predicted = plain.predict(encoded, verbose=0)[:, 0]
    for scorer in (stage, KerasModel.load(str(tmp_path / "stage"))):
        scores = [row.prediction for row in scorer.transform(frame).collect()]
        np.testing.assert_allclose(scores, predicted, atol=1e-5)


MAIN = """
    import keras
    import numpy as np

    from kspark import SparkModel, load_spark_model
    from kspark.ml import KerasModel
    from kspark.session import local_session


    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x


    def error(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


    spark = local_session(1)
    model = keras.Sequential([keras.Input((2,)), Doubled(), keras.layers.Dense(1)])
    model.compile("sgd", error, metrics=[error])
    x = np.ones((8, 2), "float32")
    custom = {"Doubled": Doubled, "error": error}
    spark_model = SparkModel(model, num_workers=1, custom_objects=custom)
    spark_model.fit(x, x[:, :1], epochs=1, verbose=0)
    frame = spark.createDataFrame([([1.0, 1.0],)], "features array<double>")
    expected = float(model.predict(x[:1], verbose=0)[0, 0])
    KerasModel(model).save("stage")
    spark_model.save("model.keras")
    loaded = load_spark_model("model.keras", custom_objects=custom)
    with keras.saving.custom_object_scope(custom):
        stage = KerasModel.load("stage")
    for found in (
        KerasModel(model).transform(frame).first().prediction,
        stage.transform(frame).first().prediction,
        float(loaded.predict(x[:1])[0, 0]),
    ):
        assert abs(found - expected) < 1e-5, (found, expected)
    spark.stop()
    print("as expected")
"""


def test_classes_and_functions_of_the_main_script_need_no_registration(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MAIN), encoding="utf-8")
    command = [sys.executable, str(script)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.stdout.endswith("as expected\n"), run.stderr[-5000:]
