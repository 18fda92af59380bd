"""Server optimizers: rules that apply a merged or pushed delta to the global weights.

| rule | source | modes |
|---|---|---|
| `Average` (default) | FedAvg, McMahan 2017 | all |
| `SGD` | FedAvgM, Hsu 2019; DiLoCo, Douillard 2023 | all |
| `Adagrad`, `Adam`, `Yogi` | FedOpt, Reddi 2020 | synchronous, asynchronous |
| `KerasOptimizer` | FedOpt, Reddi 2020, with any optimizer of Keras | synchronous, asynchronous |
| `ElasticAverage` | EASGD and EAMSGD, Zhang 2015 | synchronous, asynchronous |
| `OneShot` | Zinkevich 2010, one average at the end | synchronous |
| `Downpour` | Dean 2012 | asynchronous, hogwild |
| `ADAG` | Hermans 2017 | asynchronous, hogwild |
| `StalenessAware` | Zhang 2015, Jiang 2017 | asynchronous |
| `Median`, `TrimmedMean` | Yin 2018 | synchronous |

A custom rule is a subclass of `ServerOptimizer` with one method, `apply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from kspark.errors import invalid, invalid_type
from kspark.optimizers.adag import ADAG
from kspark.optimizers.adagrad import Adagrad
from kspark.optimizers.adam import Adam
from kspark.optimizers.average import Average
from kspark.optimizers.base import MergeContext, ServerOptimizer, name_of, quoted
from kspark.optimizers.downpour import Downpour
from kspark.optimizers.elastic_average import ElasticAverage
from kspark.optimizers.keras_config import is_keras_config, is_keras_optimizer
from kspark.optimizers.keras_optimizer import KerasOptimizer
from kspark.optimizers.median import Median
from kspark.optimizers.one_shot import OneShot
from kspark.optimizers.scaled import ScaledDelta
from kspark.optimizers.sgd import SGD
from kspark.optimizers.staleness_aware import StalenessAware
from kspark.optimizers.trimmed_mean import TrimmedMean
from kspark.optimizers.yogi import Yogi

__all__ = [
    "ADAG",
    "SGD",
    "Adagrad",
    "Adam",
    "Average",
    "Downpour",
    "ElasticAverage",
    "KerasOptimizer",
    "Median",
    "MergeContext",
    "OneShot",
    "ScaledDelta",
    "ServerOptimizer",
    "StalenessAware",
    "TrimmedMean",
    "Yogi",
    "deserialize",
    "get",
    "register",
    "serialize",
]

Rule = TypeVar("Rule", bound=type[ServerOptimizer])

_rules: dict[str, type[ServerOptimizer]] = {}


def register(rule: Rule) -> Rule:
    """Register a rule by its name. It can be used as a class decorator.

    A class that is defined again, such as by a notebook cell that is run twice, replaces the
    earlier one.

    Example:

    ```python
    @kspark.optimizers.register
    class Signs(ServerOptimizer):
        def apply(self, weights, delta, context):
            weights += 0.01 * np.sign(delta)


    spark_model = SparkModel(model, server_optimizer="signs")
    ```

    Args:
        rule: Subclass of `ServerOptimizer`.

    Returns:
        The class.

    Raises:
        ValueError: If another class has this name.
    """
    known = _rules.get(_key(rule.__name__))
    if known is not None and _origin(known) != _origin(rule):
        raise invalid("rule", f"of another name than {known.__module__}.{known.__name__}", rule)
    _rules[_key(rule.__name__)] = rule
    return rule


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> ServerOptimizer:
    """Return the rule for an identifier.

    Example:

    ```python
    rule = kspark.optimizers.get("elastic_average")
    rule = kspark.optimizers.get({"class_name": "SGD", "config": {"momentum": 0.9}})
    ```

    Args:
        identifier: One of:
            - String, the name of a rule in any spelling, such as `"adam"`, `"ElasticAverage"` or
              `"elastic_average"`. Its arguments have their defaults.
            - Dictionary, a configuration that `serialize` returned.
            - `keras.optimizers.Optimizer`, or a configuration that `keras.optimizers.serialize`
              returned: the rule is `KerasOptimizer`.
            - Subclass of `ServerOptimizer`, which is created with its defaults.
            - `ServerOptimizer`, which is returned unchanged, with its state. `clone` returns one
              without state.
        custom_objects: Mapping from class name to class, for rules and Keras optimizers that are
            not registered, as for `deserialize`. Defaults to `None`.

    Returns:
        A `ServerOptimizer`.

    Raises:
        ValueError: If there is no rule with this name, or the Keras optimizer cannot be a rule.
        TypeError: If `identifier` has another type.
    """
    if isinstance(identifier, ServerOptimizer):
        return identifier
    if _is_rule(identifier):
        rule: ServerOptimizer = identifier()
        return rule
    if isinstance(identifier, str):
        return deserialize({"class_name": identifier}, custom_objects)
    if isinstance(identifier, Mapping):
        return deserialize(identifier, custom_objects)
    if is_keras_optimizer(identifier):
        return KerasOptimizer(identifier, custom_objects=custom_objects)
    accepted = (
        "a rule's name, its configuration, a `ServerOptimizer` or a subclass of it, or a "
        "`keras.optimizers.Optimizer`"
    )
    raise invalid_type("server_optimizer", accepted, identifier)


def serialize(rule: ServerOptimizer) -> dict[str, Any]:
    """Return a rule as a dictionary without state: `{"class_name": ..., "config": ...}`.

    Example:

    ```python
    config = kspark.optimizers.serialize(Adam(learning_rate=0.01))
    rule = kspark.optimizers.deserialize(config)
    ```

    Args:
        rule: `ServerOptimizer`.
    """
    return {"class_name": type(rule).__name__, "config": rule.get_config()}


def deserialize(
    config: Mapping[str, Any],
    custom_objects: Mapping[str, Any] | None = None,
) -> ServerOptimizer:
    """Create a rule from the dictionary that `serialize` returned.

    Example:

    ```python
    rule = kspark.optimizers.deserialize({"class_name": "Adam"})
    ```

    Args:
        config: Mapping with `"class_name"`, and `"config"` for arguments that differ from the
            defaults; or a configuration that `keras.optimizers.serialize` returned.
        custom_objects: Mapping from class name to class, for rules that are not registered. It
            takes precedence over registered rules. Other objects in it are ignored, except by
            Keras optimizers. Defaults to `None`.

    Returns:
        A new rule, without state.

    Raises:
        ValueError: If the mapping has other keys, or the rule is unknown.
        TypeError: If the rule has no such argument.
    """
    if is_keras_config(config):
        return KerasOptimizer(config, custom_objects=custom_objects)
    name = config.get("class_name")
    if not isinstance(name, str) or not set(config) <= {"class_name", "config"}:
        shape = '{"class_name": a rule\'s name, "config": its arguments}'
        raise invalid("server_optimizer", shape, dict(config))
    custom = {_key(n): rule for n, rule in (custom_objects or {}).items() if _is_rule(rule)}
    rules: dict[str, type[ServerOptimizer]] = {**_rules, **custom}
    if _key(name) not in rules:
        named = (name_of(rule) for rule in rules.values() if rule is not KerasOptimizer)
        known = f"one of {quoted(sorted(named))}, or a `keras.optimizers.Optimizer` object"
        raise invalid("server_optimizer", known, name)
    rule, settings = rules[_key(name)], config.get("config") or {}
    if rule is KerasOptimizer:
        return KerasOptimizer.from_config(settings, custom_objects)
    return rule.from_config(settings)


def _is_rule(value: Any) -> bool:
    """Whether a value is a subclass of `ServerOptimizer`."""
    return isinstance(value, type) and issubclass(value, ServerOptimizer)


def _key(name: str) -> str:
    """Return the key that all spellings of a name have in common."""
    return name.replace("_", "").lower()


def _origin(rule: type[ServerOptimizer]) -> tuple[str, str]:
    """Return the module and name of a class."""
    return rule.__module__, rule.__qualname__


for _rule in (
    ADAG,
    Adagrad,
    Adam,
    Average,
    Downpour,
    ElasticAverage,
    KerasOptimizer,
    Median,
    OneShot,
    SGD,
    StalenessAware,
    TrimmedMean,
    Yogi,
):
    register(_rule)
