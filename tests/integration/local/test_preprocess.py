"""`preprocess` and `augment`: the workers make the model's inputs, as plain Keras does by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import functions as F
from scipy.sparse import coo_matrix

import kspark.data
from kspark import SparkModel, load_spark_model
from kspark.errors import WorkerError
from kspark.ml import KerasClassificationModel, KerasClassifier, KerasModel

pytestmark = pytest.mark.usefixtures("spark")

layers = keras.layers
TEXTS = ["a good film", "bad film", "a fine and good one", "poor", "bad and poor"] * 10
LIKED = np.array([1, 0, 1, 0, 0] * 10)


def classifier(shape, *inner, classes=2):
    keras.utils.set_random_seed(1)
    dense = layers.Dense(classes, "softmax")
    model = keras.Sequential([keras.Input(shape), *inner, layers.Flatten(), dense])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def vectorization():
    layer = layers.TextVectorization(output_mode="multi_hot", max_tokens=10, pad_to_max_tokens=True)
    layer.adapt(TEXTS)
    return layer


def halved(batch):
    return batch["x"][:, :3] / 2


def one_worker(model, **settings):
    return SparkModel(model, num_workers=1, batch_size=8, seed=3, **settings)


def same_weights(left, right, atol=1e-6):
    for ours, theirs in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    return rng.random((42, 5)), rng.integers(0, 2, 42)


def test_a_function_trains_evaluates_and_predicts_as_keras_on_prepared_arrays(numbers):
    x, y = numbers
    prepared = halved({"x": x})
    oracle, model = classifier((3,)), classifier((3,))
    expected = oracle.fit(
        prepared, y, batch_size=8, epochs=2, shuffle=False, validation_split=0.25, verbose=0
    )
    spark_model = one_worker(model, preprocess=halved)
    history = spark_model.fit(x, y, epochs=2, shuffle=False, validation_split=0.25, verbose=0)
    same_weights(model, oracle)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)
    np.testing.assert_allclose(
        spark_model.evaluate(x, y, verbose=0), oracle.evaluate(prepared, y, verbose=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        spark_model.predict(x, verbose=0), oracle.predict(prepared, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"road": "rounds"},
        {"frequency": "batch"},
        {"frequency": 2},
        {"mode": "asynchronous", "frequency": 3},
    ],
)
def test_all_modes_train_as_on_prepared_rows(numbers, settings):
    x, y = numbers
    workers = 1 if settings.get("mode") else 2
    found = []
    for features, preprocess in ((halved({"x": x}), None), (x, halved)):
        model = classifier((3,), layers.Dropout(0.2, seed=5))
        spark_model = SparkModel(
            model, num_workers=workers, batch_size=4, seed=3, preprocess=preprocess, **settings
        )
        spark_model.fit(features, y, epochs=2, verbose=0)
        found.append(model)
    same_weights(*found, atol=0)


def test_the_argument_of_fit_stays_and_that_of_other_calls_does_not(numbers):
    x, y = numbers
    spark_model = one_worker(classifier((3,)))
    spark_model.fit(x, y, preprocess=halved, verbose=0)
    assert spark_model.preprocess is halved
    expected = spark_model.predict(x, verbose=0)
    found = spark_model.predict(halved({"x": x}), preprocess=False, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    tripled = spark_model.predict(x, preprocess=lambda b: b["x"][:, :3] * 3, verbose=0)
    assert np.abs(tripled - expected).max() > 1e-3
    assert spark_model.preprocess is halved
    spark_model.fit(halved({"x": x}), y, preprocess=False, verbose=0)
    assert spark_model.preprocess is None


def test_kinds_of_data_have_names(spark, tmp_path):
    words = vectorization()
    numbers = np.arange(50.0)

    def both(batch):
        return {"w": np.asarray(words(batch["text"])), "n": batch["number"]}

    def make():
        keras.utils.set_random_seed(1)
        inputs = {"w": keras.Input((10,), name="w"), "n": keras.Input((), name="n")}
        joined = layers.Concatenate()([inputs["w"], layers.Reshape((1,))(inputs["n"])])
        model = keras.Model(inputs, layers.Dense(2, "softmax")(joined))
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    columns = {"text": TEXTS, "number": numbers, "label": LIKED}
    table = pd.DataFrame(columns)
    frame = spark.createDataFrame(table).coalesce(1)
    frame.write.parquet(str(tmp_path / "rows"))
    arrays = {"text": np.array(TEXTS), "number": numbers}
    oracle = make()
    oracle.fit(both(arrays), LIKED, batch_size=8, shuffle=False, verbose=0)
    names = {"features_col": ["text", "number"]}
    pairs = [({"text": t, "number": n}, y) for t, n, y in zip(TEXTS, numbers, LIKED, strict=True)]
    rdd = spark.sparkContext.parallelize(pairs, 1)
    for data, arguments in [
        ((arrays, LIKED), {}),
        ((table,), names),
        ((table[["text", "number"]], LIKED), {}),
        ((frame,), names),
        ((str(tmp_path / "rows"),), names),
        ((rdd,), {}),
    ]:
        model = make()
        spark_model = one_worker(model, preprocess=both)
        spark_model.fit(*data, shuffle=False, verbose=0, **arguments)
        same_weights(model, oracle)
    expected = oracle.predict(both(arrays), verbose=0)
    rows = spark_model.predict(frame, **names).orderBy("number").collect()
    np.testing.assert_allclose([r.prediction for r in rows], expected, atol=1e-6)
    spark_model.predict(str(tmp_path / "rows"), output=str(tmp_path / "out"), **names, verbose=0)
    rows = spark.read.parquet(str(tmp_path / "out")).orderBy("number").collect()
    np.testing.assert_allclose([r.prediction for r in rows], expected, atol=1e-6)


def test_a_layer_of_text(numbers):
    words = vectorization()
    oracle, model = classifier((10,)), classifier((10,))
    x = np.asarray(words(np.array(TEXTS)))
    oracle.fit(x, LIKED, batch_size=8, shuffle=False, verbose=0)
    one_worker(model, preprocess=words).fit(np.array(TEXTS), LIKED, shuffle=False, verbose=0)
    same_weights(model, oracle)


def test_layers_of_images_and_a_model_that_gets_its_shape_from_them(numbers):
    images = np.random.default_rng(0).integers(0, 256, (24, 12, 10, 3), dtype=np.uint8)
    y = np.arange(24) % 2
    smaller = keras.Sequential([layers.Resizing(6, 5), layers.Rescaling(1 / 255)])

    def unbuilt():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Flatten(), layers.Dense(2, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    oracle, model = unbuilt(), unbuilt()
    prepared = np.asarray(smaller(images))
    oracle.build((None, 6, 5, 3))
    oracle.fit(prepared, y, batch_size=8, shuffle=False, verbose=0)
    keras.utils.set_random_seed(1)
    one_worker(model, preprocess=smaller).fit(images, y, shuffle=False, verbose=0)
    assert model.input_shape == (None, 6, 5, 3)
    np.testing.assert_allclose(
        SparkModel(oracle, preprocess=smaller).predict(images, verbose=0),
        oracle.predict(prepared, verbose=0),
        atol=1e-6,
    )


def test_texts_of_other_lengths_in_each_batch():
    words = layers.TextVectorization()
    words.adapt(TEXTS)

    def make():
        keras.utils.set_random_seed(1)
        inner = [layers.Embedding(20, 4), layers.GlobalMaxPooling1D(), layers.Dense(2, "softmax")]
        model = keras.Sequential([keras.Input((None,), dtype="int64"), *inner])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    oracle, model = make(), make()
    for start in range(0, 50, 3):
        rows = slice(start, start + 3)
        oracle.train_on_batch(words(np.array(TEXTS[rows])), LIKED[rows])
    one_worker(model, preprocess=words).fit(
        np.array(TEXTS), LIKED, batch_size=3, shuffle=False, verbose=0
    )
    same_weights(model, oracle)


def test_bytes_reach_the_function(spark):
    rows = [(bytes([i, 7, 0]), i % 2) for i in range(20)]
    frame = spark.createDataFrame(rows, "content binary, label int").coalesce(1)

    def decoded(batch):
        return np.stack([np.frombuffer(one, np.uint8) for one in batch["content"]])

    oracle, model = classifier((3,)), classifier((3,))
    x = decoded({"content": [row[0] for row in rows]}).astype("float32")
    oracle.fit(x, np.arange(20) % 2, batch_size=8, shuffle=False, verbose=0)
    spark_model = one_worker(model, preprocess=decoded)
    spark_model.fit(frame, features_col="content", shuffle=False, verbose=0)
    same_weights(model, oracle)
    found = spark_model.predict(frame, features_col="content").collect()
    expected = oracle.predict(x, verbose=0)
    np.testing.assert_allclose([row.prediction for row in found], expected, atol=1e-6)


TOKENS = [[1, 4, 2], [3], None, [], [2, 2, 5, 1]] * 10


def padded(batch):
    (rows,) = batch.values()
    return keras.utils.pad_sequences([[] if row is None else row for row in rows], 3)


def embedding():
    keras.utils.set_random_seed(1)
    return classifier((3,), layers.Embedding(6, 2))


def ragged_rows(spark, folder):
    """Lists of different lengths, and nulls, as each kind of input; in files as these are."""
    rows = list(zip(range(50), TOKENS, LIKED.tolist(), strict=True))
    schema = "id int, features array<int>, label int"
    frame = spark.createDataFrame(rows, schema).coalesce(1)
    frame.write.mode("overwrite").parquet(folder)
    pairs = [(tokens, label) for _, tokens, label in rows]
    table = pd.DataFrame({"features": TOKENS, "label": LIKED})
    return {
        "frame": (frame,),
        "files": (folder,),
        "rdd": (spark.sparkContext.parallelize(pairs, 1),),
        "pandas": (table,),
        "lists": (TOKENS, LIKED),
    }


def test_rows_of_different_lengths_reach_the_function(spark, tmp_path):
    """As plain Keras on the rows that the function has padded; also from a spooled handle."""
    oracle, x = embedding(), padded({"features": TOKENS})
    oracle.fit(x, LIKED, batch_size=8, shuffle=False, verbose=0)
    expected = oracle.predict(x, verbose=0)
    data = ragged_rows(spark, str(tmp_path / "rows"))
    for name, (features, *labels) in data.items():
        model = embedding()
        spark_model = one_worker(model, preprocess=padded)
        spark_model.fit(features, *labels, shuffle=False, verbose=0)
        same_weights(model, oracle)
        if name in ("files", "lists"):
            found = spark_model.predict(features, verbose=0)
            np.testing.assert_allclose(found, expected, atol=1e-6)
    scored = spark_model.predict(data["frame"][0]).orderBy("id").collect()
    np.testing.assert_allclose([row.prediction for row in scored], expected, atol=1e-6)
    for name in ("frame", "lists"):
        with kspark.data.spool(*data[name], num_workers=1) as rows:
            model = embedding()
            spark_model = one_worker(model, preprocess=padded)
            spark_model.fit(rows, shuffle=False, verbose=0)
            same_weights(model, oracle)
            evaluated = spark_model.evaluate(rows, verbose=0)
            with pytest.raises(ValueError, match="without nulls; make them with `preprocess`"):
                SparkModel(embedding()).fit(rows, verbose=0)
    np.testing.assert_allclose(evaluated, oracle.evaluate(x, LIKED, verbose=0), rtol=1e-5)


def last_token():
    """A model that returns the last of the padded tokens, and whose weight is not trained."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[0.0], [0.0], [1.0]])])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def test_rows_of_different_lengths_are_mixed_and_validated(spark):
    """Also if all rows of a shard have one length, as the first 8 of the 50 here.

    Tokens and label of a row are its number, so that the loss is 0 if they stay together.
    """
    lengths = [2] * 8 + [3] * 8 + [1, 4] * 17
    rows = [([row] * length, row) for row, length in enumerate(lengths)]
    frame = spark.createDataFrame(rows, "features array<int>, label int")
    frame = frame.repartitionByRange(3, F.size("features"))
    spark_model = SparkModel(last_token(), num_workers=3, batch_size=8, preprocess=padded)
    history = spark_model.fit(
        frame, epochs=2, reshuffle="epoch", validation_split=0.2, validation_data=frame, verbose=0
    )
    assert history.history["loss"] == history.history["val_loss"] == [0, 0]
    trained = [sum(w["num_examples"] for w in epoch) for epoch in spark_model.last_fit.workers]
    assert trained == [50, 50]


def test_nulls_of_numbers_and_text_reach_the_function(spark):
    rows = [(1, None, "a", 1), (2, 2.5, None, 0)] * 10
    frame = spark.createDataFrame(rows, "n int, f double, text string, label int").coalesce(1)

    def filled(batch):
        known = (batch["text"] != None).astype("float32")  # noqa: E711 (each of the texts)
        numbers = np.nan_to_num(batch["f"].astype("float32"), nan=-1)
        return np.stack([batch["n"].astype("float32"), numbers, known], axis=1)

    names = {"features_col": ["n", "f", "text"]}
    oracle, model = classifier((3,)), classifier((3,))
    x = np.array([[1, -1, 1], [2, 2.5, 0]] * 10, "float32")
    oracle.fit(x, np.array([1, 0] * 10), batch_size=8, shuffle=False, verbose=0)
    spark_model = one_worker(model, preprocess=filled)
    spark_model.fit(frame, shuffle=False, verbose=0, **names)
    same_weights(model, oracle)
    lookup = layers.StringLookup(vocabulary=["a"], output_mode="one_hot")
    refused = one_worker(classifier((2,)), preprocess=lookup)
    with pytest.raises(WorkerError, match="must be a function where rows have .* nulls"):
        refused.fit(frame, features_col="text", verbose=0)


def fitted_with(augment, x, y, seed=3, epochs=2):
    model = classifier(x.shape[1:])
    spark_model = SparkModel(model, num_workers=2, batch_size=8, seed=seed)
    spark_model.fit(x, y, epochs=epochs, augment=augment, verbose=0)
    return model


def test_augment_is_repeatable_and_differs_with_the_seed():
    images = np.random.default_rng(0).random((32, 4, 4, 1)).astype("float32")
    y = np.arange(32) % 2
    flip = keras.Sequential([layers.RandomFlip("horizontal"), layers.GaussianNoise(0.5)])
    first, again = (fitted_with(flip, images, y, epochs=1) for _ in range(2))
    same_weights(first, again, atol=0)
    other = fitted_with(flip, images, y, seed=4, epochs=1)
    assert np.abs(other.get_weights()[0] - first.get_weights()[0]).max() > 1e-4


def test_augment_differs_between_workers_epochs_and_batches(tmp_path):
    drawn = str(tmp_path)

    def noted(x):
        import uuid
        from pathlib import Path

        Path(drawn, uuid.uuid4().hex).write_text(str(np.random.random()), encoding="utf-8")
        return x

    x, y = np.zeros((32, 3), "float32"), np.arange(32) % 2
    fitted_with(noted, x, y)
    found = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert len(found) == len(set(found)) == 1 + 2 * 2 * 2  # tried; workers, epochs, batches


def test_augment_trains_as_keras_and_validation_has_none(numbers):
    x, y = halved({"x": numbers[0]}).astype("float32"), numbers[1]
    oracle, model = classifier((3,)), classifier((3,))
    oracle.fit(x[:32] + 1, y[:32], batch_size=8, shuffle=False, verbose=0)
    spark_model = one_worker(model)
    history = spark_model.fit(
        x[:32],
        y[:32],
        shuffle=False,
        verbose=0,
        augment=lambda inputs: inputs + 1,
        validation_data=(x[32:], y[32:]),
    )
    same_weights(model, oracle)
    loss, _ = oracle.evaluate(x[32:], y[32:], verbose=0)
    assert history.history["val_loss"] == pytest.approx([loss], rel=1e-5)
    np.testing.assert_allclose(
        spark_model.predict(x, verbose=0), oracle.predict(x, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (lambda batch: batch["text"], r"keys \['x'\].*raised KeyError"),
        (lambda batch: batch["x"], r"returns rows of shape \(3,\).*Received: .*\(5,\)"),
        (lambda batch: batch["x"][:1, :3], "as many rows as it gets, 2"),
        (lambda batch: {"a": batch["x"]}, r"returns an array.*keys \['a'\]"),
        (lambda batch: np.full((2, 3), "a"), "returns numbers. Received: text"),
        (lambda batch: None, "Received: None"),
        (
            lambda batch: pd.DataFrame(batch["x"][:, :3]),
            "arrays, the inputs of the model.*Received: a DataFrame",
        ),
        (layers.Dense(3), "be a layer that has its weights"),
    ],
)
def test_what_is_not_the_input_of_the_model_is_refused_before_a_fit(numbers, preprocess, message):
    x, y = numbers
    with pytest.raises(ValueError, match=f"(?s)`preprocess` must .*{message}"):
        one_worker(classifier((3,))).fit(x, y, preprocess=preprocess, verbose=0)
    with pytest.raises(ValueError, match="`augment` must be a step that returns rows of"):
        one_worker(classifier((5,))).fit(x, y, augment=lambda x: x[:, :2], verbose=0)


def test_spark_models_are_saved_with_their_layer(tmp_path):
    texts = np.array(TEXTS)
    spark_model = one_worker(classifier((10,)), preprocess=vectorization())
    spark_model.fit(texts, LIKED, verbose=0)
    for name in ("model.keras", "model.h5"):
        path = str(tmp_path / name)
        spark_model.save(path)
        loaded = load_spark_model(path)
        np.testing.assert_array_equal(
            loaded.predict(texts, verbose=0), spark_model.predict(texts, verbose=0)
        )
    assert keras.saving.load_model(tmp_path / "model.keras").input_shape == (None, 10)
    spark_model.preprocess = lambda batch: batch["x"]
    with pytest.raises(ValueError, match="`preprocess` must be a function that can be imported"):
        spark_model.save(str(tmp_path / "lambda.keras"))


def test_a_stage_keeps_its_layer_from_fit_to_a_new_process(spark, tmp_path):
    frame = spark.createDataFrame(list(zip(TEXTS, LIKED.tolist(), strict=True)), ["text", "label"])
    stage = KerasClassifier(
        classifier((10,)),
        featuresCol="text",
        preprocess=vectorization(),
        augment=layers.GaussianNoise(0.01),
        epochs=2,
        numWorkers=2,
        seed=1,
    )
    fitted = Pipeline(stages=[stage]).fit(frame)
    expected = [row.probability.toArray() for row in fitted.transform(frame).collect()]
    words = vectorization()
    by_hand = fitted.stages[0].kerasModel.predict(words(np.array(TEXTS)), verbose=0)
    np.testing.assert_allclose(expected, by_hand, atol=1e-6)

    fitted.stages[0].asUDF("liked")
    (row,) = spark.sql("SELECT liked('a good film') AS answer").collect()
    assert row.answer == by_hand[0].argmax()

    frame.select("text").limit(5).write.parquet(str(tmp_path / "texts"))
    fitted.stages[0].transformFiles(str(tmp_path / "texts"), str(tmp_path / "out"), verbose=0)
    assert spark.read.parquet(str(tmp_path / "out")).count() == 5

    path = str(tmp_path / "pipeline")
    fitted.write().overwrite().save(path)
    again = PipelineModel.load(path)
    found = [row.probability.toArray() for row in again.transform(frame).collect()]
    np.testing.assert_array_equal(found, expected)
    stage.save(str(tmp_path / "estimator"))
    loaded = KerasClassifier.load(str(tmp_path / "estimator"))
    assert isinstance(loaded.getAugment(), layers.GaussianNoise)
    assert loaded.getPreprocess().get_vocabulary() == words.get_vocabulary()

    program = textwrap.dedent(
        """
        import sys
        from pyspark.ml import PipelineModel
        from kspark.session import local_session

        spark = local_session(cores=1)
        rows = spark.createDataFrame([("a good film",)], ["text"])
        print("FOUND", PipelineModel.load(sys.argv[1]).transform(rows).first().probability)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    np.testing.assert_allclose(json.loads(line.removeprefix("FOUND ")), expected[0], atol=1e-6)


def test_a_changed_layer_of_a_stage_is_used(spark):
    frame = spark.createDataFrame([("good",)], ["features"])
    words = vectorization()
    stage = KerasModel(classifier((10,)), preprocess=words)
    before = stage.transform(frame).first().prediction
    words.set_vocabulary(["film", "poor", "good"])
    expected = stage.kerasModel.predict(words(np.array(["good"])), verbose=0)[0]
    after = stage.transform(frame).first().prediction
    np.testing.assert_allclose(after, expected, atol=1e-6)
    assert before != after


def test_a_stage_saves_the_name_of_a_function(spark, grammar, tmp_path, monkeypatch):
    def doubled(batch):
        return batch["features"] * 2

    monkeypatch.setattr(grammar, "doubled", doubled, raising=False)
    doubled.__module__, doubled.__qualname__ = grammar.__name__, "doubled"
    frame = spark.createDataFrame([([1.0, 2.0],)], ["features"])
    stage = KerasClassificationModel(classifier((2,)), preprocess=doubled)
    expected = stage.kerasModel.predict(np.array([[2.0, 4.0]]), verbose=0)[0]
    stage.save(str(tmp_path / "stage"))
    loaded = KerasClassificationModel.load(str(tmp_path / "stage"))
    assert loaded.getPreprocess() is doubled
    found = loaded.transform(frame).select(F.col("probability")).first().probability
    np.testing.assert_allclose(found.toArray(), expected, atol=1e-6)
    stage.setPreprocess(lambda batch: batch["features"])
    with pytest.raises(ValueError, match="`preprocess` must be a function that can be imported"):
        stage.save(str(tmp_path / "other"))
    stage.setPreprocess(None)
    stage.save(str(tmp_path / "none"))
    assert KerasClassificationModel.load(str(tmp_path / "none")).getPreprocess() is None


def two_inputs():
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((5,), name=name) for name in ("a", "b")]
    outputs = layers.Dense(2, "softmax")(layers.Concatenate()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def both_halved(batch):
    return [batch["a"] / 2, batch["b"] / 2]


@pytest.mark.parametrize("kind", ["list", "tuple", "sparse", "generator", "factory", "spooled"])
def test_several_inputs_in_a_list_are_prepared_by_their_names(numbers, kind):
    x, y = numbers
    oracle, model = two_inputs(), two_inputs()
    oracle.fit([x / 2, x * 1.5], y, batch_size=8, shuffle=False, verbose=0)
    parts = [x, x * 3]

    def batches(worker=0, num_workers=1):
        yield tuple(parts), y

    data = {
        "list": lambda: (parts, y),
        "tuple": lambda: (tuple(parts), y),
        "sparse": lambda: ([x, coo_matrix(x * 3)], y),
        "generator": lambda: (batches(),),
        "factory": lambda: (batches,),
        "spooled": lambda: (kspark.data.spool(parts, y, num_workers=1),),
    }[kind]
    spark_model = one_worker(model, preprocess=both_halved)
    given = {"shuffle": False, "verbose": 0, "batch_size": 8}
    spark_model.fit(*data(), augment=lambda batch: list(batch), **given)
    same_weights(model, oracle)
    expected = oracle.evaluate([x / 2, x * 1.5], y, verbose=0)
    np.testing.assert_allclose(spark_model.evaluate(*data(), verbose=0), expected, rtol=1e-5)
    predictions = oracle.predict([x / 2, x * 1.5], verbose=0)
    features = data()[0]
    np.testing.assert_allclose(spark_model.predict(features, verbose=0), predictions, atol=1e-6)


def test_a_fit_that_fails_changes_nothing(numbers):
    def fails_later(batch):
        if len(batch["x"]) > 2:
            raise OSError("disk")
        return batch["x"][:, :3]

    spark_model = one_worker(classifier((3,)), preprocess=halved)
    with pytest.raises(WorkerError, match="disk"):
        spark_model.fit(*numbers, verbose=0, preprocess=fails_later)
    assert spark_model.preprocess is halved
