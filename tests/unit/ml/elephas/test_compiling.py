"""What Elephas' Params give to `compile`, and what they refuse, by their own names."""

import json

import keras
import numpy as np
import pytest
from pyspark.ml.tuning import ParamGridBuilder

from kspark.ml import ElephasEstimator, load_ml_estimator

X, Y = np.random.default_rng(0).normal(size=(6, 4)), np.eye(3)[[0, 1, 2, 0, 1, 2]]


def gap(y, p):
    return keras.ops.mean(keras.ops.abs(y - p), axis=-1)


class Half(keras.metrics.Mean):
    def update_state(self, y, p, sample_weight=None):
        super().update_state(0.5 * keras.ops.ones_like(y[:, 0]))


@pytest.fixture
def stage(make):
    return ElephasEstimator(keras_model_config=make().to_json(), loss="categorical_crossentropy")


def results(stage):
    return stage._compiled().evaluate(X, Y, verbose=0, return_dict=True)


def test_metrics_of_all_kinds_are_plain_data(stage, tmp_path):
    given = ["mae", gap, Half(name="half"), keras.metrics.AUC(name="area", num_thresholds=5)]
    stage.set_metrics([*given, keras.losses.mean_squared_error])
    assert stage.get_metrics()[:2] == ["mae", "gap"]
    assert stage.get_metrics()[3]["config"]["num_thresholds"] == 5
    assert stage.get_metrics()[4] == "mean_squared_error"
    assert stage.get_custom_objects() == {"gap": gap, "Half": Half}
    json.dumps(stage.get_config())
    found = results(stage)
    assert set(found) == {"loss", "mae", "gap", "half", "area", "mean_squared_error"}
    assert (found["half"], found["gap"]) == (0.5, pytest.approx(found["mae"]))
    stage.save(str(tmp_path / "stage.h5"))
    loaded = load_ml_estimator(str(tmp_path / "stage.h5"), {"gap": gap, "Half": Half})
    assert loaded.get_metrics() == stage.get_metrics()
    assert set(results(loaded)) == set(found)


def test_metric_functions_become_custom_objects_however_they_are_set(stage, make):
    for other in (
        ElephasEstimator(metrics=[gap], custom_objects={"f": abs}),
        ElephasEstimator(custom_objects={"f": abs}).set_params(metrics=[[gap]]),
        ElephasEstimator(custom_objects={"f": abs}).set_metrics([gap]),
    ):
        assert other.get_custom_objects() == {"f": abs, "gap": gap}
    stage.set_custom_objects({"Half": Half, "gap": gap}).set_metrics(["Half", "gap"])
    found = results(stage)
    assert (set(found), found["mean"]) == ({"loss", "mean", "gap"}, 0.5)


def test_a_grid_over_metrics_is_plain_data(stage):
    (first,) = ParamGridBuilder().addGrid(stage.metrics, [[keras.metrics.AUC()]]).build()
    assert json.loads(json.dumps(first[stage.metrics]))[0]["class_name"] == "AUC"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("metrics", "acc", "`metrics` must be a list of metrics. Received: metrics='acc'"),
        ("metrics", [3], "`metrics` must be a list of names, .* Received: metrics=3"),
        ("metrics", [{"name": "a"}], "`metrics` must be a list of names"),
        ("metrics", [{"class_name": object()}], "`metrics` must be made of JSON data"),
        ("loss", 3, "`loss` must be a name or a function .* Received: loss=3"),
        ("loss", keras.losses.Huber(), "`loss` must be a name or a function"),
        ("optimizer_config", {"config": {}}, "`optimizer_config` must be .* class_name and config"),
        ("optimizer_config", {"class_name": "SGD"}, "`optimizer_config` must be .*class_name"),
        ("optimizer_config", 3, "`optimizer_config` must be a dictionary"),
        (
            "optimizer_config",
            {"class_name": "SGD", "config": {"learning_rate": np.float32(1)}},
            "`optimizer_config` must be made of JSON data",
        ),
        ("custom_objects", [gap], "`custom_objects` must be a dictionary"),
    ],
)
def test_invalid_values_are_refused_when_they_are_set(name, value, text):
    with pytest.raises((TypeError, ValueError), match=text):
        ElephasEstimator(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("metrics", ["accuracyy"], r"\(perhaps 'accuracy'\). Received: metrics='accuracyy'"),
        ("metrics", ["mae", ["gab"]], r"\(perhaps 'gap'\). Received: metrics='gab'"),
        ("metrics", [{"class_name": "AUK", "config": {}}], r"\(perhaps 'AUC'\)"),
        ("metrics", ["qqqqqq"], "named in `custom_objects`. Received: metrics='qqqqqq'"),
        ("loss", "categorical_crosentropy", r"\(perhaps 'categorical_crossentropy'\)"),
        ("optimizer_config", "adm", r"\(perhaps 'Adam'\). Received: optimizer_config='adm'"),
        (
            "optimizer_config",
            {"class_name": "Adm", "config": {}},
            r"\(perhaps 'Adam'\). Received: optimizer_config='Adm'",
        ),
        (
            "optimizer_config",
            {"class_name": "SGD", "config": {"momentum": 7}},
            "`keras.optimizers.serialize` returns it .*momentum",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_known_name(stage, name, value, text):
    stage.set_params(**{name: value, "custom_objects": {"gap": gap}})
    with pytest.raises(ValueError, match=f"`{name}` must be .*{text}"):
        stage._compiled()


def test_only_changed_parts_of_a_compiled_model_are_looked_up(make):
    """The name of the registered metric would not be found, and is not looked up."""

    @keras.saving.register_keras_serializable("test")
    class Third(Half):
        pass

    model = make(loss="categorical_crossentropy", metrics=[Third(name="third")])
    stage = ElephasEstimator(model).set_optimizer_config("sgd")
    assert set(results(stage)) == {"loss", "third"}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("no JSON", "`keras_model_config` must be set"),
        ("[]", "`keras_model_config` must be set"),
        (
            '{"class_name": "Dense", "config": {"units": 3}}',
            "`keras_model_config` must be the result",
        ),
        (
            '{"class_name": "Sequential", "config": {"layers": 3}}',
            "`keras_model_config` must be the r",
        ),
        (
            '{"class_name": "Mine", "config": {}}',
            "`custom_objects` must be .* 'Mine', which `keras_",
        ),
    ],
)
def test_an_invalid_model_config_is_refused(config, text):
    with pytest.raises(ValueError, match=text):
        ElephasEstimator(keras_model_config=config).get_model()
