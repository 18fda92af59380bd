"""Apply a model's constraints to a vector of weights.

Keras applies the constraint of a variable after every optimizer step. Weights that are merged from
several replicas, or moved by a server optimizer, need not fulfil it: the mean of two vectors of
norm 1 is shorter than 1. So the aggregator applies the constraints after every merge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kspark.weights import TRAINABLE, WeightSpec

if TYPE_CHECKING:
    Constrained = tuple[slice, keras.Variable]

Projection = Callable[[np.ndarray], None]
"""Function that applies constraints to a vector of weights, in place. The vector may end after the
trainable weights."""


def projection_of(variables: Sequence[Any], spec: WeightSpec) -> Projection | None:
    """Return the function that applies the constraints of a model's variables.

    Only trainable variables count, as in Keras.

    Args:
        variables: Sequence of `keras.Variable`, one per entry of `spec`.
        spec: `WeightSpec` of the model.

    Returns:
        `Projection`; `None` if no trainable variable has a constraint.
    """
    constrained = [
        (part, variables[i])
        for i, part in spec.parts
        if spec.weights[i].role == TRAINABLE and variables[i].constraint is not None
    ]
    return partial(project, constrained) if constrained else None


def project(constrained: Sequence[Constrained], vector: np.ndarray) -> None:
    """Replace parts of a vector by what the constraints of their variables return.

    Args:
        constrained: Sequence of pairs of a slice of the vector and its `keras.Variable`.
        vector: Vector, changed in place.
    """
    for part, variable in constrained:
        values = vector[part].reshape(tuple(variable.shape))
        allowed = variable.constraint(keras.ops.convert_to_tensor(values, dtype=variable.dtype))
        vector[part] = keras.ops.convert_to_numpy(allowed).reshape(-1)
