"""Find the custom classes and functions of a model, and pickle them by value.

A `.keras` file contains only their names; rebuilding the model needs the objects.
They are looked up in the live model (which refers to every instance and function
that the file names), in the user's `custom_objects`, and among the objects
registered with Keras. They are pickled *by value*, together with everything in the
user's own modules that they refer to, so that a worker only needs the libraries
that they import.
"""

from __future__ import annotations

import builtins
import dis
import io
import os
import pickle
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from kspark.errors import invalid, invalid_type

if TYPE_CHECKING:
    import keras

LIBRARIES = frozenset({"keras", "kspark", "numpy", "py4j", "pyspark", "tensorflow", "jax", "torch"})
"""Packages that are pickled by name, wherever they are installed."""

UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, RuntimeError, RecursionError)

REGISTERED: Counter[str] = Counter()
"""Number of active `by_value` blocks, in all threads, per module that kspark registered."""

REGISTRY_LOCK = Lock()
"""Guards `REGISTERED` and cloudpickle's registry while they change, but not pickling itself."""


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
        ValueError: If two different objects have the same name.
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
        if len(candidates) > 1:
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


def dump(objects: Mapping[str, Any]) -> bytes:
    """Pickle custom objects; those of the user's own modules by value.

    Args:
        objects: Mapping from name to class or function.

    Raises:
        ValueError: If an object cannot be pickled, for instance because it refers to
            a live model. The message names the object.
    """
    try:
        return pickled(dict(objects))
    except UNPICKLABLE as error:
        raise unpicklable(objects, error) from error


def load(data: bytes) -> dict[str, Any]:
    """Unpickle custom objects, the inverse of `dump`.

    This is safe: Spark delivered the bytes inside a job, together with the job's code.
    """
    objects: dict[str, Any] = pickle.loads(data)
    return objects


def pickled(objects: dict[str, Any]) -> bytes:
    """Pickle objects, and refuse those that refer to live models."""
    import keras
    from pyspark import cloudpickle

    live = (keras.Layer, keras.Variable, keras.optimizers.Optimizer)

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, obj: Any) -> None:
            if isinstance(obj, live):
                kind = type(obj).__name__
                raise pickle.PicklingError(
                    f"it refers to the live {kind} {getattr(obj, 'name', '')!r}, whose weights "
                    f"would be copied. Make the {kind} a part of the model instead."
                )

    stream = io.BytesIO()
    with by_value():
        Pickler(stream).dump(objects)
    return stream.getvalue()


def unpicklable(objects: Mapping[str, Any], error: Exception) -> ValueError:
    """Return the error that names the object that cannot be pickled."""
    for name, value in objects.items():
        try:
            pickled({name: value})
        except UNPICKLABLE as reason:
            return ValueError(f"Custom object {name!r} cannot be sent to the workers: {reason}")
    return ValueError(f"The custom objects cannot be sent to the workers: {error}")


@contextmanager
def by_value() -> Iterator[None]:
    """Pickle everything in the user's own modules by value inside this block.

    The registry belongs to the process. Nested blocks and blocks in several threads share
    their registrations, and the last block to end removes them.
    """
    modules = register(user_modules())
    try:
        yield
    finally:
        unregister(modules)


def register(modules: Iterable[ModuleType]) -> list[ModuleType]:
    """Register modules with cloudpickle, and return those to pass to `unregister`.

    Modules that other code has registered are left alone.
    """
    from pyspark import cloudpickle

    with REGISTRY_LOCK:
        foreign = cloudpickle.list_registry_pickle_by_value() - REGISTERED.keys()
        registered = []
        for module in modules:
            if module.__name__ in foreign:
                continue
            with suppress(ValueError):  # The module may have left `sys.modules` meanwhile.
                cloudpickle.register_pickle_by_value(module)
                REGISTERED[module.__name__] += 1
                registered.append(module)
    return registered


def unregister(modules: Iterable[ModuleType]) -> None:
    """Undo `register` for modules that no other block uses."""
    from pyspark import cloudpickle

    with REGISTRY_LOCK:
        for module in modules:
            REGISTERED[module.__name__] -= 1
            if not REGISTERED[module.__name__]:
                del REGISTERED[module.__name__]
                if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.unregister_pickle_by_value(module)


def user_modules() -> list[ModuleType]:
    """Return imported modules that belong to no library, so that workers may lack them."""
    return [
        module
        for name, module in list(sys.modules.items())
        if getattr(module, "__name__", None) == name and not is_library(name)
    ]


def is_library(name: str | None) -> bool:
    """Whether a module is part of Python or of an installed package."""
    if name is None or name in ("__main__", "__mp_main__"):
        return False
    if name.partition(".")[0] in LIBRARIES:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.modules
    if os.path.islink(file):
        file = os.path.realpath(file)
    return is_library_folder(os.path.dirname(file))


@lru_cache(maxsize=4096)
def is_library_folder(folder: str) -> bool:
    """Whether the modules in a folder are part of Python or of an installed package.

    Cached, because each fit checks thousands of modules in a few hundred folders.
    """
    resolved = Path(folder).resolve()
    places = (resolved, *resolved.parents)
    if any(p.name in ("site-packages", "dist-packages") for p in places):
        return True
    return any(p in library_folders() for p in places)


@lru_cache(maxsize=1)
def library_folders() -> frozenset[Path]:
    """Return the folders of Python's standard library."""
    paths = sysconfig.get_paths()
    return frozenset(Path(paths[key]).resolve() for key in ("stdlib", "platstdlib"))


def unbound_names(function: FunctionType) -> list[str]:
    """Return the global names that a function uses and that are not defined where it lives."""
    used = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    return sorted(n for n in used if n not in function.__globals__ and not hasattr(builtins, n))


def check_lambdas(model: keras.Model) -> None:
    """Refuse a rebuilt model with a lambda that uses undefined names.

    Keras saves a lambda's code without the globals of its module.

    Raises:
        ValueError: If the model has such a lambda.
    """
    for item in reachable(model):
        if not isinstance(item, FunctionType) or item.__name__ != "<lambda>":
            continue
        missing = unbound_names(item)
        if missing:
            raise ValueError(
                f"A lambda of the model uses the global name(s) {', '.join(missing)}, which are "
                "not saved with it. Define a function with a name instead."
            )
