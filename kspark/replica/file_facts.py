"""`FileFacts`: what Keras' model files leave out, as data that a file can hold without pickles.

`kspark.replica.differences` tells what a copy lacks. Here it becomes JSON data and arrays, which
`kspark.saving` writes beside the model. What is code, such as a lambda with global names, cannot
be saved; a warning names it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import invalid
from kspark.replica import custom_objects as custom
from kspark.replica import pickling
from kspark.replica.comparing import changed_attributes, differ, is_part, untouched_randomness
from kspark.replica.compile_arguments import compile_arguments
from kspark.replica.compiled import compiles_itself
from kspark.replica.compiled_variables import used_globals
from kspark.replica.differences import (
    Address,
    different_attributes,
    different_values,
    named,
    paired_layers,
)
from kspark.replica.model_bytes import REBUILD_ERRORS, policy_of, read_config, rebuilt, saved
from kspark.replica.model_spec import check_variables
from kspark.replica.optimizer import OptimizerSpec
from kspark.replica.variables import in_order, values_of

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("kspark")

PREFIX = "model/"
"""Prefix of the names of all arrays."""

VARIABLE, OPTIMIZER = f"{PREFIX}variables/", f"{PREFIX}optimizer/"
"""Prefixes of the names of arrays: values of variables, and of the optimizer's variables."""

FLAGS = frozenset({"trainable", "constraint", "regularizer"})
"""Attributes of layers and variables that are properties."""


@dataclass(frozen=True)
class FileFacts:
    """What a model's file leaves out.

    Attributes:
        data: Dictionary of JSON data: `"attributes"`, a list of address, name and value;
            `"compiled"`, the same for losses and metrics, with addresses in the arguments of
            `compile`;
            `"compile"`, a compile configuration that the model's class does not restore;
            `"optimizer"`, configuration and exclusions of an optimizer that the file does not
            restore. Empty if the file restores the model completely.
        arrays: Dictionary from name to array.
    """

    data: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> FileFacts:
        """Compare a model with what its file would restore.

        Builds the optimizer of a compiled model if necessary, and brings the configurations of
        lookup layers up to date with their vocabularies; changes nothing else. Logs a warning
        for each attribute that cannot be saved.

        Args:
            model: `keras.Model`. Nothing is left out of one that is not built.
            custom_objects: Mapping from names to objects. Defaults to `None`.
        """
        if not model.built:
            return cls()
        try:
            return cls._of(model, custom_objects)
        except (NotImplementedError, *REBUILD_ERRORS) as error:
            logger.warning("What Keras' file of %r leaves out is not saved: %s", model.name, error)
            return cls()

    @classmethod
    def _of(cls, model: keras.Model, custom_objects: Mapping[str, Any] | None) -> FileFacts:
        model_bytes = saved(model)
        objects = custom.collect(model, read_config(model_bytes), custom_objects)
        with untouched_randomness():
            copy = rebuilt(model_bytes, policy_of(model), objects)
            check_variables(model, copy)
            found = list(different_attributes(model, copy))
            attributes = list(as_data(found))
            arrays = {f"{VARIABLE}{i}": value for i, value in different_values(model, copy)}
        data: dict[str, Any] = {"attributes": attributes} if attributes else {}
        if model.compiled and model.optimizer is not None:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            lost = list(as_data(compiled_attributes(model, objects)))
            data |= {"compiled": lost} if lost else {}
            compiled = compilation_data(model, frozen=any(a[1] == "trainable" for a in attributes))
            if compiled:
                states = enumerate(values_of(model.optimizer.variables))
                arrays |= {f"{OPTIMIZER}{i}": value for i, value in states}
            data |= compiled
        return cls(data, arrays)

    @classmethod
    def loaded(
        cls, data: dict[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> tuple[FileFacts, dict[str, np.ndarray]]:
        """Return the facts of a loaded file, and the arrays that belong to others."""
        own = {name: array for name, array in arrays.items() if name.startswith(PREFIX)}
        return cls(data, own), {name: a for name, a in arrays.items() if name not in own}

    def apply(
        self, model: keras.Model, custom_objects: Mapping[str, Any], *, safe_mode: bool = True
    ) -> None:
        """Make a loaded model equal to the saved one.

        Args:
            model: `keras.Model`, loaded from the file.
            custom_objects: Mapping from names to objects.
            safe_mode: Boolean, whether to refuse code in the compile configuration. Defaults to
                `True`.
        """
        import keras

        parts = {address: part for address, part, _ in paired_layers(model, model)}
        variables = in_order(model, model.variables)
        parts |= {("variables", i): variable for i, variable in enumerate(variables)}
        for address, name, value in self.data.get("attributes", []):
            set_attribute(parts.get(tuple(address)), name, value)
        for name, value in self.arrays.items():
            if name.startswith(VARIABLE):
                variables[int(name.removeprefix(VARIABLE))].assign(value)
        with keras.saving.custom_object_scope(dict(custom_objects)):
            if "compile" in self.data:
                config = {**self.data["compile"], "optimizer": None}
                arguments = keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
                keras.Model.compile(model, **arguments)
            if "optimizer" in self.data:
                self._set_optimizer(model, custom_objects)
        for address, name, value in self.data.get("compiled", []):
            set_attribute(item_at(compile_arguments(model), address), name, value)

    def _set_optimizer(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> None:
        """Give the model its optimizer, with its state."""
        saved_as = self.data["optimizer"]
        count = sum(name.startswith(OPTIMIZER) for name in self.arrays)
        spec = OptimizerSpec(
            json.dumps(saved_as["config"]),
            pickling.dump({"learning_rates": {}}),
            tuple(saved_as["excluded"]),
            tuple(saved_as["numbers"]),
            tuple(saved_as.get("order", range(len(model.trainable_variables)))),
            tuple(self.arrays[f"{OPTIMIZER}{i}"] for i in range(count)),
        )
        model.optimizer = spec.make(custom_objects)
        spec.build(model)
        spec.set_state(model)


def set_attribute(part: Any, name: str, value: Any) -> None:
    """Set an attribute that a file names, if it is one of a layer, variable, loss or metric.

    Raises:
        ValueError: If it is not, so that the file is damaged or was not written by kspark.
    """
    known = part is not None and (name in FLAGS or not hasattr(type(part), name))
    if not known or name.startswith("__"):
        rule = "a file that is whole and was written by kspark; this one names an unknown attribute"
        raise invalid("path", rule, name)
    setattr(part, name, value)


def item_at(arguments: Any, address: Iterable[Any]) -> Any:
    """Return the loss or metric at an address in nested lists and mappings, or `None`."""
    found = arguments
    for step in address:
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list | tuple) and isinstance(step, int) and step < len(found):
            found = found[step]
        else:
            return None
    return found if is_part(found) else None


def as_data(found: Iterable[tuple[Any, str, Any]]) -> Iterator[list[Any]]:
    """Yield the attributes whose values are JSON data, and warn of the others."""
    for address, name, value in found:
        if is_saved_lambda(value):
            continue
        value = value.item() if isinstance(value, np.generic) else value
        if not is_json(value):
            logger.warning(
                "`%s` is not saved: a file has no place for %s. Write a complete `get_config`, "
                "or set it again after loading.",
                named(address, name),
                type(value).__name__,
            )
            continue
        yield [list(address), name, value]


def is_saved_lambda(value: Any) -> bool:
    """Whether a value is a lambda that Keras' files contain completely."""
    is_lambda = isinstance(value, FunctionType) and value.__name__ == "<lambda>"
    return is_lambda and not used_globals(value)


def is_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it is."""
    try:
        return not differ(value, json.loads(json.dumps(value)))
    except (TypeError, ValueError):
        return False


def compiled_attributes(
    model: keras.Model, custom_objects: Mapping[str, Any]
) -> Iterator[tuple[Address, str, Any]]:
    """Yield address, name and value of each attribute of a loss or metric that a file loses.

    Logs a warning if no loss or metric can be rebuilt from the file at all.
    """
    import keras

    given = {**custom.collect(model, model.get_compile_config(), None), **custom_objects}
    try:
        with keras.saving.custom_object_scope(given):
            config = {**model.get_compile_config(), "optimizer": None}
            # Loading code is safe: the configuration comes from the model in this process.
            loaded = keras.saving.deserialize_keras_object(config, safe_mode=False)
    except (TypeError, ValueError) as error:
        logger.warning(
            "The loss or a metric of the model %r cannot be rebuilt from a file, because it has no "
            "complete `get_config`: %s",
            model.name,
            error,
        )
        return
    arguments = compile_arguments(model)
    for name in ("loss", "metrics", "weighted_metrics"):
        yield from lost_attributes((name,), arguments[name], loaded.get(name))


def lost_attributes(address: Address, ours: Any, theirs: Any) -> Iterator[tuple[Address, str, Any]]:
    """Yield the attributes that differ in nested lists and mappings of losses or metrics."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in ours.keys() & theirs.keys():
            yield from lost_attributes((*address, key), ours[key], theirs[key])
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from lost_attributes((*address, index), one, other)
    elif is_part(ours) and type(ours) is type(theirs):
        for name, value in changed_attributes(ours, theirs).items():
            yield address, name, value


def compilation_data(model: keras.Model, *, frozen: bool) -> dict[str, Any]:
    """Return what a model's file does not restore of its compilation.

    Args:
        model: A compiled `keras.Model` with a built optimizer.
        frozen: Boolean, whether the file does not tell which variables are trainable, so that it
            would restore an optimizer of other variables.
    """
    import keras

    own_compile = type(model).compile is not keras.Model.compile and not compiles_itself(model)
    scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    spec = OptimizerSpec.of(model)
    if not (spec.excluded or frozen or own_compile or scales):
        return {}
    data: dict[str, Any] = {
        "optimizer": {
            "config": keras.optimizers.serialize(model.optimizer),
            "excluded": list(spec.excluded),
            "numbers": list(spec.numbers),
            "order": list(spec.order),
        }
    }
    return data | ({"compile": model.get_compile_config()} if own_compile else {})
