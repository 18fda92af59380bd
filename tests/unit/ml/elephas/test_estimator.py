"""The Elephas-compatible stages: names, defaults, files; without Spark."""

import json
from inspect import signature

import keras
import numpy as np
import pytest

from kspark import ml
from kspark.ml import (
    ElephasEstimator,
    ElephasTransformer,
    LossModelTypeMapper,
    ModelType,
    load_ml_estimator,
)
from kspark.ml.elephas import estimator as elephas
from kspark.ml.elephas.estimator import model_type

MIXINS = [
    ("HasKerasModelConfig", "keras_model_config", None, "{}"),
    ("HasMode", "mode", "asynchronous", "hogwild"),
    ("HasFrequency", "frequency", "epoch", "batch"),
    ("HasNumberOfClasses", "nb_classes", 10, 3),
    ("HasCategoricalLabels", "categorical_labels", True, False),
    ("HasEpochs", "epochs", 10, 2),
    ("HasBatchSize", "batch_size", 32, 8),
    ("HasVerbosity", "verbosity", 0, 2),
    ("HasValidationSplit", "validation_split", 0.1, 0.0),
    ("HasNumberOfWorkers", "num_workers", 8, 2),
    ("HasKerasOptimizerConfig", "optimizer_config", None, {"class_name": "SGD", "config": {}}),
    ("HasMetrics", "metrics", ["acc"], ["mae"]),
    ("HasLoss", "loss", None, "mse"),
    ("HasCustomObjects", "custom_objects", {}, {"twice": abs}),
    ("HasInferenceBatchSize", "inference_batch_size", None, 4),
]

KEYWORDS = {
    "categorical_labels": "categorical",
    "verbosity": "verbose",
    "inference_batch_size": "batch_size",
}


@pytest.mark.parametrize(("mixin", "name", "default", "value"), MIXINS)
def test_mixins_work_on_their_own(mixin, name, default, value):
    stage = getattr(ml, mixin)()
    if mixin in ("HasKerasModelConfig", "HasLoss"):
        with pytest.raises(KeyError):
            getattr(stage, f"get_{name}")()
    else:
        assert getattr(stage, f"get_{name}")() == default
    put, keyword = getattr(stage, f"set_{name}"), KEYWORDS.get(name, name)
    assert put(value) is stage
    assert getattr(stage, f"get_{name}")() == value
    stage.clear(stage.params[0])
    assert put(**{keyword: value}) is stage
    assert getattr(stage, f"get_{name}")() == value
    assert list(signature(put).parameters) == [keyword]
    assert mixin in ml.__all__


@pytest.mark.parametrize(("mixin", "name", "default", "value"), MIXINS[:-1])
def test_the_estimator_has_the_setters_of_all_mixins(mixin, name, default, value):
    keyword = KEYWORDS.get(name, name)
    assert getattr(ElephasEstimator(), f"set_{name}")(**{keyword: value}).uid


def test_setters_take_one_value():
    for wrong in ({}, {"value": 3}, {"epochs": 3, "batch_size": 4}):
        with pytest.raises(TypeError, match="argument"):
            ml.HasEpochs().set_epochs(**wrong)
    with pytest.raises(TypeError, match="argument"):
        ml.HasEpochs().set_epochs(3, 4)


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="`mode` must be one of"):
        ElephasEstimator(mode="synchron")


def test_columns_have_the_defaults_of_elephas_and_deprecated_setters():
    stage = ElephasEstimator()
    assert (stage.getFeaturesCol(), stage.getLabelCol(), stage.getOutputCol()) == (
        *("features", "label", "prediction"),
    )
    transformer = ElephasTransformer()
    assert transformer.getOutputCol() == f"{transformer.uid}__output"
    for name in ("Features", "Label", "Output"):
        with pytest.warns(DeprecationWarning, match=f"`set{name}Col` is deprecated") as caught:
            getattr(stage, f"set{name}Col")("new")
        assert caught[0].filename == __file__
        assert getattr(stage, f"get{name}Col")() == "new"


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="'epoch'. Did you mean 'epochs'"):
        ElephasEstimator(epoch=3)
    with pytest.raises(TypeError, match="'batchsize'. Did you mean 'batch_size'"):
        ElephasEstimator().set_params(batchsize=3)


def test_the_configuration_has_the_keys_of_elephas(estimator):
    config = estimator.get_config()
    assert len(config) == 15
    assert (config["epochs"], config["categorical"], config["outputCol"]) == (3, True, "out")
    assert ElephasEstimator(**config).get_config() == config


def test_get_model_returns_a_new_model_that_is_not_compiled(estimator, model):
    found = estimator.get_model()
    assert [layer.name for layer in found.layers] == [layer.name for layer in model.layers]
    assert found is not estimator.get_model()
    assert not found.compiled
    with pytest.raises(ValueError, match="`keras_model_config` must be set"):
        ElephasEstimator().get_model()


def test_a_compiled_model_gives_loss_metrics_optimizer_and_weights(model):
    stage = ElephasEstimator(model, epochs=2)
    assert stage.get_loss() == "categorical_crossentropy"
    assert stage.get_metrics() == ["accuracy"]
    compiled = stage._compiled()
    assert type(compiled.optimizer) is keras.optimizers.Adam
    for a, b in zip(compiled.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def gap(y, p):
    return keras.ops.mean(keras.ops.abs(y - p), axis=-1)


@pytest.fixture
def smoothed(make):
    """A model compiled with what no name can tell."""
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.3)
    metrics = [keras.metrics.AUC(num_thresholds=20, name="area"), gap]
    return make(3, "softmax", loss, metrics=metrics, loss_weights=[2.0])


X, Y = np.random.default_rng(0).normal(size=(6, 4)), np.eye(3)[[0, 1, 2, 0, 1, 2]]


def same_results(found, expected):
    """Loss and metrics of two models on the same rows."""
    results = [m.evaluate(X, Y, verbose=0, return_dict=True) for m in (found, expected)]
    assert set(results[0]) == set(results[1]) == {"loss", "area", "gap"}
    np.testing.assert_allclose(list(results[0].values()), list(results[1].values()), rtol=1e-6)


def test_a_compiled_model_is_trained_as_it_was_compiled(smoothed, make):
    stage = ElephasEstimator(smoothed)
    same_results(stage._compiled(), smoothed)
    assert stage._compiled() is not smoothed
    assert stage.get_loss() == "CategoricalCrossentropy"
    assert stage.get_metrics() == ["AUC", "gap"]
    json.dumps(stage.get_config())
    assert ElephasEstimator(make(loss="mse")).get_metrics() == []
    with pytest.raises(TypeError, match="`model` must be a compiled `keras.Model`"):
        ElephasEstimator("model")


def test_a_later_setter_replaces_its_part_of_the_compiled_model(smoothed):
    stage = ElephasEstimator(smoothed).set_optimizer_config("sgd")
    same_results(stage._compiled(), smoothed)
    assert type(stage._compiled().optimizer) is keras.optimizers.SGD
    stage = ElephasEstimator(smoothed, loss="categorical_crossentropy", metrics=["mae"])
    plain = stage._compiled()
    found = plain.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(found) == {"loss", "mae"}
    expected = keras.losses.categorical_crossentropy(Y, smoothed.predict(X, verbose=0))
    assert found["loss"] == pytest.approx(2 * float(np.mean(expected)), rel=1e-5)
    assert type(plain.optimizer) is keras.optimizers.Adam


def test_a_later_architecture_replaces_the_compiled_model(smoothed, make):
    stage = ElephasEstimator(smoothed).set_keras_model_config(make(7).to_json())
    stage.set_loss("mse").set_metrics(["mae"])
    assert stage._compiled().output_shape == (None, 7)


def test_a_file_keeps_the_model_that_was_given(smoothed, tmp_path):
    path = str(tmp_path / "given.h5")
    ElephasEstimator(smoothed, epochs=3).save(path)
    loaded = load_ml_estimator(path, {"gap": gap})
    assert loaded.get_epochs() == 3
    same_results(loaded._compiled(), smoothed)
    with pytest.raises(ValueError, match="`custom_objects` must be .* 'gap'"):
        load_ml_estimator(path)


def test_the_optimizer_has_a_default_and_keeps_its_settings(estimator, make):
    estimator.set_optimizer_config(keras.optimizers.serialize(keras.optimizers.SGD(0.25)))
    assert float(estimator._compiled().optimizer.learning_rate) == 0.25
    estimator.set_optimizer_config({"class_name": "SGD", "config": {"lr": 0.5}})
    assert float(estimator._compiled().optimizer.learning_rate) == 0.5
    stage = ElephasEstimator(keras_model_config=make().to_json(), loss="mse")
    assert type(stage._compiled().optimizer) is keras.optimizers.RMSprop
    with pytest.raises(ValueError, match="`loss` must be set before `fit`"):
        ElephasEstimator(keras_model_config=make().to_json())._compiled()


def test_a_custom_loss_becomes_a_custom_object(make):
    def distance(y, p):
        return keras.ops.mean(keras.ops.abs(y - p), axis=-1)

    stage = ElephasEstimator(keras_model_config=make().to_json()).set_loss(distance)
    assert (stage.get_loss(), stage.get_custom_objects()) == ("distance", {"distance": distance})
    assert stage._compiled().loss == distance


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("mse", ModelType.REGRESSION),
        ("mean_squared_logarithmic_error", ModelType.REGRESSION),
        ("huber", ModelType.REGRESSION),
        (keras.losses.MeanAbsoluteError(), ModelType.REGRESSION),
        (keras.losses.Huber(), ModelType.REGRESSION),
        (keras.losses.mean_squared_error, ModelType.REGRESSION),
        ("binary_crossentropy", ModelType.CLASSIFICATION),
        (keras.losses.CategoricalCrossentropy(), ModelType.CLASSIFICATION),
        ("nobody_knows", None),
    ],
)
def test_the_loss_decides_the_model_type(loss, kind):
    assert LossModelTypeMapper().get_model_type(loss) is kind


def test_a_registered_loss_is_found_by_itself_and_by_its_name():
    def own_loss(y, p):
        return y - p

    LossModelTypeMapper().register_loss(own_loss, ModelType.REGRESSION)
    assert LossModelTypeMapper().get_model_type(own_loss) is ModelType.REGRESSION
    assert LossModelTypeMapper().get_model_type("own_loss") is ModelType.REGRESSION


def test_the_output_decides_the_model_type_of_an_unknown_loss(make):
    assert model_type("nobody_knows", make(1, None)) is ModelType.REGRESSION
    assert model_type("nobody_knows", make(3, "softmax")) is ModelType.CLASSIFICATION


@pytest.mark.parametrize(
    ("mode", "frequency", "workers"),
    [("synchronous", "epoch", 8), ("hogwild", "batch", 2), ("asynchronous", "epoch", 2)],
)
def test_params_are_passed_to_the_keras_estimator(
    estimator, monkeypatch, caplog, mode, frequency, workers, frame
):
    """A log message says when the number of workers is lowered to the free task slots."""
    asked = {}

    class Recorder:
        def __init__(self, model, **params):
            asked.update(params)
            raise InterruptedError

    monkeypatch.setattr(elephas, "KerasEstimator", Recorder)
    monkeypatch.setattr(elephas, "task_slots", lambda spark: 2)
    estimator.set_mode(mode).set_frequency(frequency).set_epochs(7).set_batch_size(5)
    estimator.set_validation_split(0.25).set_num_workers(8)
    with pytest.raises(InterruptedError):
        estimator.fit(frame)
    expected = {"mode": mode, "frequency": frequency, "numWorkers": workers}
    expected |= {"epochs": 7, "batchSize": 5, "validationSplit": 0.25}
    assert {name: asked[name] for name in expected} == expected
    assert ("training with 2 workers" in caplog.text) == (workers == 2)
