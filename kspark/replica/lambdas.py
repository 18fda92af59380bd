"""Replace the lambdas in a model's configuration by names of custom objects.

Keras saves the code of a lambda without the global names that it uses, so that it fails when a
functional model is rebuilt.
"""

from __future__ import annotations

import base64
import marshal
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType
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
    known = [f for f in functions if isinstance(f, FunctionType) and f.__name__ == "<lambda>"]
    used: dict[str, FunctionType] = {}

    def replaced(part: Any) -> Any:
        if isinstance(part, list):
            return [replaced(item) for item in part]
        if not isinstance(part, Mapping):
            return part
        if part.get("class_name") == LAMBDA:
            code = code_of(part)
            for index, function in enumerate(known):
                if function.__code__ == code:
                    name = f"kspark_lambda_{index}"
                    used[name] = function
                    return {"class_name": "function", "config": name, "registered_name": name}
        return {key: replaced(value) for key, value in part.items()}

    return replaced(config), used


def code_of(part: Mapping[str, Any]) -> CodeType | None:
    """Return the code of a serialized lambda, or `None` if it has another form."""
    config = part.get("config")
    text = config.get("code") if isinstance(config, Mapping) else None
    if not isinstance(text, str):
        return None
    # This is safe: the configuration was made from the user's model in this process.
    code = marshal.loads(base64.b64decode(text))
    return code if isinstance(code, CodeType) else None
