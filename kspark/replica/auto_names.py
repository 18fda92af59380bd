"""Tell models of one architecture from others, whatever numbers Keras has added to their names.

A layer without a name of its own gets that of its class and a number that counts the layers of the
process: `dense`, `dense_1`. So two models that the same code makes have different configurations.
`canonical` replaces such names by their order of appearance, in the places where Keras writes the
name of a layer and nowhere else. A configuration that contains a name in another place stays
different from all others.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

SHARED = "shared_object_id"
"""Key in a configuration: the address in memory of an object that several layers share."""

STATELESS = (
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.dtype_policies",
)
"""Modules of objects of which a model may have one or several equal ones without a difference.
Keras sometimes takes several for one, because it compares the addresses of freed objects."""

ENDS = ("input_layers", "output_layers")
"""Keys in the configuration of a functional model, whose values name the layers at its ends."""

HISTORY = "keras_history"
"""Key in a configuration: the layer that computes a tensor, and two numbers."""

DECISIVE = ("float8", "DTypePolicyMap")
"""Words in the configuration of a model where names decide: about the order of variables, see
`kspark.replica.variables.in_order`, or about the types of layers."""

DERIVED = "(?:forward_|backward_)?"
"""Prefixes of the names that `Bidirectional` gives to its layers."""


OF_FILE = re.compile(r'\s*File "')
"""Beginning of a line of a traceback with the path of a file."""

OF_FILES = re.compile(r"^\W*/|:/|\w\.\w")
"""What the path of a file contains, and that of a node in a graph does not."""


def is_automatic(name: Any, class_name: str) -> TypeGuard[str]:
    """Whether Keras may have made a name for an object of a class."""
    if not isinstance(name, str):
        return False
    snake = re.sub(r"\W+", "", class_name)
    snake = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", snake)
    snake = re.sub("([a-z])([A-Z])", r"\1_\2", snake).lower()
    return re.fullmatch(rf"{DERIVED}{re.escape(snake)}(?:_\d+)?", name) is not None


def automatic_names(config: Any) -> tuple[str, ...]:
    """Return the automatic names of the layers of Keras in a model's configuration.

    Args:
        config: JSON data, a model's configuration.

    Returns:
        Tuple of strings, each once, in the order of their appearance. It is empty if a name decides
        what the model computes, or if it is the name of one of several outputs, which also names
        metrics.
    """
    names = tuple(dict.fromkeys(names_in(config)))
    ends = list(end_names(config.get("config", {}).get("output_layers", [])))
    if len(ends) > 1 and not set(names).isdisjoint(ends):
        return ()
    text = str(config)
    return () if any(word in text for word in DECISIVE) else names


def names_in(config: Any) -> Iterator[str]:
    """Yield the automatic names of the layers and operations of Keras in a configuration."""
    if isinstance(config, list):
        for item in config:
            yield from names_in(item)
    if not isinstance(config, Mapping):
        return
    kind, inner = config.get("class_name"), config.get("config")
    if isinstance(kind, str) and str(config.get("module")).partition(".")[0] == "keras":
        found = [inner.get("name") if isinstance(inner, Mapping) else None, config.get("name")]
        yield from (name for name in found if is_automatic(name, kind))
    for item in config.values():
        yield from names_in(item)


def end_names(ends: Any) -> Iterator[str]:
    """Yield the names in the value of `input_layers` or `output_layers`, in any structure."""
    if isinstance(ends, Mapping):
        ends = list(ends.values())
    if isinstance(ends, list):
        if is_end(ends):
            yield ends[0]
        for item in ends:
            yield from end_names(item)


def is_end(value: Any) -> bool:
    """Whether a value is the name of a layer and two numbers, which tell one of its outputs."""
    kinds = [str, int, int]
    return isinstance(value, list) and list(map(type, value)) == kinds


def canonical(config: Any, names: Sequence[str]) -> Any:
    """Replace automatic names in a configuration by their order, and addresses of shared objects.

    Args:
        config: JSON data, a model's configuration.
        names: Sequence of strings, the `automatic_names`.
    """
    return replaced(config, numbered(names), {})


def numbered(names: Iterable[str]) -> dict[str, str]:
    """Return what stands for each name: its position, in a form that is no name."""
    return {name: f"\0{i}" for i, name in enumerate(names)}


def replaced(config: Any, stand_ins: Mapping[str, str], shared: dict[Any, int]) -> Any:
    """Replace the names of layers, and the addresses of shared objects by their order.

    Args:
        config: JSON data.
        stand_ins: Mapping from names to what stands for them.
        shared: Dictionary from each address that occurred to its position, which is extended.
    """
    if isinstance(config, list):
        return [replaced(item, stand_ins, shared) for item in config]
    if not isinstance(config, Mapping):
        return config
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key == SHARED:
            if not is_stateless(config):
                found[key] = shared.setdefault(value, len(shared))
        elif key == "name" and isinstance(value, str):
            found[key] = stand_ins.get(value, value)
        elif key in (HISTORY, *ENDS):
            found[key] = replaced_ends(value, stand_ins)
        else:
            found[key] = replaced(value, stand_ins, shared)
    return found


def is_stateless(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of one of Keras' objects without variables."""
    policy = str(config.get("class_name")).endswith("DTypePolicy")
    return config.get("module") in STATELESS or (policy and config.get("module") == "keras")


def replaced_ends(ends: Any, stand_ins: Mapping[str, str]) -> Any:
    """Replace the names of layers at the ends of a model, or where a tensor comes from."""
    if isinstance(ends, Mapping):
        return {key: replaced_ends(item, stand_ins) for key, item in ends.items()}
    if not isinstance(ends, list):
        return ends
    if is_end(ends):
        return [stand_ins.get(ends[0], ends[0]), *ends[1:]]
    return [replaced_ends(item, stand_ins) for item in ends]


def canonical_pickle(pickled: bytes, names: Sequence[str]) -> bytes:
    """Replace automatic names in a pickle by their order. The result cannot be unpickled.

    Args:
        pickled: Bytes.
        names: Sequence of strings, the names of the metrics and losses that were pickled.
    """
    if not names:
        return pickled
    stand_ins, parts = numbered(names), []
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "FRAME":  # Its argument is the number of bytes up to the next one.
            continue
        known = stand_ins.get(argument, argument) if isinstance(argument, str) else argument
        parts.append((operation.name, known))
    return repr(parts).encode()


def translated(text: str, names: Mapping[str, str]) -> str:
    """Replace the names of layers in a message, where they are in quotes or part of a node's path.

    Paths of files stay as they are, as do lines of a traceback that name a file.

    Args:
        text: String.
        names: Mapping from the names in the text to those that replace them.
    """
    longest_first = sorted((n for n, new in names.items() if n != new), key=len, reverse=True)
    if not longest_first:
        return text
    known = f"(?:{'|'.join(map(re.escape, longest_first))})"

    def with_new_names(found: re.Match[str]) -> str:
        if "/" not in found[0]:
            return names[found[0]]
        if OF_FILES.search(found[0]):
            return found[0]
        return re.sub(rf"(?<!\w){known}(?!\w)", lambda part: names[part[0]], found[0])

    in_quotes = rf"(?<=['\"]){known}(?!\w)|(?<!\w){known}(?=['\"])"
    pattern = rf"[^\s'\"]*/[^\s'\"]*|{in_quotes}"
    return "\n".join(
        line if OF_FILE.match(line) else re.sub(pattern, with_new_names, line)
        for line in text.split("\n")
    )
