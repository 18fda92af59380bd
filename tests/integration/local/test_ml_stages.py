"""Keras stages on Spark: `fit`, and the columns that `transform` adds."""

import random
from dataclasses import replace

import keras
import numpy as np
import pytest
from pyspark.errors import PythonException
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    MultilabelClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.sql import functions as F

from kspark.job.frame_scoring import ARROW_UDF, COLUMNAR_INPUT
from kspark.ml import KerasClassifier, KerasEstimator, KerasModel, KerasRegressor
from kspark.ml.estimator import divided
from kspark.ml.label_columns import with_labels
from kspark.ml.scoring import ClassifierFacts

ROWS = 240


def data(spark):
    random = np.random.default_rng(5)
    x = random.normal(size=(ROWS, 4)).round(3)
    rows = [
        (i, Vectors.dense(r), *map(float, r), int(r[0] > 0), int(2 * (r[0] > 0) + (r[1] > 0)))
        for i, r in enumerate(x)
    ]
    names = ["id", "features", "a", "b", "c", "d", "sign", "label"]
    return spark.createDataFrame(rows, names).repartition(2)


@pytest.fixture(scope="module")
def frame(spark):
    return data(spark).cache()


def classifier(units, activation, loss):
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(16, "relu", name="hidden"),
        keras.layers.Dense(units, activation),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def stage():
    return KerasClassifier(
        classifier(4, "softmax", "sparse_categorical_crossentropy"),
        epochs=6,
        batchSize=16,
        seed=1,
        numWorkers=2,
    )


@pytest.fixture(scope="module")
def fitted(stage, frame):
    return stage.fit(frame)


def doubling(name="out"):
    """A model that gives twice its one number."""
    inputs = keras.Input((1,), name="x")
    outputs = keras.layers.Dense(1, use_bias=False, name=name)(inputs)
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array([[2.0]])])
    return model


def test_a_classifier_works_with_the_evaluators_of_spark(fitted, frame):
    predictions = fitted.transform(frame)
    assert [f.dataType.simpleString() for f in predictions.schema.fields[-3:]] == [
        *("vector", "vector", "double"),
    ]
    assert predictions.columns == [*frame.columns, "rawPrediction", "probability", "prediction"]
    for metric in ("accuracy", "f1", "logLoss"):
        MulticlassClassificationEvaluator(metricName=metric).evaluate(predictions)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(predictions)
    assert accuracy > 0.8
    assert accuracy >= fitted.history["accuracy"][-1] - 0.1


def test_predictions_equal_those_of_keras(fitted, frame):
    rows = fitted.transform(frame).collect()
    assert {r.id for r in rows} == set(range(ROWS))
    x = np.array([r.features.toArray() for r in rows])
    expected = fitted.kerasModel.predict(x, verbose=0)
    found = np.array([r.probability.toArray() for r in rows])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [r.prediction for r in rows] == found.argmax(axis=1).tolist()
    np.testing.assert_allclose(rows[0].rawPrediction.toArray(), np.log(found[0]), rtol=1e-5)


def test_a_fit_does_not_change_its_estimator(stage, fitted):
    trained, given = fitted.kerasModel, stage.getModel()
    fresh = classifier(4, "softmax", "sparse_categorical_crossentropy").get_weights()
    for before, weight, after in zip(
        fresh, given.get_weights(), trained.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(before, weight)
        assert not np.array_equal(weight, after)
    assert fitted.uid == stage.uid
    assert fitted.getFeaturesCol() == stage.getFeaturesCol()


def test_the_summary_has_epochs_and_workers(fitted):
    assert set(fitted.history) == {"loss", "accuracy"}
    assert fitted.summary.totalIterations == 6
    assert fitted.summary.objectiveHistory[0] > fitted.summary.objectiveHistory[-1]
    assert [[w["shard"] for w in epoch] for epoch in fitted.summary.workers] == [[0, 1]] * 6


def test_output_columns_may_be_omitted_and_must_be_new(fitted, frame):
    only = fitted.copy({fitted.rawPredictionCol: "", fitted.probabilityCol: ""})
    assert only.transform(frame.select("features")).columns == ["features", "prediction"]
    with pytest.raises(ValueError, match="must be a name that is not among the columns"):
        fitted.transform(fitted.transform(frame))


def test_thresholds_change_the_prediction(fitted, frame):
    always_two = fitted.copy({fitted.thresholds: [1, 1, 0, 1]})
    assert {r.prediction for r in always_two.transform(frame).collect()} == {2.0}


def test_activations_of_a_layer_can_be_features_of_spark_stages(fitted, frame):
    inner = fitted.copy().setFeatureLayer("hidden").setOutputCol("inner")
    rows = inner.transform(frame)
    assert rows.columns == [*frame.columns, "inner"]
    model = LogisticRegression(featuresCol="inner").fit(rows)
    assert model.numFeatures == 16
    scored = model.transform(rows)
    assert MulticlassClassificationEvaluator(metricName="accuracy").evaluate(scored) > 0.9


def test_the_model_can_be_called_in_sql(spark, fitted, frame):
    function = fitted.asUDF("quadrant")
    frame.createOrReplaceTempView("rows")
    try:
        query = "SELECT id, quadrant(features) AS p, quadrant(array(a, b, c, d)) AS q FROM rows"
        found = {r.id: (r.p, r.q) for r in spark.sql(query).collect()}
    finally:
        spark.catalog.dropTempView("rows")
    expected = {r.id: r.prediction for r in fitted.transform(frame).collect()}
    assert found == {i: (p, p) for i, p in expected.items()}
    inner = fitted.copy().setFeatureLayer("hidden").asUDF("inner")
    few = frame.filter("id < 3").select(function("features"), inner("features").alias("h"))
    assert [len(r.h) for r in few.collect()] == [16] * 3


@pytest.mark.parametrize("columnar", ["true", "false"])
def test_columnar_sources_are_scored_without_conversion_to_rows(
    spark, fitted, frame, tmp_path, columnar
):
    """The query plan has no step between reader and model that converts columns to rows."""
    spark.conf.set(COLUMNAR_INPUT, columnar)  # a function of SQL turns it off
    path = str(tmp_path / "rows")
    frame.write.parquet(path)
    read = spark.read.parquet(path)
    expected = {r.id: r.prediction for r in fitted.transform(frame).collect()}
    rows = fitted.transform(read)
    assert {r.id: r.prediction for r in rows.collect()} == expected
    assert rows.select("id", "features").orderBy("id").collect() == (
        frame.select("id", "features").orderBy("id").collect()
    )
    function = fitted.asUDF("from_columns")
    found = read.select("id", function("features").alias("p")).collect()
    assert {r.id: r.p for r in found} == expected


def test_transform_keeps_all_input_columns(fitted, frame):
    twice = frame.select("*", F.col("id"))
    assert fitted.transform(twice).columns[: len(twice.columns)] == twice.columns
    upper = frame.withColumnRenamed("features", "Features")
    assert fitted.transform(upper).count() == frame.count()
    with pytest.raises(ValueError, match="`predictionCol` must be a name that is not among"):
        fitted.transform(frame.withColumn("Prediction", F.lit(1)))


@pytest.mark.skipif(ARROW_UDF is None, reason="before Spark 4.1, the output's columns are new ones")
def test_references_to_input_columns_work_on_the_output(fitted, frame):
    scored = fitted.transform(frame.alias("t").withColumn("kspark_scores", F.lit(1)))
    assert scored.select("t.id").count() == frame.count()
    scored = fitted.transform(frame)
    found = scored.select(frame.id, (frame.label == scored.prediction).alias("hit"))
    assert found.columns == ["id", "hit"]


def test_sql_functions_refuse_what_transform_refuses(fitted, frame):
    plain = fitted.copy({fitted.featuresCol: ["a", "b", "c", "d"]}).asUDF("of_numbers")
    holes = frame.withColumn("b", F.when(F.col("id") != 3, F.col("b")))
    with pytest.raises(PythonException, match="Column 'b' must hold no nulls"):
        holes.select(plain("a", "b", "c", "d")).collect()
    with pytest.raises(PythonException, match="`columns` must be 4: .*Received: columns=2"):
        frame.select(plain("a", "b")).collect()
    vector = fitted.asUDF("of_vectors")
    with pytest.raises(PythonException, match="Column 'features' must hold no nulls"):
        frame.select(vector(F.when(F.col("id") != 3, F.col("features")))).collect()
    with pytest.raises(PythonException, match="`columns` must be 1: .*Received: columns=2"):
        frame.select(vector("features", "features")).collect()


def test_every_row_gets_the_prediction_of_its_own_features(spark):
    """The input gives other rows, in another order, each time it is read."""
    rows = spark.range(0, 500, 1, 4).withColumn("features", F.rand())
    scored = KerasModel(doubling()).transform(rows.repartition(3).orderBy(F.rand()))
    found = scored.select("id", "features", "prediction").collect()
    assert {r.id for r in found} == set(range(500))
    np.testing.assert_allclose(
        [r.prediction for r in found], [2 * r.features for r in found], rtol=1e-6
    )


def test_streams_are_scored(spark, tmp_path):
    spark.range(10).withColumn("features", F.col("id").cast("double")).write.parquet(
        str(tmp_path / "in")
    )
    stream = spark.readStream.schema("id long, features double").parquet(str(tmp_path / "in"))
    scored = KerasModel(doubling()).transform(stream)
    assert scored.isStreaming
    query = (
        scored.writeStream.format("memory")
        .queryName("scored")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    assert query.awaitTermination(60)
    found = {r.id: r.prediction for r in spark.table("scored").collect()}
    assert found == {i: 2.0 * i for i in range(10)}


def summing(shape):
    """A model that sums a row of numbers weighted by their place."""
    inputs = keras.Input(shape)
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(flat))
    model.set_weights([np.arange(1.0, 5.0).reshape(4, 1)])
    return model


@pytest.mark.parametrize(
    ("shape", "column"),
    [
        ((4,), ["a", "b", "c", "d"]),
        ((4,), "features"),
        ((4,), "array(a, b, c, d)"),
        ((2, 2), "array(a, b, c, d)"),
        ((2, 2, 1), "array(array(a, b), array(c, d))"),
        ((4,), ["a", "pair", "d"]),
    ],
)
def test_features_may_be_columns_arrays_or_vectors(frame, shape, column):
    if "array" in column:
        frame, column = frame.withColumn("given", F.expr(column)), "given"
    frame = frame.filter("id < 20").withColumn("pair", F.array("b", "c"))
    rows = KerasModel(summing(shape), featuresCol=column).transform(frame).collect()
    expected = [r.a + 2 * r.b + 3 * r.c + 4 * r.d for r in rows]
    np.testing.assert_allclose([r.prediction for r in rows], expected, rtol=1e-4, atol=1e-4)


def test_sparse_and_dense_vectors_can_be_mixed_and_are_kept(spark):
    vectors = [Vectors.dense([1, 0, 0, 1]), Vectors.sparse(4, [1, 3], [2.0, 1.0])]
    rows = spark.createDataFrame([(v,) for v in vectors], ["features"]).coalesce(1)
    found = KerasModel(summing((4,))).transform(rows).collect()
    assert [r.prediction for r in found] == [5.0, 8.0]
    assert isinstance(found[1].features, SparseVector)


def test_a_model_may_have_several_inputs_and_outputs(frame):
    user, item = keras.Input((1,), name="user"), keras.Input((2,), name="item")
    both = keras.layers.Concatenate()([user, item])
    outputs = [keras.layers.Dense(1, name="score")(both), keras.layers.Dense(2, name="pair")(both)]
    model = keras.Model([user, item], outputs)
    model.compile("adam", ["mse", "mse"])
    stage = KerasEstimator(
        model,
        inputCols={"user": "a", "item": ["b", "c"]},
        labelCol={"score": "d", "pair": ["a", "b"]},
        predictionCol="p",
        epochs=1,
    )
    fitted = stage.fit(frame)
    rows = fitted.transform(frame.filter("id < 5")).collect()
    x = [np.array([[r.a] for r in rows]), np.array([[r.b, r.c] for r in rows])]
    score, pair = fitted.kerasModel.predict(x, verbose=0)
    np.testing.assert_allclose([r.p_score for r in rows], score[:, 0], atol=1e-5)
    np.testing.assert_allclose([r.p_pair for r in rows], pair, atol=1e-5)


def test_a_single_output_classifies_two_classes(frame):
    stage = KerasClassifier(
        classifier(1, None, keras.losses.BinaryCrossentropy(from_logits=True)),
        labelCol="sign",
        epochs=4,
        batchSize=16,
        seed=1,
    )
    model = Pipeline(stages=[VectorAssembler(inputCols=["a", "b"], outputCol="ab"), stage])
    narrow = stage.copy({stage.featuresCol: ["ab", "c", "d"]})
    fitted = model.setStages([model.getStages()[0], narrow]).fit(frame)
    scored = fitted.transform(frame)
    assert BinaryClassificationEvaluator(labelCol="sign").evaluate(scored) > 0.9
    assert fitted.stages[-1].numClasses == 2


def test_margins_of_a_hinge_loss_are_divided_at_zero(frame):
    stage = KerasClassifier(
        classifier(1, "tanh", "hinge"), labelCol="sign", epochs=4, batchSize=16, seed=1
    )
    fitted = stage.fit(frame)
    rows = fitted.transform(frame).collect()
    x = np.array([r.features.toArray() for r in rows])
    margin = fitted.kerasModel.predict(x, verbose=0)[:, 0].astype("f8")
    raw = np.array([r.rawPrediction.toArray() for r in rows])
    np.testing.assert_allclose(raw, np.stack([-margin, margin], 1), atol=1e-5)
    probability = np.array([r.probability.toArray()[1] for r in rows])
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-margin)), atol=1e-5)
    assert [r.prediction for r in rows] == (raw[:, 1] > 0).tolist()
    assert np.mean([r.prediction == r.sign for r in rows]) > 0.9


def test_a_classifier_predicts_several_labels_per_row(frame):
    labels = frame.withColumn(
        "label", F.array(F.col("sign"), (F.col("b") > 0).cast("int"), F.lit(1))
    )
    stage = KerasClassifier(classifier(3, "sigmoid", "binary_crossentropy"), epochs=4, batchSize=16)
    scored = stage.fit(labels).transform(labels)
    assert scored.schema["prediction"].dataType.simpleString() == "array<double>"
    numbers = F.filter(F.sequence(F.lit(0), F.lit(2)), lambda i: F.get("label", i) == 1)
    sets = scored.withColumn("label", numbers.cast("array<double>"))
    assert MultilabelClassificationEvaluator(metricName="f1Measure").evaluate(sets) > 0.8


def test_a_regressor_predicts_numbers_and_vectors(frame):
    def regressor(units):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
        model.compile(keras.optimizers.Adam(0.1), "mse")
        return model

    one = KerasRegressor(regressor(1), labelCol="a", epochs=4, batchSize=16).fit(frame)
    scored = one.transform(frame)
    assert RegressionEvaluator(labelCol="a", metricName="r2").evaluate(scored) > 0.5
    scored = KerasRegressor(regressor(2), labelCol=["a", "b"]).fit(frame).transform(frame)
    assert scored.schema["prediction"].dataType.simpleString() == "array<double>"


def test_validation_rows_and_sample_weights_come_from_columns(frame):
    marked = frame.withColumn("held", F.col("id") % 4 == 0).withColumn("w", F.lit(0.0))
    seen = []
    counter = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    stage = KerasClassifier(
        classifier(4, "softmax", "sparse_categorical_crossentropy"),
        validationIndicatorCol="held",
        weightCol="w",
        callbacks=[counter],
    )
    fitted = stage.fit(marked)
    assert {"val_loss", "val_accuracy"} <= set(fitted.history)
    assert fitted.history["loss"] == [0.0]
    assert seen == [0]
    for before, after in zip(
        stage.getModel().get_weights(), fitted.kerasModel.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_a_random_division_of_rows_is_drawn_once(spark):
    coin = F.udf(lambda: random.random() < 0.5, "boolean").asNondeterministic()
    frame = spark.range(200).withColumn("held", coin())
    with divided(frame, "held") as (train, held_out):
        parts = [sorted(row.id for row in part.collect()) for part in (train, held_out)]
        assert sorted(parts[0] + parts[1]) == list(range(200))
        assert all(parts)
        assert frame.is_cached
    assert not frame.is_cached


@pytest.mark.parametrize(
    ("loss", "kind", "label", "expected"),
    [
        ("sparse_categorical_crossentropy", "multiclass", "2", 2),
        ("sparse_categorical_crossentropy", "multiclass", "array(0, 0, 1)", 2.0),
        ("sparse_categorical_crossentropy", "multiclass", "vector", 1.0),
        ("sparse_categorical_crossentropy", "multiclass", "array(2)", 2.0),
        ("sparse_categorical_crossentropy", "multiclass", "array(0)", 0.0),
        ("sparse_categorical_crossentropy", "multiclass", "array(false, true, false)", 1.0),
        ("sparse_categorical_crossentropy", "multiclass", "vector of one", 2.0),
        ("categorical_crossentropy", "multiclass", "2.0d", [0, 0, 1]),
        ("categorical_crossentropy", "multiclass", "1", [0, 1, 0]),
        ("categorical_crossentropy", "multiclass", "true", [0, 1, 0]),
        ("mean_squared_error", "multiclass", "2", [0, 0, 1]),
        ("categorical_hinge", "multiclass", "array(0, 0, 1)", [0, 0, 1]),
        ("circle", "multiclass", "2", 2),
        ("", "multiclass", "2", 2),
        ("", "multilabel", "2", 2),
        ("categorical_crossentropy", "multiclass", "array(0, 0, 1)", [0, 0, 1]),
        ("binary_crossentropy", "binary", "1.0d", 1.0),
        ("binary_crossentropy", "binary", "array(0.0d, 1.0d)", 1.0),
        ("binary_crossentropy", "binary", "array(1.0d)", 1.0),
        ("binary_crossentropy", "binary", "array(0.0d)", 0.0),
        ("hinge", "binary", "array(1, -1)", -1),
        ("binary_crossentropy", "multilabel", "array(0.0d, 1.0d)", [0.0, 1.0]),
    ],
)
def test_labels_are_converted_to_the_form_that_the_loss_expects(spark, loss, kind, label, expected):
    vectors = {"vector": [0, 1, 0], "vector of one": [2]}
    if label in vectors:
        rows = spark.createDataFrame([(Vectors.dense(vectors[label]),)], ["label"])
    else:
        rows = spark.range(1).select(F.expr(label).alias("label"))
    facts = ClassifierFacts(kind, 3, False, loss)
    assert with_labels(rows, "label", facts).first().label == expected


def test_labels_that_are_not_classes_are_refused(frame):
    stage = KerasClassifier(classifier(3, "softmax", "categorical_crossentropy"))
    with pytest.raises(ValueError, match="class numbers from 0 to 2.*'label' with 3$"):
        stage.fit(frame.filter("label = 3"))
    stage.setLabelCol(["a", "b"])
    with pytest.raises(ValueError, match="`labelCol` must be one column for a classifier"):
        stage.fit(frame)


def test_a_single_number_is_refused_as_a_multilabel_label(spark):
    rows = spark.range(1).select(F.lit(1).alias("label"))
    facts = ClassifierFacts("multilabel", 3, False, "binary_crossentropy")
    with pytest.raises(ValueError, match="`labelCol` must be .* of 3 values, one 0 or 1 per label"):
        with_labels(rows, "label", facts)
    assert with_labels(rows, "label", replace(facts, own_step=True)).first().label == 1


@pytest.mark.parametrize(
    ("units", "loss", "label", "words"),
    [
        (4, "sparse_categorical_crossentropy", "array(0, 1)", "of 4 values.*with 2 values$"),
        (4, "sparse_categorical_crossentropy", "null", "of 4 values.*with null$"),
        (
            4,
            "sparse_categorical_crossentropy",
            "array(0, 0, 0, 0)",
            "OneHot.*4 values, none above 0$",
        ),
        (1, "binary_crossentropy", "array(0, 1, 0)", "of 1 or 2 values.*with 3 values$"),
        (
            1,
            "binary_crossentropy",
            "array(0, 0)",
            "of 2, one above 0.*with 2 values, none above 0$",
        ),
    ],
)
def test_labels_of_the_wrong_width_are_refused(frame, units, loss, label, words):
    stage = KerasClassifier(classifier(units, "sigmoid", loss))
    rows = frame.withColumn("label", F.expr(f"cast({label} as array<int>)"))
    with pytest.raises(ValueError, match=f"`labelCol` must be a column of .*{words}"):
        stage.fit(rows)


@pytest.mark.parametrize(("loss", "lowest"), [("mse", -1), ("binary_crossentropy", 0)])
def test_labels_that_are_no_classes_are_refused_for_one_output(frame, loss, lowest):
    stage = KerasClassifier(classifier(1, None, loss))
    rows = frame.withColumn("label", F.lit(3.7))
    words = f"numbers from {lowest} to 1 .*use `KerasRegressor`.*with 3.7$"
    with pytest.raises(ValueError, match=f"`labelCol` must be a column of {words}"):
        stage.fit(rows)


def test_transform_is_lazy(fitted, frame):
    broken = frame.withColumn("features", F.raise_error(F.lit("read")).cast("array<double>"))
    lazy = fitted.transform(broken)
    with pytest.raises(Exception, match="read"):
        lazy.collect()
