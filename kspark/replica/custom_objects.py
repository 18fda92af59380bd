"""Find the custom classes and functions that a model's configuration names.

A `.keras` file contains only their names; rebuilding the model needs the objects.
They are looked up in the live model (which refers to every instance and function
that the file names), in the user's `custom_objects`, and among the objects
registered with Keras.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from kspark.errors import invalid, invalid_type
from kspark.replica.pickling import LIBRARIES

if TYPE_CHECKING:
    import keras


def collect(
    model: keras.Model, config: Any, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Collect the custom objects that a model's configuration names.

    Args:
        model: The live `keras.Model`.
        config: Its configuration, as JSON data.
        given: Mapping from name to object. All of these are included and take precedence.

    Returns:
        Dictionary from the name in the configuration to a class or function.

    Raises:
        ValueError: If two different classes have the same name.
        TypeError: If `given` is not a mapping to classes or functions.
    """
    import keras

    found = checked(given)
    registered = keras.saving.get_custom_objects()
    live = live_objects(model)
    for name in named(config):
        if name in found:
            continue
        candidates = live.get(name, [])
        # Functions of one name, such as closures, are told apart by `kspark.replica.differences`.
        if len(candidates) > 1 and not all(isinstance(c, FunctionType) for c in candidates):
            raise invalid(
                "model",
                f"made of one custom object named {name!r}: pass the right one in `custom_objects`",
                candidates,
            )
        if candidates:
            found[name] = candidates[0]
        elif name in registered:
            found[name] = registered[name]
    return found


def checked(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check and copy the user's `custom_objects`.

    Raises:
        TypeError: If it is not a mapping to classes or functions.
    """
    if given is None:
        return {}
    rule = "a mapping from names to classes or functions"
    if not isinstance(given, Mapping):
        raise invalid_type("custom_objects", rule, given)
    for value in given.values():
        if not callable(value):
            raise invalid_type("custom_objects", rule, dict(given))
    return dict(given)


def named(config: Any) -> set[str]:
    """Return all strings of a configuration, which include all names of classes and functions."""
    if isinstance(config, str):
        return {config}
    if isinstance(config, Mapping):
        return set().union(*map(named, config.values()))
    if isinstance(config, list | tuple):
        return set().union(*map(named, config))
    return set()


def live_objects(model: keras.Model) -> dict[str, list[Any]]:
    """Return the user's classes and functions in a live model by their registered names."""
    import keras

    objects: dict[str, list[Any]] = {}
    for item in reachable(model):
        thing = item if isinstance(item, FunctionType) else type(item)
        package = (thing.__module__ or "").partition(".")[0]
        if package == "builtins" or package in LIBRARIES:  # Keras finds these on any worker.
            continue
        known = objects.setdefault(keras.saving.get_registered_name(thing), [])
        if not any(thing is k for k in known):
            known.append(thing)
    return objects


def reachable(model: keras.Model) -> Iterator[Any]:
    """Yield each function and each object with a `get_config` that a model refers to, once."""
    seen: set[int] = set()
    queue: list[Any] = [model]
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, FunctionType):
            yield item
        elif isinstance(item, Mapping):
            queue.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            queue.extend(item)
        elif hasattr(item, "get_config") and not isinstance(item, type):
            yield item
            queue.extend(getattr(item, "__dict__", {}).values())
