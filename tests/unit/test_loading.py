"""What kspark is told is there again after saving and loading."""

from __future__ import annotations

import keras
import pytest

from kspark import SparkModel, load_spark_model
from kspark.loading import SAVED_ARGUMENTS


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
        {"straggler_timeout": 7.5},
        {"mode": "hogwild", "num_workers": 3, "seed": 4, "timeout": 5.0, "max_failures": 0},
    ],
)
@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_the_configuration_comes_back(tmp_path, given, extension):
    saved = SparkModel(compiled(), **given)
    path = str(tmp_path / f"model.{extension}")
    saved.save(path)
    config = saved.get_config()
    assert set(config) == SAVED_ARGUMENTS
    assert load_spark_model(path).get_config() == config
    for name, value in given.items():
        if name != "server_optimizer":
            assert config[name] == value


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("elastic_average", "whose replicas have moved already"),
        ("median", "made from the same weights"),
        ("trimmed_mean", "made from the same weights"),
    ],
)
def test_stragglers_are_refused_where_all_replicas_count(rule, told):
    expected = f'`straggler_timeout` must be None with server_optimizer="{rule}", .*{told}'
    with pytest.raises(ValueError, match=expected):
        SparkModel(compiled(), server_optimizer=rule, straggler_timeout=1)
    with pytest.raises(ValueError, match="`straggler_timeout` must be None with mode="):
        SparkModel(compiled(), "asynchronous", straggler_timeout=1)


@pytest.mark.parametrize("mode", ["synchronous", "hogwild"])
def test_a_bound_of_the_staleness_is_refused_where_it_means_nothing(mode):
    with pytest.raises(ValueError, match="`max_staleness` must be None with mode="):
        SparkModel(compiled(), mode, max_staleness=1)
