"""Sparse rows train, evaluate and predict as the dense array does, and stay sparse on disk."""

import keras
import numpy as np
import pytest
import scipy.sparse as sp
from pyspark.ml import Pipeline
from pyspark.ml.feature import HashingTF, Tokenizer
from pyspark.ml.linalg import Vectors

from kspark import SparkModel
from kspark.job import spooling
from kspark.ml import KerasClassifier

ROWS, WIDTH, BATCH = 72, 400, 8


@pytest.fixture(scope="module")
def x():
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, WIDTH)).astype("float32")
    return np.where(random.random((ROWS, WIDTH)) < 0.02, values, np.float32(0))


@pytest.fixture(scope="module")
def y(x):
    return (x.sum(axis=1) > 0).astype("float32")


@pytest.fixture
def handles(monkeypatch):
    """The handles of all shards that are spooled."""
    found, read = [], spooling.read_handle
    monkeypatch.setattr(spooling, "read_handle", lambda d: found.append(read(d)) or found[-1])
    return found


@pytest.fixture(scope="module")
def frame(spark, x, y):
    """Sparse vectors, among which each twelfth is dense."""
    vectors = [Vectors.sparse(WIDTH, np.flatnonzero(row), row[row != 0]) for row in x]
    vectors[::12] = [Vectors.dense(row) for row in x[::12]]
    rows = [(i, v, float(label)) for i, (v, label) in enumerate(zip(vectors, y, strict=True))]
    return spark.createDataFrame(rows, ["id", "features", "label"]).coalesce(2)


def network(optimizer="adam", width=WIDTH):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((width,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def trained(x, y=None, mode="synchronous", frequency="epoch", num_workers=2, **arguments):
    """The bytes of the weights, and the history."""
    spark_model = SparkModel(
        network(), mode, frequency, num_workers=num_workers, seed=7, batch_size=BATCH
    )
    history = spark_model.fit(x, y, epochs=2, verbose=0, **arguments).history
    return b"".join(w.tobytes() for w in spark_model.master_network.get_weights()), history


@pytest.mark.parametrize(
    ("arguments", "spools"),
    [
        ({"validation_split": 0.25}, 4),
        ({"reshuffle": "epoch", "sample_weight": np.linspace(0.5, 2, ROWS)}, 6),
        ({"frequency": "batch"}, 2),
        ({"frequency": 3}, 2),
        ({"mode": "asynchronous", "frequency": "batch", "num_workers": 1}, 1),
    ],
)
def test_a_sparse_matrix_trains_as_the_array(spark, x, y, handles, arguments, spools):
    expected = trained(x, y, **arguments)
    assert {handle.x[0].entries for handle in handles} == {None}
    before = len(handles)
    assert trained(sp.csr_matrix(x), y, **arguments) == expected
    assert len(handles) == 2 * before
    assert None not in {handle.x[0].entries for handle in handles[before:]}


def test_a_frame_an_rdd_and_files_train_as_the_array(spark, x, y, frame, handles, tmp_path):
    path = str(tmp_path / "rows")
    frame.write.parquet(path)
    features = frame.select("features", "label")
    expected = trained(x, y, shuffle=False)
    for rows in (features, features.rdd.map(tuple), path):
        assert trained(rows, shuffle=False, features_col="features") == expected
    assert sum(handle.x[0].entries is None for handle in handles) == 2  # those of the array
    assert trained(features.rdd.map(tuple).repartition(3), num_workers=2)  # in pieces


def test_all_kinds_evaluate_and_predict_as_plain_keras(spark, x, y, frame):
    spark_model = SparkModel(network(), num_workers=2, batch_size=BATCH)
    plain = network()
    expected = plain.predict(x, verbose=0)
    losses = plain.evaluate(x, y, BATCH, verbose=0)
    matrix, rows = sp.coo_array(x), frame.select("features", "label").rdd.map(tuple)
    for data in ((matrix, y), (frame,), (rows,)):
        np.testing.assert_allclose(spark_model.evaluate(*data, verbose=0), losses, rtol=1e-5)
    scored = spark_model.predict(frame).orderBy("id").collect()
    for found in (
        spark_model.predict(matrix, verbose=0),
        np.stack(spark_model.predict(rows.keys(), verbose=0)),
        np.array([[row.prediction] for row in scored]),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_a_shape_and_one_with_two_inputs_take_matrices(spark, x, y):
    keras.utils.set_random_seed(3)
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    unbuilt.compile("sgd", "mse")
    matrix = sp.csr_matrix(x)
    SparkModel(unbuilt, num_workers=1).fit(
        matrix, y, validation_data=(matrix, y), epochs=1, verbose=0
    )
    assert unbuilt.input_shape == (None, WIDTH)
    words, age = keras.Input((WIDTH,), name="words"), keras.Input((1,), name="age")
    joined = keras.layers.Concatenate()([words, age])
    model = keras.Model({"words": words, "age": age}, keras.layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    expected = model.predict({"words": x, "age": y[:, None]}, verbose=0)
    found = SparkModel(model).predict({"words": matrix, "age": y}, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_words_are_hashed_to_their_default_width(spark):
    texts = ["a red apple", "the green pear", "a red cherry", "green grass"] * 5
    rows = spark.createDataFrame([(t, float("red" in t)) for t in texts], ["text", "label"])
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((1 << 18,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(2.0), "binary_crossentropy")
    stages = [
        Tokenizer(inputCol="text", outputCol="words"),
        HashingTF(inputCol="words", outputCol="features"),
        KerasClassifier(model, epochs=3, batchSize=4, numWorkers=2),
    ]
    fitted = Pipeline(stages=stages).fit(rows)
    scored = fitted.transform(rows)
    assert scored.where("label = prediction").count() == len(texts)
    sample = scored.select("features").limit(3).collect()
    assert [row.features.size for row in sample] == [1 << 18] * 3
