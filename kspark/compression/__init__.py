"""Compression: fewer bytes for the deltas and gradients that replicas send.

| codec | bytes per float32 | error of a value x |
|---|---|---|
| `Float16` | 2 | at most 2⁻¹¹ of x, or 2⁻²⁵ if that is larger |
| `BFloat16` | 2 | at most 2⁻⁸ of x |
| `Int8` | 1, and 4 per 2,048 | at most (1 + 2⁻¹⁵) / 254 of the largest of its 2,048 values |
| `TopK(fraction)` | 8 × fraction | 0 if x is sent, otherwise x |

A codec is lossy. `Compressor` keeps its error and adds it to the next vector (error feedback), so
that errors are sent later and not lost. `Packing` defines the payloads. The package only computes
on vectors, and uses no socket or file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from kspark.compression.base import Codec
from kspark.compression.bfloat16 import BFloat16
from kspark.compression.float16 import Float16
from kspark.compression.int8 import Int8
from kspark.compression.packing import Compressor, Packing
from kspark.compression.top_k import TopK
from kspark.errors import invalid, invalid_type
from kspark.weights import PACKED

__all__ = [
    "PACKED",
    "BFloat16",
    "Codec",
    "Compressor",
    "Float16",
    "Int8",
    "Packing",
    "TopK",
    "deserialize",
    "get",
    "serialize",
]

_CODECS: Mapping[str, type[Codec]] = {
    codec.name: codec for codec in (BFloat16, Float16, Int8, TopK)
}


def get(identifier: Any) -> Codec | None:
    """Return the codec for an identifier.

    Example:

    ```python
    codec = kspark.compression.get("top_k")
    ```

    Args:
        identifier: One of:
            - `None`, no compression.
            - String, the name of a codec in any spelling, such as `"float16"`, `"bfloat16"`,
              `"int8"`, `"top_k"` or `"TopK"`. Its arguments have their defaults.
            - Dictionary, a configuration that `serialize` returned.
            - A codec of this package, which is returned unchanged, or its class.

    Returns:
        A `Codec` or `None`.

    Raises:
        ValueError: If there is no codec with this name.
        TypeError: If `identifier` has another type.
    """
    known = set(_CODECS.values())
    if identifier is None or type(identifier) in known:
        return identifier
    if isinstance(identifier, type) and identifier in known:
        return identifier()
    if isinstance(identifier, str):
        return deserialize({"class_name": identifier})
    if isinstance(identifier, Mapping):
        return deserialize(identifier)
    accepted = "None, a codec's name, its configuration, or a codec of `kspark.compression`"
    raise invalid_type("compression", accepted, identifier)


def serialize(codec: Codec | None) -> dict[str, Any] | None:
    """Return a codec as a dictionary, `{"class_name": ..., "config": ...}`; `None` stays `None`.

    Example:

    ```python
    config = kspark.compression.serialize(TopK(0.05))
    codec = kspark.compression.deserialize(config)
    ```

    Args:
        codec: `Codec` or `None`.
    """
    return None if codec is None else codec.serialized()


def deserialize(config: Mapping[str, Any] | None) -> Codec | None:
    """Create a codec from the dictionary that `serialize` returned.

    Example:

    ```python
    codec = kspark.compression.deserialize({"class_name": "TopK", "config": {"fraction": 0.05}})
    ```

    Args:
        config: Mapping with `"class_name"`, and `"config"` for arguments that differ from the
            defaults; or `None`.

    Returns:
        A `Codec` or `None`.

    Raises:
        ValueError: If the mapping has other keys, or the codec or one of its arguments is unknown.
    """
    if config is None:
        return None
    name, settings = config.get("class_name"), config.get("config") or {}
    if not isinstance(name, str) or not set(config) <= {"class_name", "config"}:
        shape = '{"class_name": a codec\'s name, "config": its arguments}'
        raise invalid("compression", shape, dict(config))
    by_key = {_key(known): codec for known, codec in _CODECS.items()}
    codec = by_key.get(_key(name))
    if codec is None:
        raise invalid("compression", _rule(name, by_key), name)
    _check_arguments(codec, settings, config)
    return codec(**settings)


def _rule(name: str, by_key: Mapping[str, type[Codec]]) -> str:
    """Return the rule for names, with the nearest name."""
    rule = "None or one of " + ", ".join(f'"{known}"' for known in _CODECS)
    near = difflib.get_close_matches(_key(name), by_key, n=1)
    return f'{rule} ("{by_key[near[0]].name}" is the nearest)' if near else rule


def _check_arguments(codec: type[Codec], settings: Any, config: Mapping[str, Any]) -> None:
    known = set(codec().get_config())
    if not isinstance(settings, Mapping) or not set(settings) <= known:
        arguments = ", ".join(f'"{name}"' for name in sorted(known)) or "none"
        rule = f'a configuration with the arguments of "{codec.name}" ({arguments})'
        raise invalid("compression", rule, dict(config))


def _key(name: str) -> str:
    """Return the key that all spellings of a name have in common."""
    return name.replace("_", "").lower()
