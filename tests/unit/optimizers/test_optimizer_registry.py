from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from kspark import optimizers
from kspark.optimizers import Adam, Average, ElasticAverage, ServerOptimizer, StalenessAware

NAMES = [
    "adag",
    "adagrad",
    "adam",
    "average",
    "downpour",
    "elastic_average",
    "median",
    "one_shot",
    "sgd",
    "staleness_aware",
    "trimmed_mean",
    "yogi",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_is_found_by_its_name(name):
    rule = optimizers.get(name)
    assert rule.name == name
    assert type(rule) is getattr(optimizers, type(rule).__name__)


@pytest.mark.parametrize("name", ["ElasticAverage", "elastic_average", "elasticaverage"])
def test_a_name_may_be_spelt_in_any_way(name):
    assert type(optimizers.get(name)) is ElasticAverage


def test_get_creates_a_rule_of_a_class_and_returns_an_object_unchanged():
    rule = Adam(0.5)
    assert optimizers.get(rule) is rule
    assert type(optimizers.get(StalenessAware)) is StalenessAware


def test_a_rule_is_created_from_a_configuration():
    rule = optimizers.get({"class_name": "adam", "config": {"learning_rate": 0.5}})
    assert rule.get_config()["learning_rate"] == 0.5
    assert optimizers.get({"class_name": "Average"}).name == "average"


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_survives_json(name):
    rule = optimizers.get(name)
    again = optimizers.deserialize(json.loads(json.dumps(optimizers.serialize(rule))))
    assert (type(again), again.get_config()) == (type(rule), rule.get_config())


ADAPTIVE = {"epsilon": 1e-3, "initial_accumulator_value": None}
MOMENTS = {"learning_rate": 0.03, "beta_1": 0.9, "beta_2": 0.99, **ADAPTIVE}
DEFAULTS = {
    "adag": {"learning_rate": 1.0},
    "adagrad": {"learning_rate": 0.1, "beta_1": 0.0, **ADAPTIVE},
    "adam": {**MOMENTS, "bias_correction": False},
    "average": {},
    "downpour": {"learning_rate": 1.0},
    "elastic_average": {"rho": 0.9, "momentum": 0.0},
    "median": {},
    "one_shot": {},
    "sgd": {"learning_rate": 1.0, "momentum": 0.0, "nesterov": False},
    "staleness_aware": {"learning_rate": 1.0},
    "trimmed_mean": {"beta": 0.2},
    "yogi": MOMENTS,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_the_documented_ones(name):
    rule = optimizers.get(name)
    assert rule.get_config() == DEFAULTS[name]
    for argument, value in DEFAULTS[name].items():
        text = inspect.getdoc(type(rule)).split(f"\n    {argument}: ")[1]
        documented = text.split("Defaults to")[1]
        assert documented.split()[0].strip("`.:,") == str(value)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_in_the_configuration(name):
    """Each is set to a value of its own, and found again under its own name."""
    rule_class = type(optimizers.get(name))
    values = {}
    for i, (argument, parameter) in enumerate(inspect.signature(rule_class).parameters.items()):
        is_flag = isinstance(parameter.default, bool)
        values[argument] = True if is_flag else 0.3 + i / 64
    rule = rule_class(**values)
    assert rule.get_config() == values
    assert rule_class.from_config(rule.get_config()).get_config() == values


@pytest.mark.parametrize("wrong", [None, 3, np.ones(3), ["adam"], dict], ids=repr)
def test_a_value_that_is_not_a_rule_is_refused(wrong):
    with pytest.raises(TypeError, match="`server_optimizer` must be a rule's name"):
        optimizers.get(wrong)


def test_an_optimizer_of_keras_is_a_rule_but_its_class_is_not():
    import keras

    assert type(optimizers.get(keras.optimizers.SGD())) is optimizers.KerasOptimizer
    with pytest.raises(TypeError, match="`server_optimizer` must be .*keras.optimizers.Optimizer"):
        optimizers.get(keras.optimizers.SGD)


def test_an_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="`server_optimizer` must be one of") as refused:
        optimizers.get("adamm")
    assert all(f'"{name}"' in str(refused.value) for name in NAMES)
    assert "Received: server_optimizer='adamm'" in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"class_name": 3}, {"config": {}}, {"class_name": "adam", "learning_rate": 0.5}],
    ids=str,
)
def test_a_malformed_dictionary_is_refused(wrong):
    with pytest.raises(ValueError, match='`server_optimizer` must be {"class_name"'):
        optimizers.get(wrong)


def test_an_unknown_argument_is_named_in_the_error():
    with pytest.raises(TypeError, match="beta_3"):
        optimizers.get({"class_name": "adam", "config": {"beta_3": 0.5}})


def rule_class(name: str, origin: str) -> type[ServerOptimizer]:
    members = {"apply": Average.apply, "__module__": origin}
    return type(name, (ServerOptimizer,), members)


def test_a_registered_rule_is_found_by_name(monkeypatch):
    monkeypatch.setattr(optimizers, "_rules", dict(optimizers._rules))
    mine = rule_class("MyOwnRule", "notebook")
    assert optimizers.register(mine) is mine
    assert type(optimizers.get("my_own_rule")) is mine
    assert type(optimizers.deserialize(optimizers.serialize(mine()))) is mine


def test_registering_a_rule_again_replaces_it(monkeypatch):
    monkeypatch.setattr(optimizers, "_rules", dict(optimizers._rules))
    first, second = rule_class("MyOwnRule", "notebook"), rule_class("MyOwnRule", "notebook")
    optimizers.register(first)
    optimizers.register(second)
    assert type(optimizers.get("MyOwnRule")) is second


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="another name than kspark.optimizers.adam.Adam"):
        optimizers.register(rule_class("Adam", "notebook"))
    assert type(optimizers.get("adam")) is Adam


def test_custom_objects_take_precedence_and_other_classes_are_ignored():
    mine = rule_class("Adam", "notebook")
    objects = {"Adam": mine, "swish": abs, "Layer": dict}
    assert type(optimizers.deserialize({"class_name": "Adam"}, objects)) is mine
    assert type(optimizers.deserialize({"class_name": "average"}, objects)) is Average
    with pytest.raises(ValueError, match="`server_optimizer` must be one of"):
        optimizers.deserialize({"class_name": "swish"}, objects)


def test_all_is_sorted_and_its_names_exist():
    assert optimizers.__all__ == sorted(optimizers.__all__, key=lambda n: (not n.isupper(), n))
    assert all(hasattr(optimizers, name) for name in optimizers.__all__)
