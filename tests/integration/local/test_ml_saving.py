"""Stages, pipelines and tuners are saved and loaded, also by a new process."""

import json
import subprocess
import sys
import textwrap
from multiprocessing.pool import ThreadPool

import keras
import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.tuning import (
    CrossValidator,
    CrossValidatorModel,
    ParamGridBuilder,
    TrainValidationSplit,
    TrainValidationSplitModel,
)

from kspark.ml import (
    ElephasEstimator,
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
)

pytestmark = pytest.mark.usefixtures("spark")

PROGRAM = """
import json, sys
import keras
from pyspark.ml import PipelineModel
from kspark.session import local_session


class Shifted(keras.layers.Layer):
    def call(self, x):
        return x + 1.0


def shape_loss(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)


spark = local_session(cores=1)
model = PipelineModel.load(sys.argv[1])
rows = model.transform(spark.read.parquet(sys.argv[2])).orderBy("id").collect()
stage = model.stages[1]
print("FOUND", json.dumps({
    "prediction": [r.prediction for r in rows],
    "shares": [r.shares for r in rows],
    "params": {p.name: v for p, v in stage.extractParamMap().items()},
    "uid": stage.uid,
    "history": stage.history,
    "loss": stage.kerasModel.loss.__name__,
}))
"""


def shape_loss(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)


class Shifted(keras.layers.Layer):
    def call(self, x):
        return x + 1.0


def network(units=2, activation="softmax", loss="sparse_categorical_crossentropy", layer=None):
    keras.utils.set_random_seed(2)
    layers = [keras.Input((2,)), keras.layers.Dense(4, "relu"), layer]
    layers.append(keras.layers.Dense(units, activation))
    model = keras.Sequential([part for part in layers if part is not None])
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def frame(spark):
    x = np.random.default_rng(3).normal(size=(80, 2))
    rows = [(i, *map(float, r), float(r[0] > 0)) for i, r in enumerate(x)]
    return spark.createDataFrame(rows, ["id", "a", "b", "label"]).coalesce(2).cache()


@pytest.fixture(scope="module")
def assembler(spark):
    return VectorAssembler(inputCols=["a", "b"], outputCol="features")


@pytest.fixture(scope="module")
def pipeline(assembler):
    return Pipeline(stages=[assembler, KerasClassifier(network(), epochs=2, seed=4)])


@pytest.fixture(scope="module")
def fitted(pipeline, frame):
    return pipeline.fit(frame)


def values(stage):
    return {p.name: v for p, v in stage.extractParamMap().items()}


def predictions(model, frame):
    return {r.id: r.prediction for r in model.transform(frame).collect()}


def same_weights(left, right):
    for a, b in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_fitted_pipeline_can_be_saved_and_loaded(fitted, frame, tmp_path):
    path = str(tmp_path / "model")
    fitted.save(path)
    loaded = PipelineModel.load(path)
    stage, before = loaded.stages[-1], fitted.stages[-1]
    assert type(stage) is KerasClassificationModel
    assert (stage.uid, values(stage)) == (before.uid, values(before))
    assert (stage.history, stage.summary) == (before.history, before.summary)
    same_weights(stage.kerasModel, before.kerasModel)
    assert loaded.transform(frame).orderBy("id").collect() == (
        fitted.transform(frame).orderBy("id").collect()
    )


def test_the_model_is_a_keras_file_and_nothing_is_pickled(fitted, tmp_path):
    path = tmp_path / "model"
    fitted.stages[-1].save(str(path))
    model = keras.saving.load_model(path / "model.keras")
    same_weights(model, fitted.stages[-1].kerasModel)
    text = "".join(p.read_text() for p in (path / "metadata").glob("part-*"))
    assert json.loads(text)["class"] == "kspark.ml.KerasClassificationModel"
    assert len(text) < 4000


def test_a_loaded_unfitted_pipeline_fits_the_same(pipeline, fitted, frame, tmp_path):
    pipeline.save(str(tmp_path / "pipeline"))
    loaded = Pipeline.load(str(tmp_path / "pipeline"))
    stage, before = loaded.getStages()[-1], pipeline.getStages()[-1]
    assert (stage.uid, values(stage)) == (before.uid, values(before))
    again = loaded.fit(frame)
    same_weights(again.stages[-1].kerasModel, fitted.stages[-1].kerasModel)


def test_saving_twice_needs_overwrite(fitted, tmp_path):
    stage, path = fitted.stages[-1], str(tmp_path / "model")
    stage.save(path)
    with pytest.raises(Exception, match="(?i)already exists"):
        stage.save(path)
    stage.write().overwrite().save(path)
    with pytest.raises(ValueError, match="where a kspark.ml.KerasModel was saved, and not a"):
        KerasModel.load(path)


def test_callbacks_are_not_saved(tmp_path):
    path = str(tmp_path / "stage")
    stage = KerasEstimator(callbacks=[keras.callbacks.TerminateOnNaN()], epochs=3)
    stage.save(path)
    loaded = KerasEstimator.load(path)
    assert not loaded.isSet("callbacks")
    assert (loaded.getEpochs(), loaded.carried) == (3, None)


class Hidden(keras.layers.Layer):
    def call(self, x):
        return x


def test_missing_custom_objects_are_named_in_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Hidden, "__module__", "elsewhere")
    path = str(tmp_path / "stage")
    KerasEstimator(network(layer=Hidden())).save(path)
    with pytest.raises(ValueError, match="Hidden"):
        KerasEstimator.load(path)
    loaded = KerasEstimator.read().customObjects({"Hidden": Hidden}).load(path)
    assert type(loaded.getModel().layers[1]) is Hidden
    with keras.saving.custom_object_scope({"Hidden": Hidden}):
        assert type(KerasEstimator.load(path).getModel().layers[1]) is Hidden


class Backwards(keras.optimizers.SGD):
    """An optimizer of the server that is not registered with Keras."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(-gradient, variable, learning_rate)


def test_a_custom_optimizer_of_the_server_is_saved_with_a_stage(assembler, frame, tmp_path):
    path, objects = str(tmp_path / "stage"), {"Backwards": Backwards}
    stage = KerasEstimator(
        network(), customObjects=objects, serverOptimizer=Backwards(0.5), seed=4, shuffle=False
    )
    stage.save(path)
    loaded = KerasEstimator.read().customObjects(objects).load(path)
    assert values(loaded) == values(stage)
    rows = assembler.transform(frame)
    weights = [one.fit(rows).kerasModel for one in (stage, loaded)]
    same_weights(*weights)
    plain = stage.copy({stage.serverOptimizer: "average"}).fit(rows).kerasModel
    parts = (network().get_weights(), weights[0].get_weights(), plain.get_weights())
    for start, moved, averaged in zip(*parts, strict=True):
        np.testing.assert_allclose(moved - start, -0.5 * (averaged - start), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="`customObjects` must be a mapping that has .*'Backward"):
        KerasEstimator(network(), serverOptimizer=Backwards(0.5)).fit(rows)


class OwnLoss(keras.losses.Loss):
    def __init__(self, from_logits=True, **kwargs):
        super().__init__(**kwargs)
        self.from_logits = from_logits

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}

    def call(self, y, p):
        return keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True)


@pytest.fixture
def without_its_loss(assembler, frame, monkeypatch):
    """A pipeline's stages, estimator and fitted, whose loss cannot be imported any more."""
    monkeypatch.setattr(OwnLoss, "__module__", "elsewhere")
    model = network(3, None, OwnLoss())
    return Pipeline(stages=[assembler, KerasClassifier(model)]), PipelineModel(
        [assembler, KerasClassificationModel(model)]
    )


def test_a_fitted_pipeline_predicts_without_its_loss(without_its_loss, frame, tmp_path):
    _, fitted = without_its_loss
    path = str(tmp_path / "model")
    fitted.save(path)
    loaded = PipelineModel.load(path)
    assert not loaded.stages[-1].kerasModel.compiled
    assert loaded.transform(frame).orderBy("id").collect() == (
        fitted.transform(frame).orderBy("id").collect()
    )
    with keras.saving.custom_object_scope({"OwnLoss": OwnLoss}):
        stage = PipelineModel.load(path).stages[-1]
    assert type(stage.kerasModel.loss) is OwnLoss


def test_a_saved_stage_keeps_lora_factors(without_its_loss, tmp_path):
    for loss in ("mse", OwnLoss()):
        model = network(3, None, loss)
        model.layers[0].enable_lora(2)
        factor = model.layers[0].lora_kernel_b
        factor.assign(np.ones(factor.shape))
        path = str(tmp_path / str(loss != "mse"))
        KerasModel(model).save(path)
        loaded = KerasModel.load(path).kerasModel
        assert loaded.compiled is (loss == "mse")
        for ours, theirs in zip(model.variables, loaded.variables, strict=True):
            np.testing.assert_array_equal(theirs.numpy(), ours.numpy())


def test_a_tuned_pipeline_predicts_without_its_loss(without_its_loss, frame, tmp_path):
    pipeline, fitted = without_its_loss
    search = CrossValidator(
        estimator=pipeline,
        estimatorParamMaps=[{}],
        evaluator=MulticlassClassificationEvaluator(),
    )
    model = search._copyValues(CrossValidatorModel(fitted, [0.5]))
    model.save(str(tmp_path / "model"))
    loaded = CrossValidatorModel.load(str(tmp_path / "model"))
    assert loaded.bestModel.stages[-1]._facts().logits
    estimator = loaded.getEstimator().getStages()[-1]
    for method in (lambda: estimator.fit(frame), lambda: estimator.save(str(tmp_path / "again"))):
        with pytest.raises(ValueError, match="not found: 'OwnLoss'. Load it by `KerasClassifier.r"):
            method()


def test_code_in_a_file_is_refused_unless_it_is_trusted(tmp_path):
    path = str(tmp_path / "stage")
    layer = keras.layers.Lambda(lambda x: x * 2, output_shape=(4,))
    KerasEstimator(network(layer=layer)).save(path)
    with pytest.raises(ValueError, match=r"without code .* `KerasEstimator\.read\(\)\.safe"):
        KerasEstimator.load(path)
    assert KerasEstimator.read().safeMode(False).load(path).getModel() is not None


def test_custom_objects_of_a_main_program_load_in_a_new_process(assembler, frame, tmp_path):
    """The pipeline uses parts of `__main__`, and another program that defines them loads it.

    It includes an Elephas stage, and the rows come from a columnar file.
    """
    main = sys.modules["__main__"]
    for part in (Shifted, shape_loss):
        part.__module__ = "__main__"
        setattr(main, part.__name__, part)
    stage = KerasEstimator(network(1, None, shape_loss, Shifted()), epochs=1)
    of_elephas = ElephasEstimator(
        network(loss="categorical_crossentropy"), nb_classes=2, epochs=1, outputCol="shares"
    )
    model = Pipeline(stages=[assembler, stage, of_elephas]).fit(frame)
    model.save(str(tmp_path / "model"))
    frame.write.parquet(str(tmp_path / "rows"))
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "model"), str(tmp_path / "rows")],
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, run.stderr[-3000:]
    found = json.loads(lines[0].removeprefix("FOUND "))
    expected = predictions(model, frame)
    np.testing.assert_allclose(found["prediction"], [expected[i] for i in range(80)], rtol=1e-6)
    shares = [row.shares for row in model.transform(frame).orderBy("id").collect()]
    np.testing.assert_allclose(found["shares"], shares, rtol=1e-6)
    fitted = model.stages[1]
    assert (found["uid"], found["params"]) == (fitted.uid, values(fitted))
    assert found["history"] == fitted.history
    assert found["loss"] == "shape_loss"


def test_concurrent_fits_do_not_affect_each_other(pipeline, fitted, frame):
    with ThreadPool(2) as pool:
        both = pool.map(lambda _: pipeline.fit(frame), range(2))
    for model in both:
        same_weights(model.stages[-1].kerasModel, fitted.stages[-1].kerasModel)


def test_a_cross_validation_can_be_saved_and_loaded(pipeline, frame, tmp_path):
    stage = pipeline.getStages()[-1]
    search = CrossValidator(
        estimator=pipeline,
        estimatorParamMaps=ParamGridBuilder().addGrid(stage.epochs, [1, 2]).build(),
        evaluator=MulticlassClassificationEvaluator(metricName="logLoss"),
        numFolds=2,
        parallelism=2,
        seed=1,
    )
    model = search.fit(frame)
    assert model.avgMetrics[1] < model.avgMetrics[0]
    assert model.bestModel.stages[-1].summary.totalIterations == 2
    search.save(str(tmp_path / "search"))
    again = CrossValidator.load(str(tmp_path / "search"))
    assert [list(m.values()) for m in again.getEstimatorParamMaps()] == [[1], [2]]
    model.save(str(tmp_path / "model"))
    loaded = CrossValidatorModel.load(str(tmp_path / "model"))
    assert loaded.avgMetrics == model.avgMetrics
    assert predictions(loaded, frame) == predictions(model, frame)


def test_a_train_validation_split_can_be_saved_and_loaded(pipeline, fitted, frame, tmp_path):
    stage = pipeline.getStages()[-1]
    search = TrainValidationSplit(
        estimator=pipeline,
        estimatorParamMaps=[{stage.batchSize: 8}],
        evaluator=MulticlassClassificationEvaluator(),
    )
    search.save(str(tmp_path / "search"))
    loaded = TrainValidationSplit.load(str(tmp_path / "search"))
    assert list(loaded.getEstimatorParamMaps()[0].values()) == [8]
    model = search._copyValues(TrainValidationSplitModel(fitted, [0.5]))
    model.save(str(tmp_path / "model"))
    loaded = TrainValidationSplitModel.load(str(tmp_path / "model"))
    assert predictions(loaded, frame) == predictions(fitted, frame)
