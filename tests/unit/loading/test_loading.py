"""Loading restores the class and the configuration of a saved `SparkModel`."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from kspark import SparkModel, load_spark_model, optimizers
from kspark.mllib import SparkMLlibModel
from kspark.plan.settings import SETTINGS

ELEPHAS = Path(__file__).parents[2] / "fixtures" / "elephas"


def compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mode": "asynchronous", "frequency": 3, "max_staleness": 0, "port": (4000, 4010)},
        {"mode": "asynchronous", "server_optimizer": "elastic_average", "max_staleness": 5},
        {"server_optimizer": keras.optimizers.AdamW(0.5, clipnorm=1.0)},
        {"straggler_timeout": 7.5},
        {"mode": "hogwild", "num_workers": 3, "seed": 4, "timeout": 5.0, "max_failures": 0},
    ],
)
@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_loading_restores_the_configuration(tmp_path, given, extension):
    saved = SparkModel(compiled(), **given)
    path = str(tmp_path / f"model.{extension}")
    saved.save(path)
    config = saved.get_config()
    assert set(config) == set(SETTINGS)
    assert load_spark_model(path).get_config() == config
    for name, value in given.items():
        if name != "server_optimizer":
            assert config[name] == value


class Halved(optimizers.ServerOptimizer):
    """A rule that is not registered."""

    def apply(self, weights, delta, context):
        weights += delta / 2


def test_a_custom_rule_is_loaded_with_custom_objects(tmp_path):
    path = str(tmp_path / "model.keras")
    SparkModel(compiled(), server_optimizer=Halved()).save(path)
    loaded = load_spark_model(path, custom_objects={"Halved": Halved})
    assert type(loaded.server_optimizer) is Halved
    with pytest.raises(ValueError, match="`server_optimizer` must be one of .*Received: .*Halved"):
        load_spark_model(path)


def test_the_state_of_a_rule_may_have_the_name_of_an_argument(tmp_path):
    path = str(tmp_path / "model.keras")
    saved = SparkModel(compiled(), preprocess=keras.layers.Rescaling(3.0))
    saved._outcome.server_state = {"preprocess": np.arange(3.0)}
    saved.save(path)
    loaded = load_spark_model(path)
    assert loaded.preprocess.scale == 3
    assert loaded._outcome.server_state.keys() == {"preprocess"}
    assert loaded._outcome.server_state["preprocess"].tolist() == [0, 1, 2]
    for name in ("kspark/steps/preprocess", "model/variables/0"):
        saved._outcome.server_state = {name: np.zeros(1)}
        with pytest.raises(ValueError, match="`server_optimizer` must be one whose state has no"):
            saved.save(path)


class Backwards(keras.optimizers.SGD):
    """An optimizer that is not registered with Keras."""


def test_a_custom_optimizer_of_the_server_is_loaded_with_custom_objects(tmp_path):
    path = str(tmp_path / "model.keras")
    saved = SparkModel(compiled(), server_optimizer=Backwards(0.5))
    saved.save(path)
    loaded = load_spark_model(path, custom_objects={"Backwards": Backwards})
    assert loaded.get_config() == saved.get_config()
    with pytest.raises(ValueError, match="`custom_objects` must be .*'Backwards'"):
        load_spark_model(path)


@pytest.mark.parametrize("kind", [SparkModel, SparkMLlibModel])
@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_loading_restores_the_class(tmp_path, kind, extension):
    path = str(tmp_path / f"model.{extension}")
    saved = kind(compiled(), num_workers=3, batch_size=8)
    saved.save(path)
    loaded = load_spark_model(path)
    assert type(loaded) is kind
    assert loaded.get_config() == saved.get_config()
    saved.save(path)
    with pytest.raises(FileExistsError):
        saved.save(path, overwrite=False)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("v7_sync", SparkModel, ("synchronous", "epoch", 2, 16)),
        ("v7_async", SparkModel, ("hogwild", "batch", None, 32)),
        ("v7_mllib", SparkMLlibModel, ("synchronous", "epoch", 3, 32)),
        ("v6_async", SparkModel, ("asynchronous", "batch", None, 64)),
        ("v6_mllib", SparkMLlibModel, ("synchronous", "epoch", 3, 32)),
    ],
)
def test_files_of_elephas_load_as_the_class_that_was_saved(name, kind, told):
    loaded = load_spark_model(str(ELEPHAS / f"{name}.h5"))
    assert type(loaded) is kind
    assert (loaded.mode, loaded.frequency, loaded.num_workers, loaded.batch_size) == told
