"""Errors of stages on a DataFrame name the stages' Params."""

import keras
import pytest
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import functions as F

from kspark.ml import ElephasEstimator, KerasEstimator, KerasModel


def network(units=1, loss="mse", activation=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation)])
    model.compile("adam", loss)
    return model


@pytest.fixture(scope="module")
def frame(spark):
    rows = [([float(i), 1.0 - i], float(i % 3), i % 2) for i in range(12)]
    return spark.createDataFrame(rows, ["features", "label", "part"])


def early():
    return [keras.callbacks.EarlyStopping()]


@pytest.mark.parametrize("value", [early(), early])
def test_a_grid_over_callbacks_cannot_be_saved(frame, tmp_path, value):
    stage = KerasEstimator(network())
    validator = CrossValidator(
        estimator=stage,
        estimatorParamMaps=ParamGridBuilder().addGrid(stage.callbacks, [value]).build(),
        evaluator=RegressionEvaluator(),
    )
    with pytest.raises(ValueError, match="`callbacks` must be left out of a grid that is saved"):
        validator.write().save(str(tmp_path / "grid"))


def same(batch):
    return batch["features"]


def test_a_grid_over_functions_is_saved_by_their_names(frame, tmp_path):
    stage = KerasEstimator(network())

    def validator(name, value):
        grid = ParamGridBuilder().addGrid(stage.getParam(name), [value]).build()
        return CrossValidator(
            estimator=stage, estimatorParamMaps=grid, evaluator=RegressionEvaluator()
        )

    for name in ("preprocess", "augment"):
        for value in (same, keras.layers.Rescaling(2.0)):
            with pytest.raises(ValueError, match=f'`{name}` must be the import name "module:name"'):
                validator(name, value).write().save(str(tmp_path / "refused"))
        path = str(tmp_path / name)
        validator(name, "numpy:abs").write().save(path)
        (found,) = CrossValidator.load(path).getEstimatorParamMaps()
        assert list(found.values()) == ["numpy:abs"]
    assert stage.setPreprocess(same).getPreprocess() is same


def test_the_validation_indicator_must_be_boolean(frame):
    stage = KerasEstimator(network(), validationIndicatorCol="part")
    text = "`validationIndicatorCol` must be a column of booleans.*'part: bigint'"
    with pytest.raises(ValueError, match=text):
        stage.fit(frame)
    fitted = stage.fit(frame.withColumn("part", F.col("part") == 1))
    assert "val_loss" in fitted.history


def test_errors_of_a_fit_name_params(frame):
    many = network(3, "sparse_categorical_crossentropy", "softmax")
    with pytest.raises(ValueError, match="`labelCol` must be class numbers.*: labels that are"):
        KerasEstimator(many).fit(frame.withColumn("label", F.col("label") + 1))
    with pytest.raises(ValueError, match="`dataset` must be .*at least one"):
        KerasEstimator(network()).fit(frame.limit(0))
    with pytest.raises(ValueError, match="`validationSplit` must be.*Received: validationSplit="):
        KerasEstimator(network(), validationSplit=0.01, numWorkers=1).fit(frame.limit(1))
    inputs = {name: keras.Input((2,), name=name) for name in "ab"}
    two = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Add()(list(inputs.values()))))
    two.compile("adam", "mse")
    with pytest.raises(ValueError, match="`featuresCol` must be .* 2 columns"):
        KerasEstimator(two).fit(frame)
    with pytest.raises(ValueError, match="`featuresCol` must be .* 2 columns"):
        KerasModel(two).transform(frame)
    with pytest.raises(ValueError, match="`featuresCol` must be .* 2 columns"):
        KerasModel(two).asUDF("two")


def test_errors_of_elephas_stages_name_their_params(frame):
    stage = ElephasEstimator(network(), categorical=False, num_workers=1, epochs=1)
    with pytest.raises(ValueError, match="`validation_split` must be.*: validation_split="):
        stage.copy().set_validation_split(0.01).fit(frame.limit(1))
    fitted = stage.fit(frame)
    with pytest.raises(ValueError, match="`outputCol` must be .*Received: outputCol='LABEL'"):
        fitted.copy({fitted.outputCol: "LABEL"}).transform(frame)
    many = network(3, "sparse_categorical_crossentropy", "softmax")
    stage = ElephasEstimator(many, num_workers=1, epochs=1)
    with pytest.raises(ValueError, match="`labelCol` must be class numbers.*: labels that are"):
        stage.fit(frame.withColumn("label", F.col("label") + 1))
