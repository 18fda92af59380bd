"""Compression: fewer bytes for the deltas and gradients that replicas send.

| codec | bytes per float32 | error of a value x |
|---|---|---|
| `Float16` | 2 | at most 2⁻¹¹ of it, or 2⁻²⁵ if that is more |
| `BFloat16` | 2 | at most 2⁻⁸ of it |
| `Int8` | 1, and 4 per 2,048 | at most 1/254 of the largest of its 2,048, and 2⁻¹⁵ of that |
| `TopK(fraction)` | 8 × fraction | none if it is sent, all of it if not |

A codec loses a part of what it is given. `Compressor` keeps that part and adds it to what
is sent next (error feedback), so that it comes late but is not lost. `Packing` is the
layout of what travels. All of it is arithmetic on vectors: no socket and no file in here.
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
    """The codec that is meant.

    Example:

    ```python
    codec = kspark.compression.get("top_k")
    ```

    Args:
        identifier: One of:
            - `None`, no compression.
            - String, a codec's name in any spelling: `"float16"`, `"bfloat16"`, `"int8"`,
              `"top_k"`, `"TopK"`. Its arguments are the defaults.
            - Dictionary, a configuration as `serialize` gives it.
            - One of this package's codecs, which is returned unchanged, or its class.

    Returns:
        A `Codec` or `None`.

    Raises:
        ValueError: If there is no codec of that name.
        TypeError: If it is nothing of the above.
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
    """A codec as plain data, `{"class_name": ..., "config": ...}`; `None` stays `None`.

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
    """The inverse of `serialize`.

    Example:

    ```python
    codec = kspark.compression.deserialize({"class_name": "TopK", "config": {"fraction": 0.05}})
    ```

    Args:
        config: Mapping with `"class_name"` and, if not the defaults, `"config"`; or `None`.

    Returns:
        A `Codec` or `None`.

    Raises:
        ValueError: If the mapping has other keys, or there is no such codec, or it does
            not know one of its arguments.
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
    """What a name must be, and which one it is most like."""
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
    """What all spellings of a name share."""
    return name.replace("_", "").lower()
