"""Outputs of any name, weights per step and per output, models that rows build, class names."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.ml import (
    ElephasEstimator,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressor,
)

layers = keras.layers
COUNT, STEPS = 32, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(COUNT, STEPS)).astype("float32")
Y = RNG.normal(size=(COUNT, STEPS, 1)).astype("float32")
Z = (X[:, 0] > 0).astype("float32")
STEP_WEIGHTS = RNG.uniform(size=(COUNT, STEPS)).astype("float32")
ROW_WEIGHTS = RNG.uniform(size=COUNT).astype("float32")


@pytest.fixture(scope="module")
def frame(spark):
    columns = [X, Y, Z, STEP_WEIGHTS, ROW_WEIGHTS]
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    return spark.createDataFrame(rows, ["features", "y", "label", "steps", "w"]).coalesce(1).cache()


def two_outputs():
    keras.utils.set_random_seed(0)
    x = keras.Input((STEPS,))
    series = layers.Dense(1, name="series")(layers.Reshape((STEPS, 1))(x))
    model = keras.Model(x, [series, layers.Dense(1, "sigmoid", name="one")(x)])
    model.compile(keras.optimizers.SGD(0.1), ["mse", "binary_crossentropy"])
    return model


def trained_by_keras():
    model = two_outputs()
    weights = [STEP_WEIGHTS, ROW_WEIGHTS]
    model.fit(X, [Y, Z], sample_weight=weights, epochs=2, batch_size=8, shuffle=False, verbose=0)
    return model.get_weights()


def unbuilt():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_outputs_of_a_shared_layer_have_columns_of_their_own(frame):
    shared, x = layers.Dense(2, name="dense"), [keras.Input((STEPS,)) for _ in "ab"]
    model = keras.Model(x, [shared(one) for one in x])
    model.compile("sgd", "mse")
    first, second = model.predict([X, STEP_WEIGHTS], verbose=0)
    columns = ["features", "steps"]
    stage = KerasModel(model, featuresCol=columns, predictionCol="p")
    by_model = SparkModel(model).predict(frame, features_col=columns, output_col="p")
    for rows in (stage.transform(frame).collect(), by_model.collect()):
        np.testing.assert_allclose([r.p_dense for r in rows], first, atol=1e-6)
        np.testing.assert_allclose([r.p_dense_1 for r in rows], second, atol=1e-6)


def test_weights_per_step_and_per_output_come_from_columns(frame):
    stage = KerasEstimator(
        two_outputs(),
        labelCol=["y", "label"],
        weightCol={"series": "steps", "one": "w"},
        epochs=2,
        batchSize=8,
        shuffle=False,
    )
    close(stage.fit(frame).kerasModel.get_weights(), trained_by_keras())


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["frame", "pandas", "arrow", "rdd", "arrays"])
def test_weights_come_from_data_of_every_kind(spark, frame, kind):
    names = ["features", "y", "label", "steps", "w"]
    numbers = spark.sparkContext.parallelize(range(COUNT), 1)
    rows = numbers.map(lambda i: (X[i], [Y[i], Z[i]], [STEP_WEIGHTS[i], ROW_WEIGHTS[i]]))
    data = {
        "frame": lambda: [frame],
        "pandas": lambda: [frame.toPandas()],
        "arrow": lambda: [frame.select(names).toArrow()],
        "rdd": lambda: [
            rows.map(lambda i: (X[i], [Y[i], Z[i]], [STEP_WEIGHTS[i], ROW_WEIGHTS[i]]))
        ],
        "arrays": lambda: [X, [Y, Z]],
    }[kind]()
    model = two_outputs()
    arguments = {"sample_weight": [STEP_WEIGHTS, ROW_WEIGHTS]} if kind == "arrays" else {}
    SparkModel(model, num_workers=1).fit(
        *data,
        epochs=2,
        batch_size=8,
        shuffle=False,
        verbose=0,
        label_col=["y", "label"],
        weight_col=["steps", "w"],
        **arguments,
    )
    close(model.get_weights(), trained_by_keras())


def test_a_classifier_builds_its_model_from_the_rows(frame):
    model = unbuilt()
    stage = KerasClassifier(model, epochs=2, batchSize=8, shuffle=False)
    fitted = stage.fit(frame)
    assert model.input_shape == (None, STEPS)
    model.fit(X, Z, epochs=2, batch_size=8, shuffle=False, verbose=0)
    close(fitted.kerasModel.get_weights(), model.get_weights())


def test_a_model_without_rows_to_build_it_from_is_refused(frame):
    with pytest.raises(ValueError, match="`model` must be built"):
        KerasModel(unbuilt()).transform(frame.limit(0))
    with pytest.raises(ValueError, match="`model` must be built"):
        KerasModel(unbuilt()).asUDF("score")


@pytest.mark.thorough
def test_all_stages_build_their_models_from_the_rows(frame):
    model = unbuilt()
    rows = KerasModel(model).transform(frame).collect()
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose([r.prediction for r in rows], expected, atol=1e-6)
    for make in (KerasEstimator, KerasRegressor):
        assert make(unbuilt()).fit(frame).kerasModel.input_shape == (None, STEPS)
    fitted = ElephasEstimator(unbuilt(), num_workers=1, categorical=False).fit(frame)
    assert len(fitted.transform(frame).first()[-1]) == 2


def test_a_model_that_ends_in_names_of_classes_adds_a_column_of_strings(frame):
    names = ["cat", "dog"]
    x = keras.Input((STEPS,))
    chosen = layers.Lambda(lambda t: keras.ops.cast(t[:, :2] > 0, "int32"), output_shape=(2,))(x)
    lookup = layers.StringLookup(vocabulary=names, num_oov_indices=0, invert=True)
    model = keras.Model(x, lookup(chosen))
    model.compile("sgd")
    expected = [[names[int(value > 0)] for value in row[:2]] for row in X]
    scored = KerasModel(model).transform(frame)
    assert scored.schema["prediction"].dataType.simpleString() == "array<string>"
    assert [r.prediction for r in scored.collect()] == expected
    found, by_keras = SparkModel(model).predict(X), model.predict(X, verbose=0)
    np.testing.assert_array_equal(found, by_keras)
    assert found.dtype == by_keras.dtype
    with pytest.raises(ValueError, match="`model` must be a model of numbers"):
        KerasRegressor(model)
