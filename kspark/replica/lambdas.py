"""Replace the lambdas in a model's configuration by names of custom objects.

Keras saves the code of a lambda without the global names that it uses, so that it fails when a
functional model is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

LAMBDA = "__lambda__"
"""Keras' name of the class of a serialized lambda."""


def without_lambdas(config: Any, functions: Iterable[Any]) -> tuple[Any, dict[str, FunctionType]]:
    """Replace the lambdas in a configuration by references to custom objects.

    Of several lambdas with the same code, which may enclose different values, the first one is
    used; `kspark.replica.differences` corrects the others.

    Args:
        config: JSON data.
        functions: Iterable of the functions of the live model. Others than lambdas are ignored.

    Returns:
        Tuple of the new configuration, and a dictionary from name to lambda.
    """
    lambdas = [f for f in functions if isinstance(f, FunctionType) and f.__name__ == "<lambda>"]
    known = code_texts(lambdas)
    used: dict[str, FunctionType] = {}

    def replaced(part: Any) -> Any:
        if isinstance(part, list):
            return [replaced(item) for item in part]
        if not isinstance(part, Mapping):
            return part
        function = known.get(code_of(part))
        if function is not None:
            name = f"kspark_lambda_{lambdas.index(function)}"
            used[name] = function
            return {"class_name": "function", "config": name, "registered_name": name}
        return {key: replaced(value) for key, value in part.items()}

    return replaced(config), used


def code_of(part: Mapping[str, Any]) -> str | None:
    """Return the code of a serialized lambda as text, or `None` for anything else.

    `Lambda` layers write it as `code`, other objects as the first item of `value`. Activations
    write the `value` alone, without a class name, which Keras itself does not load.
    """
    config = part.get("config") if part.get("class_name") == LAMBDA else part
    if not isinstance(config, Mapping):
        return None
    if config is part and set(part) != {"value"}:
        return None
    value = config.get("value") or [None]
    code = config.get("code", value[0] if isinstance(value, list | tuple) else None)
    return code if isinstance(code, str) else None


def code_texts(functions: Sequence[FunctionType]) -> dict[Any, FunctionType]:
    """Return the functions by their code as Keras serializes it; of several, the first."""
    import keras

    parts = [keras.layers.Lambda(f, name="lambda").get_config()["function"] for f in functions]
    return dict(reversed([(code_of(p), f) for p, f in zip(parts, functions, strict=True)]))
