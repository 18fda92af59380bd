"""Determine a model's inputs and targets, and the structure of its outputs.

Functional and Sequential models know their inputs. A subclassed model only knows
the shapes that it was built with, and knows its outputs only after a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from kspark.errors import Described, invalid
from kspark.replica.compile_arguments import compile_arguments
from kspark.shards import TEXT, ArraySpec, InputSpec

if TYPE_CHECKING:
    import keras

SINGLE = "single"
LIST = "list"
DICT = "dict"


_called: WeakSet[Any] = WeakSet()
"""Models that `build_model` has called, and whose layers without variables are not used."""


def build_model(model: keras.Model, example: Any) -> None:
    """Create the variables of a model that was defined without an input shape.

    Args:
        model: A `keras.Model`. A model that is built already (see `is_built`) is left alone.
        example: Array, or list or dictionary of arrays, with at least one row of each
            input.

    Raises:
        ValueError: If an array of `example` has no rows.
    """
    if is_built(model):
        return
    import keras

    from kspark.replica.backends.base import cast_floats

    names, arrays, structure = arranged(example)
    if any(np.ndim(a) == 0 or len(a) == 0 for a in arrays):
        raise invalid("example", "arrays with at least one row", [np.shape(a) for a in arrays])
    rows = [cast_floats(np.asarray(a)[:1]) for a in arrays]
    if isinstance(model, keras.Sequential) and structure == SINGLE and rows[0].dtype.kind == "f":
        model.build((None, *rows[0].shape[1:]))  # a call would fix the batch size, too
        return
    model(rearranged(rows, names, structure), training=False)
    _called.add(model)


def is_built(model: keras.Model) -> bool:
    """Whether a model and its layers have their variables.

    `build` may mark a subclassed model as built whose layers are not.
    """
    if symbolic(model, "input", "inputs") is not None or model in _called:
        return bool(model.built)
    return model.built and all(layer.built for layer in model.layers)


def input_spec(model: keras.Model, example: Any = None, *, with_labels: bool = False) -> InputSpec:
    """Return the inputs and targets of a model.

    Args:
        model: A built `keras.Model`.
        example: Rows of input in the structure that the model takes. Needed for the
            dtypes of a subclassed model's inputs if they are not floating point.
        with_labels: Boolean, whether a model that computes its loss itself, and has none among
            its compile arguments, takes one array of labels per output. Defaults to `False`.

    Returns:
        An `InputSpec`. Its targets are the outputs with a loss or a metric, without shapes
        and dtypes, which depend on the data. A model without a loss has no targets.

    Raises:
        ValueError: If the inputs or outputs are nested or unknown.
    """
    import keras

    inputs, structure = described_inputs(model, example)
    names, y_structure = target_names(model)
    if with_labels and model.loss is None and computes_loss(model):
        names, y_structure = output_names(model)
        y_structure = SINGLE if len(names) == 1 and y_structure == LIST else y_structure
    outputs = output_names(model)[0] if names else []
    return InputSpec(
        inputs=tuple(inputs),
        targets=tuple(ArraySpec(name) for name in names),
        x_structure=structure,
        y_structure=y_structure,
        outputs=() if len(outputs) == len(names) else tuple(outputs),
        floatx=keras.config.floatx(),
    )


def described_inputs(model: keras.Model, example: Any) -> tuple[list[ArraySpec], str]:
    """Return one `ArraySpec` per input, and the structure of the inputs."""
    tensors = symbolic(model, "input", "inputs")
    if isinstance(tensors, list | tuple) and len(tensors) == 1:
        tensors = tensors[0]  # Keras also takes a single array here, which users prefer.
    if tensors is not None:
        names, parts, structure = arranged(tensors)
        if structure != DICT:
            names = [t.name for t in parts]
        return [
            ArraySpec(name, tuple(t.shape[1:]), str(t.dtype))
            for name, t in zip(names, parts, strict=True)
        ], structure
    return inputs_as_built(model, example)


def inputs_as_built(model: keras.Model, example: Any) -> tuple[list[ArraySpec], str]:
    """Describe the inputs of a subclassed model by the shapes that it was built with."""
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None and example is None:
        rule = "a model with one argument in `call`, or with an `Input`"
        raise invalid("model", rule, Described(f"the model {model.name!r}"))
    if shapes is None:
        _, arrays, _ = arranged(example)
        shapes = [np.shape(a) for a in arrays]
        shapes = shapes[0] if len(shapes) == 1 else shapes
    names, parts, structure = arranged(shapes)
    dtypes = [""] * len(parts) if example is None else [dtype_of(a) for a in arranged(example)[1]]
    if structure != DICT:
        names = [f"input_{i}" for i in range(len(parts))]
    return [
        ArraySpec(name, tuple(shape[1:]), dtype)
        for name, shape, dtype in zip(names, parts, dtypes, strict=True)
    ], structure


def dtype_of(array: Any) -> str:
    """Return the dtype to which Keras converts an array."""
    import keras

    dtype = np.asarray(array).dtype
    if dtype.kind in "OUS":
        return TEXT
    return str(keras.config.floatx()) if dtype.kind == "f" else dtype.name


def output_names(model: keras.Model) -> tuple[list[str], str]:
    """Return the names of the outputs in the order of `Replica.predict`, and their structure.

    The outputs of a dictionary are ordered by their keys. A name that Keras uses twice, as for a
    layer that computes two outputs, gets a number: `dense` and `dense_1`.
    """
    names, structure = names_in_keras(model)
    return unique(names), structure


def names_in_keras(model: keras.Model) -> tuple[list[str], str]:
    """Return the names of the outputs as `compile` knows them, which may repeat."""
    names, parts, structure = arranged(output_tensors(model))
    if structure == DICT:
        return names, structure
    known = list(getattr(model, "output_names", ()))
    if len(known) != len(parts):
        known = ["output"] if structure == SINGLE else [f"output_{i}" for i in range(len(parts))]
    return known, structure


def unique(names: Sequence[str], *, ignore_case: bool = False) -> list[str]:
    """Add a number to each name that occurred before.

    Args:
        names: Sequence of strings.
        ignore_case: Boolean, whether names that differ only in case count as the same, as the
            names of columns in Spark. Defaults to `False`.
    """
    fold = str.lower if ignore_case else str
    reserved, taken, found = {fold(name) for name in names}, set[str](), []
    for name in names:
        numbered = (f"{name}_{i}" for i in count(1))
        fresh = (n for n in numbered if fold(n) not in taken | reserved)
        own = name if fold(name) not in taken else next(fresh)
        taken.add(fold(own))
        found.append(own)
    return found


def output_tensors(model: keras.Model) -> Any:
    """Return a model's outputs as symbolic tensors."""
    outputs = symbolic(model, "output", "outputs")
    return computed_outputs(model) if outputs is None else outputs


def computed_outputs(model: keras.Model) -> Any:
    """Compute a subclassed model's outputs as symbolic tensors."""
    import keras

    specs, structure = inputs_as_built(model, None)
    tensors = [
        keras.KerasTensor((None, *(s.shape or ())), dtype=s.dtype or keras.config.floatx())
        for s in specs
    ]
    return model.compute_output_spec(rearranged(tensors, [s.name for s in specs], structure))


def target_names(model: keras.Model) -> tuple[list[str], str]:
    """Return the names of the outputs with a loss or a metric, and the structure of the labels."""
    if model.loss is None:
        return [], SINGLE
    names, structure = output_names(model)
    if len(names) == 1:
        return names, SINGLE if structure == LIST else structure
    compiled, _ = names_in_keras(model)
    used = named_parts(model.loss, compiled) | metric_outputs(model, compiled)
    return [n for i, n in enumerate(names) if i in used], structure


def computes_loss(model: keras.Model) -> bool:
    """Whether a model's class computes the loss itself, like `keras.distillation.Distiller`."""
    import keras

    names = ("compute_loss", "train_step")
    return any(getattr(type(model), n) is not getattr(keras.Model, n) for n in names)


def metric_outputs(model: keras.Model, names: Sequence[str]) -> set[int]:
    """Return the positions of the outputs with a metric, for a model with several outputs."""
    arguments = compile_arguments(model)
    found: set[int] = set()
    for key in ("metrics", "weighted_metrics"):
        if arguments[key]:
            found |= named_parts(arguments[key], names)
    return found


def named_parts(given: Any, names: Sequence[str]) -> set[int]:
    """Return the positions of the outputs for which `given` has an entry, by name or position.

    A single entry, or a list of another length than `names`, is for all outputs.
    """
    if isinstance(given, Mapping):
        return {i for i, name in enumerate(names) if given.get(name)}
    if isinstance(given, list | tuple) and len(given) == len(names):
        return {i for i, part in enumerate(given) if part}
    return set(range(len(names)))


def symbolic(model: keras.Model, attribute: str, flat: str) -> Any:
    """Return the inputs or outputs of a functional or Sequential model, else `None`.

    Args:
        model: A `keras.Model`.
        attribute: String, attribute with the structured tensors.
        flat: String, attribute with the flat list of tensors. A Sequential model has only
            this one, with one entry.
    """
    value = getattr(model, attribute, None)
    if value is None:
        value = (getattr(model, flat, None) or [None])[0]
    return value


def is_arrays(value: Any) -> bool:
    """Whether a value is one NumPy array, or a list or dictionary of NumPy arrays."""
    parts = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(parts, list | tuple):
        parts = [parts]
    return bool(parts) and all(isinstance(p, np.ndarray) for p in parts)


def arranged(value: Any) -> tuple[list[str], list[Any], str]:
    """Flatten one value, or a list or dictionary of values.

    Returns:
        Tuple of names (only of a dictionary), values and structure.

    Raises:
        ValueError: If the value is nested more deeply.
    """
    if isinstance(value, Mapping):
        names = sorted(value)
        parts, structure = [value[n] for n in names], DICT
    elif isinstance(value, list | tuple) and not is_shape(value):
        names, parts, structure = [], list(value), LIST
    else:
        names, parts, structure = [], [value], SINGLE
    for part in parts:
        if isinstance(part, Mapping) or (isinstance(part, list | tuple) and not is_shape(part)):
            rule = "a model whose inputs and outputs are one tensor, or a flat list or dictionary"
            raise invalid("model", rule, value)
    return names, parts, structure


def is_shape(value: Any) -> bool:
    """Whether a sequence is the shape of one array, not a sequence of several values."""
    return all(n is None or isinstance(n, int | np.integer) for n in value)


def rearranged(parts: list[Any], names: Sequence[str], structure: str) -> Any:
    """Restore the structure of flat values, the inverse of `arranged`."""
    if structure == SINGLE:
        return parts[0]
    return parts if structure == LIST else dict(zip(names, parts, strict=True))
