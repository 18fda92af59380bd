"""`Differences`: what distinguishes a model from the copy that Keras makes of it.

Keras saves a model as configurations and arrays. What a configuration leaves out would be lost
without a word: that a single variable is frozen, the factors of LoRA, arguments of the user's own
constraints and layers, lambdas with global names, the state of random number generators. So the
copy is compared with the original, and `Differences` carries over what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import Described, invalid
from kspark.replica import pickling
from kspark.replica.comparing import changed_attributes, differ, lost_methods
from kspark.replica.compiled import known_parts
from kspark.replica.variables import in_order, rng_variables, values_of

if TYPE_CHECKING:
    import keras

LORA_SCALE = "lora_alpha"
"""Attribute of Keras' layers that the configuration of some lacks, in Keras 3.12 to 3.15."""

Address = tuple[str | int, ...]
"""The names and positions that lead from a model to one of its parts."""


@dataclass(frozen=True)
class Differences:
    """What a copy of a model needs to become equal to the original.

    Attributes:
        attributes: Tuple of pairs of the address of a part and the name of an attribute.
        attribute_values: Bytes, the pickled values of these attributes.
        variables: Tuple of pairs of a position among the variables, `in_order`, and a value.
    """

    attributes: tuple[tuple[Address, str], ...] = ()
    attribute_values: bytes = field(default=b"", repr=False)
    variables: tuple[tuple[int, np.ndarray], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def between(cls, model: keras.Model, copy: keras.Model) -> Differences:
        """Compare a model with its copy, which has the same layers and variables.

        Raises:
            ValueError: If an attribute that differs cannot be pickled, or if a method was replaced
                on the model or a layer instead of in its class. The message names it.
        """
        check_methods(model, copy)
        found = list(different_attributes(model, copy))
        values = {named(address, name): value for address, name, value in found}
        return cls(
            tuple((address, name) for address, name, _ in found),
            pickling.dump(values, known_parts(model)) if found else b"",
            tuple(different_values(model, copy)),
        )

    def apply(self, copy: keras.Model) -> None:
        """Make a copy of the model equal to the original."""
        if self.attributes:
            values = pickling.load(self.attribute_values, known_parts(copy))
            for address, name in self.attributes:
                setattr(part_at(copy, address), name, values[named(address, name)])
        variables = in_order(copy, copy.variables)
        for index, value in self.variables:
            variables[index].assign(value)


def check_methods(model: keras.Model, copy: keras.Model) -> None:
    """Refuse a model that has other methods than its copy.

    Raises:
        ValueError: If a method was replaced on the model or a layer instead of in its class.
    """
    for _, ours, theirs in paired_layers(model, copy):
        for name in lost_methods(ours, theirs):
            kind = type(ours).__name__
            raise invalid(
                "model",
                "a model whose methods are those of its classes",
                Described(
                    f"the {kind} {ours.name!r} with a `{name}` of its own, which the copies on "
                    f"workers would not have. Write a subclass of `{kind}` that defines `{name}`."
                ),
            )


def named(address: Address, name: str) -> str:
    """Return the address of an attribute as text, such as `"layers[1].alpha"`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*address, name))
    return "".join(steps).lstrip(".")


def part_at(model: keras.Model, address: Address) -> Any:
    """Return the part of a model at an address."""
    part: Any = model
    if address[:1] == ("variables",):
        part, address = in_order(model, model.variables), address[1:]
    for step in address:
        item = isinstance(step, int) or isinstance(part, dict)
        part = part[step] if item else getattr(part, str(step))
    return part


def different_attributes(
    model: keras.Model, copy: keras.Model
) -> Iterator[tuple[Address, str, Any]]:
    """Yield address, name and value of each attribute of a layer or variable that differs."""
    pairs = list(paired_layers(model, copy))
    layers = {id(layer) for _, layer, _ in pairs}
    for address, ours, theirs in pairs:
        for name, value in changed_attributes(ours, theirs).items():
            if not is_derived(value, layers):
                yield address, name, value
        if differ(getattr(ours, LORA_SCALE, None), getattr(theirs, LORA_SCALE, None)):
            yield address, LORA_SCALE, getattr(ours, LORA_SCALE)
    both = (in_order(each, each.variables) for each in (model, copy))
    variables = list(zip(*both, strict=True))
    for index, (ours, theirs) in enumerate(variables):
        for name in ("constraint", "regularizer"):
            value = getattr(ours, name, None)
            if differ(value, getattr(theirs, name, None)):
                yield ("variables", index), name, value
    yield from different_flags(pairs, variables)


def is_derived(value: Any, layers: set[int]) -> bool:
    """Whether a value that differs makes no difference to a built model.

    Args:
        value: An initializer, whose weights are drawn already; the `id` of each layer in a set,
            as models of KerasHub keep it; or another value.
        layers: Set of the `id` of each layer.
    """
    import keras

    if isinstance(value, set | frozenset):
        return bool(value) and value <= layers
    return isinstance(value, keras.initializers.Initializer)


def different_flags(
    layers: list[tuple[Address, Any, Any]], variables: list[tuple[Any, Any]]
) -> Iterator[tuple[Address, str, bool]]:
    """Yield which layers and variables are trainable, if any of them differs.

    The flag of a layer sets those of all layers and variables in it, so the outer ones come first.
    """
    flagged = [(a.trainable, b.trainable) for _, a, b in layers]
    flagged += [(bool(a.trainable), bool(b.trainable)) for a, b in variables]
    if all(ours == theirs for ours, theirs in flagged):
        return
    for address, ours, _ in layers:
        yield address, "trainable", ours.trainable
    for index, (ours, _) in enumerate(variables):
        yield ("variables", index), "trainable", bool(ours.trainable)


def different_values(model: keras.Model, copy: keras.Model) -> Iterator[tuple[int, np.ndarray]]:
    """Yield position and value of each variable whose value differs.

    The states of random number generators always count as different. Keras draws them for each
    copy, so that this copy may have those of the model by chance, and the next one has others.
    """
    drawn = {id(variable) for variable in rng_variables(model)}
    variables = in_order(model, model.variables)
    values, others = values_of(variables), values_of(in_order(copy, copy.variables))
    for index, (variable, value) in enumerate(zip(variables, values, strict=True)):
        if id(variable) in drawn or value.tobytes() != others[index].tobytes():
            yield index, value


def paired_layers(model: keras.Model, copy: keras.Model) -> Iterator[tuple[Address, Any, Any]]:
    """Yield the address of each layer, the layer and its copy, outer layers first.

    Layers are found in the attributes of models and layers, at any depth of lists and mappings.
    """
    seen: set[int] = set()
    queue: list[tuple[Address, Any, Any]] = [((), model, copy)]
    while queue:
        address, ours, theirs = queue.pop(0)
        if id(ours) in seen:
            continue
        seen.add(id(ours))
        yield address, ours, theirs
        for name, value in vars(ours).items():
            if name in vars(theirs):
                queue += layers_in((*address, name), value, vars(theirs)[name])


def layers_in(address: Address, ours: Any, theirs: Any) -> list[tuple[Address, Any, Any]]:
    """Return address, layer and copy of each layer in an attribute's value."""
    import keras

    if isinstance(ours, keras.Layer) and isinstance(theirs, keras.Layer):
        return [(address, ours, theirs)]
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        pairs = enumerate(zip(ours, theirs, strict=False))
        return [found for i, (a, b) in pairs for found in layers_in((*address, i), a, b)]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        shared = [key for key in ours if isinstance(key, str) and key in theirs]
        return [found for k in shared for found in layers_in((*address, k), ours[k], theirs[k])]
    return []
