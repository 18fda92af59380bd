"""List a model's variables in a fixed order, and decide how each is merged.

The order is that of `model.weights` (but see `in_order`), followed by the other variables in
`model.variables`, which hold the state of random number generators, and by the
variables of the compiled loss and metrics. Variables of the optimizer, and those
that metrics reset, are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import Described, invalid
from kspark.replica.compiled_variables import compiled_variables
from kspark.weights import FIXED, STATE, TRAINABLE, Weight, WeightSpec

if TYPE_CHECKING:
    import keras

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Dtypes of variables that are merged. Variables of other dtypes are not exchanged."""


def model_variables(model: keras.Model) -> list[Any]:
    """Return all variables of a model: weights (see `in_order`), RNG state, those of the loss."""
    weights = in_order(model, model.weights)
    return [*weights, *rng_variables(model), *compiled_variables(model)]


def in_order(model: keras.Model, variables: Sequence[Any]) -> list[Any]:
    """Return variables of a model in an order in which a copy of the model has them, too.

    It is Keras' order, except for a model with layers that are quantized to float8. When Keras
    loads such a layer, it creates the variables in another order than `quantize` did. They are
    ordered by their paths.
    """
    from kspark.saving.vocabularies import layers_of

    modes = (getattr(layer, "quantization_mode", None) for layer in layers_of(model))
    if "float8" not in modes:
        return list(variables)
    return sorted(variables, key=lambda variable: str(variable.path))


def rng_variables(model: keras.Model) -> list[Any]:
    """Return the variables of the model's random number generators."""
    weights = {id(v) for v in model.weights}
    return [v for v in model.variables if id(v) not in weights]


def weight_spec(model: keras.Model) -> WeightSpec:
    """Describe the variables of a model and the layout of its weight vector.

    Args:
        model: A built `keras.Model`.

    Returns:
        A `WeightSpec` over `model_variables(model)`.

    Raises:
        ValueError: If a trainable variable is not of a floating point type.
    """
    trainable = {id(v) for v in model.trainable_variables}
    rngs = {id(v) for v in rng_variables(model)}
    weights = []
    for variable in model_variables(model):
        dtype = str(variable.dtype)
        role = STATE if dtype in FLOATS else FIXED
        if id(variable) in rngs:
            role = FIXED
        elif id(variable) in trainable:
            role = TRAINABLE
            if dtype not in FLOATS:
                rule = "a model whose trainable weights are real floating point numbers"
                raise invalid("model", rule, Described(f"{variable.path} of dtype {dtype}"))
        shape = tuple(int(n) for n in variable.shape)
        weights.append(Weight(str(variable.path), shape, dtype, role))
    return WeightSpec(tuple(weights))


def same_structure(left: WeightSpec, right: WeightSpec) -> bool:
    """Whether two specs are equal except for names, which Keras numbers per process."""
    return [(w.shape, w.dtype, w.role) for w in left.weights] == [
        (w.shape, w.dtype, w.role) for w in right.weights
    ]


def values_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """Copy the values of variables to arrays."""
    import keras

    tensors = (keras.ops.convert_to_tensor(v) for v in variables)
    arrays = (keras.ops.convert_to_numpy(t) for t in tensors)
    return [np.require(a, requirements=["OWNDATA", "WRITEABLE"]) for a in arrays]


def assign_all(variables: Sequence[Any], values: Sequence[np.ndarray], what: str) -> None:
    """Assign values to variables.

    Args:
        variables: Sequence of `keras.Variable`.
        values: Sequence of arrays, one per variable.
        what: String, the argument's name in errors.

    Raises:
        ValueError: If the number of values or a shape differs.
    """
    shapes = [tuple(v.shape) for v in variables]
    given = [np.shape(value) for value in values]
    if shapes != given:
        raise invalid(what, f"arrays of shapes {shapes}", given)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
