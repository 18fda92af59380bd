"""Keras optimizers as plain data, and new ones made from it.

Keras is imported inside of the functions, because tasks import this package before they know the
backend of Keras.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from kspark.errors import invalid

if TYPE_CHECKING:
    import keras

FUNCTIONS = ("function", "__lambda__")
"""How Keras' configurations name functions."""

REFUSED = {
    "use_ema": (
        "`use_ema`: workers train from the weights themselves, and never from an average of them"
    ),
    "gradient_accumulation_steps": (
        "`gradient_accumulation_steps`: workers would train from the same weights again; exchange "
        "less often by `frequency` instead"
    ),
    "loss_scale_factor": (
        "a loss scale: a delta is not the gradient of a scaled loss; leave out `loss_scale_factor` "
        "and `LossScaleOptimizer`"
    ),
}
"""Attributes of Keras optimizers that a rule for merged deltas cannot have, and the reasons."""


def is_keras_optimizer(value: Any) -> bool:
    """Whether a value is a `keras.optimizers.Optimizer`."""
    import keras

    return isinstance(value, keras.optimizers.Optimizer)


def is_keras_config(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is a configuration that `keras.optimizers.serialize` returned."""
    return {"class_name", "config", "registered_name"} <= set(value)


def config_of(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return the configuration of a Keras optimizer as plain data.

    Raises:
        ValueError: If the optimizer was built, so that it may have a state, or its configuration
            would lack variables that are excluded from weight decay.
    """
    import keras

    if optimizer.built:
        rule = (
            "a Keras optimizer that was not used before, because it gets variables of its own: "
            "make a new one by `type(optimizer).from_config(optimizer.get_config())`"
        )
        raise invalid("server_optimizer", rule, optimizer)
    for one in optimizers_in(optimizer):
        names, variables = undecayed(one)
        if variables or (names and one is not optimizer):
            rule = (
                "a Keras optimizer that excludes variables from weight decay by "
                "`exclude_from_weight_decay(var_names=...)`, and not by `var_list` or inside of a "
                "`MultiOptimizer`, because the weights of the server are variables of their own"
            )
            raise invalid("server_optimizer", rule, optimizer)
    config: dict[str, Any] = keras.saving.serialize_keras_object(optimizer)
    return config


def undecayed(optimizer: keras.optimizers.Optimizer) -> tuple[list[str], bool]:
    """Return what `exclude_from_weight_decay` excluded: names, and whether also variables.

    Keras has no public method for this. In Keras 3.12 to 3.15, an optimizer keeps the pattern of
    the names, and the keys of the variables, in two attributes.
    """
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    variables = getattr(optimizer, "_exclude_from_weight_decay", ())
    return ([] if pattern is None else [pattern.pattern]), bool(variables)


def exported(config: Any) -> Any:
    """Copy a configuration, with the public names of the optimizers of Keras.

    Some backends have classes of their own, such as that of `SGD` with torch. By the public name,
    every backend finds its class.
    """
    import keras

    if isinstance(config, list | tuple):
        return [exported(part) for part in config]
    if not isinstance(config, Mapping):
        return config
    copy = {name: exported(part) for name, part in config.items()}
    in_keras = str(copy.get("module")).startswith("keras.")
    if in_keras and hasattr(keras.optimizers, str(copy.get("class_name"))):
        copy.update(module="keras.optimizers", registered_name=None)
    return copy


def classes_of(part: Any) -> dict[str, type]:
    """Return the classes of an optimizer and its learning-rate schedules, by name.

    With them, Keras finds the user's own classes also if they are not registered.
    """
    import keras

    kinds = keras.optimizers.Optimizer | keras.optimizers.schedules.LearningRateSchedule
    found: dict[str, type] = {}
    for value in vars(part).values():
        if isinstance(value, kinds):
            found |= classes_of(value)
    own = type(part).__module__.split(".")[0] != "keras"
    return {**found, type(part).__name__: type(part)} if own else found


def make(
    config: Mapping[str, Any], undecayed_names: list[str], custom_objects: Mapping[str, Any]
) -> keras.optimizers.Optimizer:
    """Make a new Keras optimizer.

    Args:
        config: Mapping, a configuration that `keras.optimizers.serialize` returned.
        undecayed_names: List of strings, for `exclude_from_weight_decay(var_names=...)`.
        custom_objects: Mapping from names to classes that are not registered.

    Raises:
        ValueError: If the configuration is not that of an optimizer, or of one that cannot be a
            rule for merged deltas.
    """
    import keras

    missing = missing_classes(config, custom_objects)
    if missing:
        rule = (
            f"a mapping that has the class {missing[0]!r} of `server_optimizer`, unless that class "
            "is registered by `keras.saving.register_keras_serializable`"
        )
        raise invalid("custom_objects", rule, dict(custom_objects))
    if any(part["class_name"] in FUNCTIONS for part in parts_of(config)):
        rule = (
            "a Keras optimizer without functions, which cannot be saved: use a number or a "
            "`keras.optimizers.schedules.LearningRateSchedule` as its learning rate"
        )
        raise invalid("server_optimizer", rule, dict(config))
    try:
        optimizer = keras.saving.deserialize_keras_object(
            deepcopy(dict(config)), custom_objects=dict(custom_objects)
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        rule = f"an optimizer that Keras can make from its configuration ({error})"
        raise invalid("server_optimizer", rule, dict(config)) from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise invalid("server_optimizer", "the configuration of a Keras optimizer", dict(config))
    check_attributes(optimizer)
    if undecayed_names:
        optimizer.exclude_from_weight_decay(var_names=undecayed_names)
    return optimizer


def check_attributes(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuse an optimizer with one of the attributes in `REFUSED`.

    Raises:
        ValueError: If it has one.
    """
    import keras

    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    found = ["loss_scale_factor"] if scaled else []
    for one in optimizers_in(optimizer):
        found += [name for name in REFUSED if getattr(one, name, None)]
    if found:
        rule = f"a Keras optimizer without {REFUSED[found[0]]}"
        raise invalid("server_optimizer", rule, optimizer)


def optimizers_in(optimizer: Any) -> list[Any]:
    """Return an optimizer and, if it is a `MultiOptimizer`, the optimizers in it."""
    return [optimizer, *getattr(optimizer, "optimizers", ())]


def missing_classes(config: Any, custom_objects: Mapping[str, Any]) -> list[str]:
    """Return the names of the user's own classes that Keras would not find.

    Args:
        config: Mapping, a configuration of Keras.
        custom_objects: Mapping from names to classes.
    """
    import keras

    named = [
        part["registered_name"]
        for part in parts_of(config)
        if part.get("registered_name") and part["class_name"] not in FUNCTIONS
    ]
    objects = dict(custom_objects)
    return [name for name in named if not keras.saving.get_registered_object(name, objects)]


def parts_of(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the configurations of all objects in a configuration of Keras."""
    if isinstance(config, Mapping):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from parts_of(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from parts_of(value)
