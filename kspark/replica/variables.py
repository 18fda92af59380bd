"""Which variables a model has, in which order, and what becomes of each in a merge.

The order is that of `model.weights`; behind them come the variables that
`model.variables` has beyond those, which is the state of random number
generators. Metric and optimizer variables are none of the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import invalid
from kspark.weights import FIXED, STATE, TRAINABLE, Weight, WeightSpec

if TYPE_CHECKING:
    import keras

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Dtypes that merge; everything else stays with its replica."""


def model_variables(model: keras.Model) -> list[Any]:
    """All variables of a model: its weights in Keras' order, then the state of its RNGs."""
    return [*model.weights, *rng_variables(model)]


def rng_variables(model: keras.Model) -> list[Any]:
    """The state of the model's random number generators, one `keras.Variable` each."""
    weights = {id(v) for v in model.weights}
    return [v for v in model.variables if id(v) not in weights]


def weight_spec(model: keras.Model) -> WeightSpec:
    """What the flat vector of a model looks like.

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
                raise invalid("model", rule, f"{variable.path} of dtype {dtype}")
        shape = tuple(int(n) for n in variable.shape)
        weights.append(Weight(str(variable.path), shape, dtype, role))
    return WeightSpec(tuple(weights))


def same_structure(left: WeightSpec, right: WeightSpec) -> bool:
    """Whether two specs agree but for the names, which Keras numbers anew in each process."""
    return [(w.shape, w.dtype, w.role) for w in left.weights] == [
        (w.shape, w.dtype, w.role) for w in right.weights
    ]


def values_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """The values of some variables, as arrays of the caller's own."""
    import keras

    tensors = (keras.ops.convert_to_tensor(v) for v in variables)
    arrays = (keras.ops.convert_to_numpy(t) for t in tensors)
    return [np.require(a, requirements=["OWNDATA", "WRITEABLE"]) for a in arrays]


def assign_all(variables: Sequence[Any], values: Sequence[np.ndarray], what: str) -> None:
    """Set some variables.

    Raises:
        ValueError: If the number of values or a shape differs.
    """
    shapes = [tuple(v.shape) for v in variables]
    given = [np.shape(value) for value in values]
    if shapes != given:
        raise invalid(what, f"arrays of shapes {shapes}", given)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
