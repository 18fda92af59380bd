"""Programs written for Elephas run with `kspark.ml` and `kspark.mllib` instead."""

import keras
import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.ml.tuning import TrainValidationSplit, TrainValidationSplitModel
from pyspark.mllib.linalg import Matrices, Vectors
from pyspark.sql import functions as F

from kspark.ml import (
    ElephasEstimator,
    ElephasTransformer,
    ModelType,
    df_to_simple_rdd,
    from_data_frame,
    load_ml_estimator,
    load_ml_transformer,
    to_data_frame,
)
from kspark.mllib import SparkMLlibModel, to_labeled_point

SIDE = 28


def images(spark, count, seed):
    """Bright bars at one of three heights, as rows of a DataFrame: pixels and a class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    x = random.random((count, SIDE, SIDE)) * 0.3
    for image, label in zip(x, labels, strict=True):
        image[9 * label : 9 * label + 9] += 0.6
    return to_data_frame(spark.sparkContext, x.reshape(count, -1), labels)


def network():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Conv2D(4, 5, strides=4, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def train_data(spark):
    return images(spark, 160, 1)


@pytest.fixture(scope="module")
def test_data(spark):
    return images(spark, 60, 2)


@pytest.fixture(scope="module")
def fitted(train_data):
    """The program that Elephas' users have."""
    model = network()
    estimator = ElephasEstimator()
    estimator.set_keras_model_config(model.to_json())
    estimator.set_optimizer_config(keras.optimizers.serialize(model.optimizer))
    estimator.set_loss("categorical_crossentropy")
    estimator.set_metrics(["accuracy"])
    estimator.set_epochs(10)
    estimator.set_batch_size(16)
    estimator.set_validation_split(0.1)
    estimator.set_num_workers(4)
    estimator.set_output_type("class")
    return Pipeline(stages=[estimator]).fit(train_data)


def test_an_elephas_program_reaches_its_accuracy(fitted, test_data):
    predictions = fitted.transform(test_data)
    assert predictions.columns == ["features", "label", "prediction"]
    evaluator = MulticlassClassificationEvaluator(
        labelCol="label", predictionCol="prediction", metricName="accuracy"
    )
    assert evaluator.evaluate(predictions) > 0.9


def test_probabilities_are_arrays(fitted, test_data):
    stage = fitted.stages[0].copy().set_output_type("probability")
    rows = stage.transform(test_data).withColumn(
        "best", F.expr("array_position(prediction, array_max(prediction)) - 1")
    )
    assert rows.schema["prediction"].dataType.simpleString() == "array<double>"
    found = rows.collect()
    assert {len(r.prediction) for r in found} == {10}
    expected = [r.prediction for r in fitted.transform(test_data).collect()]
    assert [r.best for r in found] == expected


def test_history_has_training_and_validation(fitted):
    (history,) = fitted.stages[0].history
    assert len(history["loss"]) == len(history["val_accuracy"]) == 10
    assert fitted.stages[0].model_type is ModelType.CLASSIFICATION


def test_a_fitted_pipeline_can_be_saved(fitted, test_data, tmp_path):
    fitted.save(str(tmp_path / "model"))
    loaded = PipelineModel.load(str(tmp_path / "model"))
    stage = loaded.stages[0]
    assert type(stage) is ElephasTransformer
    assert (stage.history, stage.model_type) == (
        fitted.stages[0].history,
        ModelType.CLASSIFICATION,
    )
    assert loaded.transform(test_data).collect() == fitted.transform(test_data).collect()


def test_an_unfitted_pipeline_can_be_saved(tmp_path):
    stage = ElephasEstimator(network(), epochs=2, custom_objects={"f": network})
    Pipeline(stages=[stage]).save(str(tmp_path / "pipeline"))
    (loaded,) = Pipeline.load(str(tmp_path / "pipeline")).getStages()
    assert loaded.get_config() == stage.get_config()
    assert loaded.get_optimizer_config() == stage.get_optimizer_config()


def values(stage):
    return {p.name: v for p, v in stage.extractParamMap().items()}


def test_a_tuner_and_its_model_can_be_saved_and_loaded(train_data, test_data, tmp_path):
    """Spark calls `save` of the inner estimator, and not `write`."""
    stage = ElephasEstimator(network(), num_workers=2, output_type="class")
    other = {"class_name": "SGD", "config": {}}
    search = TrainValidationSplit(
        estimator=stage,
        estimatorParamMaps=[{stage.epochs: 2, stage.optimizer_config: other}],
        evaluator=MulticlassClassificationEvaluator(metricName="accuracy"),
    )
    search.save(str(tmp_path / "search"))
    loaded = TrainValidationSplit.load(str(tmp_path / "search"))
    assert values(loaded.getEstimator()) == values(stage)
    (grid,) = loaded.getEstimatorParamMaps()
    assert {p.name: v for p, v in grid.items()} == {"epochs": 2, "optimizer_config": other}
    model = search.fit(train_data)
    model.save(str(tmp_path / "model"))
    loaded = TrainValidationSplitModel.load(str(tmp_path / "model"))
    assert values(loaded.getEstimator()) == values(stage)
    assert values(loaded.bestModel) == values(model.bestModel)
    assert loaded.transform(test_data).collect() == model.transform(test_data).collect()


class Shifted(keras.layers.Layer):
    def call(self, x):
        return x + 1.0


def test_custom_objects_are_restored_from_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(Shifted, "__module__", "elsewhere")
    model = keras.Sequential([keras.Input((2,)), Shifted(), keras.layers.Dense(1)])
    parts, objects = {"keras_model_config": model.to_json()}, {"Shifted": Shifted}
    estimator, transformer = str(tmp_path / "estimator"), str(tmp_path / "transformer")
    ElephasEstimator(**parts, epochs=3).save(estimator)
    weights = model.get_weights()
    ElephasTransformer(**parts, weights=weights, custom_objects=objects).save(transformer)
    for loaded in (
        ElephasEstimator.read().customObjects(objects).load(estimator),
        load_ml_estimator(estimator, objects),
        load_ml_transformer(transformer, objects),
    ):
        assert loaded.get_custom_objects() == objects
        assert type(loaded.get_model().layers[0]) is Shifted
    np.testing.assert_array_equal(loaded.weights[0], weights[0])
    assert load_ml_estimator(estimator).get_epochs() == 3


def test_nondeterministic_rows_keep_their_own_predictions(spark):
    """With some empty partitions, and a regression that predicts arrays of two numbers."""
    drawn = F.expr("double(reflect('java.lang.Math', 'random'))")
    frame = spark.range(0, 3, 1, 4).select(F.array(drawn, drawn).alias("features"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    stage = ElephasTransformer(
        keras_model_config=model.to_json(),
        weights=[np.array([[2.0, 0.0], [0.0, -3.0]])],
        model_type=ModelType.REGRESSION,
        outputCol="found",
    )
    scored = stage.transform(frame)
    assert scored.schema["found"].dataType.simpleString() == "array<double>"
    rows = scored.collect()
    assert len({tuple(row.features) for row in rows}) == 3
    expected = [[2.0 * row.features[0], -3.0 * row.features[1]] for row in rows]
    np.testing.assert_allclose([row.found for row in rows], expected, rtol=1e-6)


def test_regression_gives_doubles_and_does_not_truncate_labels(spark):
    x = np.random.default_rng(0).normal(size=(80, 2))
    frame = to_data_frame(spark.sparkContext, x, x[:, 0] * 0.5)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    stage = ElephasEstimator(
        keras_model_config=model.to_json(),
        optimizer_config=keras.optimizers.serialize(keras.optimizers.Adam(0.1)),
        loss="mae",
        categorical=False,
        mode="synchronous",
        frequency="batch",
        num_workers=1,
        batch_size=8,
        validation_split=0.0,
        outputCol="guess",
    )
    scored = stage.fit(frame).transform(frame)
    assert scored.schema["guess"].dataType.simpleString() == "double"
    evaluator = RegressionEvaluator(labelCol="label", predictionCol="guess", metricName="r2")
    assert evaluator.evaluate(scored) > 0.8
    _, labels = from_data_frame(frame)
    np.testing.assert_allclose(labels, x[:, 0] * 0.5)


def test_labels_out_of_range_are_refused(train_data):
    frame = train_data.withColumn("label", train_data["label"] * 5)
    with pytest.raises(ValueError, match="class numbers from 0 to 9.*'label' with 10.0"):
        ElephasEstimator(network()).fit(frame)


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"nb_classes": 2}, "`nb_classes` must be 10, the number of the model's outputs"),
        ({"categorical": False}, "`categorical` must be True for the loss 'categorical_cross"),
    ],
)
def test_labels_that_the_model_does_not_take_are_refused_by_the_param(train_data, params, rule):
    with pytest.raises(ValueError, match=rule):
        ElephasEstimator(network(), **params).fit(train_data)


def test_df_to_simple_rdd_gives_pairs_with_one_hot_labels(train_data):
    x, y = df_to_simple_rdd(train_data, categorical=True, nb_classes=3).first()
    assert (x.shape, y.shape, y.sum()) == ((SIDE * SIDE,), (3,), 1.0)


def test_mllib_models_train_and_predict(spark):
    x = np.random.default_rng(0).normal(size=(60, 2))
    points = to_labeled_point(spark.sparkContext, x, (x[:, 0] > 0).astype(float))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.1), "categorical_crossentropy", metrics=["accuracy"])
    mllib = SparkMLlibModel(model, num_workers=2, batch_size=8)
    history = mllib.train(points, epochs=3, categorical=True, nb_classes=3)
    assert len(history.history["loss"]) == len(history.history["val_loss"]) == 3
    expected = model.predict(x[:5], verbose=0)
    found = mllib.predict(Matrices.dense(5, 2, x[:5].ravel(order="F")))
    np.testing.assert_allclose(found.toArray(), expected, atol=1e-6)
    found = mllib.predict(Vectors.dense(x[0]))
    np.testing.assert_allclose(found.toArray(), expected[0], atol=1e-6)
    np.testing.assert_allclose(mllib.predict(x[:5]), expected, atol=1e-6)
