"""`SparkModel` and a stage on `local[2]`, on any backend of Keras."""

import keras
import numpy as np
import pytest

from kspark import SparkModel, load_spark_model
from kspark.ml import KerasClassifier


def classifier(*more, optimizer="adam"):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(8, "relu"), *more, keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def labelled(rows=64):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def same(left, right, atol):
    for one, other in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def test_one_worker_equals_fit_and_the_saved_model_evaluates_and_predicts_alike(spark, tmp_path):
    x, y = labelled(83)
    plain, ours = classifier(), classifier()
    expected = plain.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    spark_model = SparkModel(ours, num_workers=1, batch_size=8)
    found = spark_model.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    same(ours, plain, 1e-5)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)
    path = str(tmp_path / "model.keras")
    spark_model.save(path)
    loaded = load_spark_model(path)
    scores = plain.evaluate(x, y, verbose=0, return_dict=True)
    found = loaded.evaluate(x, y, verbose=0, return_dict=True)
    assert found == pytest.approx(scores, abs=1e-4)
    np.testing.assert_allclose(loaded.predict(x), plain.predict(x, verbose=0), atol=1e-5)


def test_merged_gradients_equal_those_of_the_joint_batch(spark):
    x, y = labelled()
    plain, ours = classifier(), classifier()
    SparkModel(ours, frequency="batch", num_workers=2, batch_size=4).fit(
        x, y, epochs=2, shuffle=False, verbose=0
    )
    order = np.arange(64).reshape(2, 8, 4).swapaxes(0, 1).reshape(-1)
    plain.fit(x[order], y[order], batch_size=8, epochs=2, shuffle=False, verbose=0)
    same(ours, plain, 1e-4)


@pytest.mark.parametrize("frequency", ["epoch", pytest.param("batch", marks=pytest.mark.thorough)])
def test_the_same_seed_gives_the_same_bytes_with_dropout(spark, frequency):
    x, y = labelled(50)
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(3)  # The seed that the layer draws is a part of the model.
        model = classifier(keras.layers.Dropout(0.5))
        SparkModel(model, frequency=frequency, num_workers=2, batch_size=4, seed=5).fit(
            x, y, epochs=2, verbose=0
        )
        found.append([w.tobytes() for w in model.get_weights()])
    assert found[0] == found[1]


def test_layers_of_text_prepare_the_rows(spark):
    texts = np.array(["a b", "b c", "c a a", "b"] * 8, object)
    y = np.arange(32) % 2
    words = keras.layers.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=4)
    plain, ours = reader(), reader()
    numbers = keras.ops.convert_to_numpy(words(texts))
    plain.fit(numbers, y, batch_size=4, shuffle=False, verbose=0)
    spark_model = SparkModel(ours, num_workers=1, preprocess=words, batch_size=4)
    spark_model.fit(texts, y, shuffle=False, verbose=0)
    same(ours, plain, 1e-5)
    expected = plain.predict(numbers, verbose=0)
    np.testing.assert_allclose(spark_model.predict(texts, verbose=0), expected, atol=1e-5)


def reader():
    keras.utils.set_random_seed(3)
    read = [keras.layers.Embedding(5, 3), keras.layers.GlobalAveragePooling1D()]
    layers = [keras.Input((4,), dtype="int32"), *read, keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    model.compile("sgd", "binary_crossentropy")
    return model


@pytest.mark.thorough
def test_a_resumed_fit_ends_with_the_bytes_of_one_that_was_not_interrupted(spark, tmp_path):
    x, y = labelled(50)
    settings = {"num_workers": 2, "batch_size": 4, "seed": 5}
    whole, parts, other = (classifier(keras.layers.Dropout(0.5, seed=7)) for _ in range(3))
    SparkModel(whole, **settings).fit(x, y, epochs=4, verbose=0)
    options = {"checkpoint": str(tmp_path / "kept"), "verbose": 0}
    SparkModel(parts, **settings).fit(x, y, epochs=2, **options)
    SparkModel(other, **settings).fit(x, y, epochs=4, resume=True, **options)
    for one, another in zip(other.get_weights(), whole.get_weights(), strict=True):
        assert one.tobytes() == another.tobytes()


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
@pytest.mark.parametrize("frequency", ["epoch", 3, "batch"])
def test_replicas_that_do_not_wait_learn(spark, mode, frequency):
    x, y = labelled(400)
    model = classifier(optimizer=keras.optimizers.Adam(0.02))
    history = SparkModel(model, mode, frequency, num_workers=2, batch_size=8).fit(
        x, y, epochs=4, verbose=0
    )
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]


@pytest.mark.thorough
def test_a_stage_learns_and_transforms(spark):
    x, y = labelled(200)
    rows = [
        ([float(v) for v in features], float(label)) for features, label in zip(x, y, strict=True)
    ]
    frame = spark.createDataFrame(rows, "features array<double>, label double")
    model = classifier(optimizer=keras.optimizers.Adam(0.05))
    stage = KerasClassifier(model, epochs=6, batchSize=16, numWorkers=2, seed=1)
    scored = stage.fit(frame).transform(frame).toPandas()
    assert (scored["prediction"] == scored["label"]).mean() > 0.8
