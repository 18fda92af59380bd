"""Decide whether a replica that is built may train a later fit of the same model.

Such a replica keeps what it has compiled, and gets the values of all variables. That is right only
if nothing else of the model may have changed: neither in the replica, while it trained, nor in the
user's model since then. Code of the user's own may keep values in attributes, files, or variables
that kspark does not know. So only models are renewed that consist of parts of Keras, and of those
only parts whose whole state is in variables and in the configuration. All others are built anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kspark.replica.compile_arguments import compile_arguments
from kspark.replica.pickling import leaves, of_keras, takes_variables
from kspark.replica.stepping import stepping

if TYPE_CHECKING:
    import keras

    from kspark.replica.model_spec import ModelSpec

BY_VALUE = b"cloudpickle"
"""Part of a pickle that contains functions or classes of the user's own."""

DERIVED = ("adapt", "finalize_state", "load_assets")
"""Methods of layers that compute values from their variables, or keep files beside them."""


def is_renewable(model: keras.Model, described: ModelSpec) -> bool:
    """Whether the digest of a model and the values of its variables say all about it.

    Args:
        model: A compiled `keras.Model`.
        described: `ModelSpec` of the model.
    """
    from kspark.saving.vocabularies import layers_of

    compilation = described.compilation
    if compilation is None or compilation.arguments is None or model.run_eagerly:
        return False
    if BY_VALUE in compilation.arguments + compilation.optimizer.parts:
        return False
    if described.differences.attributes or described.objects():
        return False
    parts = [*layers_of(model), model.optimizer, *stepping(model.optimizer)]
    arguments = leaves(compile_arguments(model))
    return all(map(is_plain, parts)) and all(map(is_plain_argument, arguments))


def is_plain(part: Any) -> bool:
    """Whether a layer or an optimizer is one of Keras, with its state in its variables alone."""
    return of_keras(part) and not any(hasattr(part, name) for name in DERIVED)


def is_plain_argument(value: Any) -> bool:
    """Whether an argument of `compile`, such as a loss, has no state that may change unseen."""
    if value is None or isinstance(value, str | int | float):
        return True
    return of_keras(value) and not takes_variables(value)
