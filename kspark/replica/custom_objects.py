"""The user's own classes and functions that a model is made of, found and shipped by value.

A `.keras` file names them; rebuilding the model needs the objects. They are
found in the live model (which holds every instance and function the file
names), in what the user gave, and among those registered with Keras. They
travel pickled *by value*, together with what they refer to in the user's own
modules, so that a worker needs nothing but the libraries they import.
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
"""Packages that travel by name wherever they lie."""

UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, RuntimeError, RecursionError)

LENT: Counter[str] = Counter()
"""How many blocks of `by_value` want a module by value at present, in all threads."""

LENDING = Lock()
"""Held while that and cloudpickle's registry change, but not while anything is pickled."""


def collect(
    model: keras.Model, config: Any, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The custom objects that a model's configuration names.

    Args:
        model: The live `keras.Model`.
        config: Its configuration, as JSON data.
        given: Mapping from name to object; these are taken in any case.

    Returns:
        Mapping from the name in the configuration to a class or function.

    Raises:
        ValueError: If one name stands for two different objects.
        TypeError: If `given` is not a mapping from strings.
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
                f"made of one custom object named {name!r}, or told which by `custom_objects`",
                candidates,
            )
        if candidates:
            found[name] = candidates[0]
        elif name in registered:
            found[name] = registered[name]
    return found


def checked(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of the user's `custom_objects`.

    Raises:
        TypeError: If it is not a mapping from strings to classes or functions.
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
    """All strings of a configuration: the name of every class and function is among them."""
    if isinstance(config, str):
        return {config}
    if isinstance(config, Mapping):
        return set().union(*map(named, config.values()))
    if isinstance(config, list | tuple):
        return set().union(*map(named, config))
    return set()


def live_objects(model: keras.Model) -> dict[str, list[Any]]:
    """Classes and functions of the user in a live model, by the name Keras gives them."""
    import keras

    objects: dict[str, list[Any]] = {}
    for item in reachable(model):
        thing = item if isinstance(item, FunctionType) else type(item)
        if is_builtin(thing.__module__):
            continue
        known = objects.setdefault(keras.saving.get_registered_name(thing), [])
        if not any(thing is k for k in known):
            known.append(thing)
    return objects


def reachable(model: keras.Model) -> Iterator[Any]:
    """Functions, and objects with a `get_config`, that a model holds, each once."""
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
    """Custom objects as bytes, by value as far as they are the user's own.

    Args:
        objects: Mapping from name to class or function.

    Raises:
        ValueError: If one of them cannot travel, for instance because it refers to
            a live model. The message names it.
    """
    try:
        return pickled(dict(objects))
    except UNPICKLABLE as error:
        raise culprit(objects, error) from error


def load(data: bytes) -> dict[str, Any]:
    """The inverse of `dump`. The bytes come inside Spark's own job, as its code does."""
    objects: dict[str, Any] = pickle.loads(data)
    return objects


def pickled(objects: dict[str, Any]) -> bytes:
    """A pickle that refuses live models."""
    import keras
    from pyspark import cloudpickle

    live = (keras.Layer, keras.Variable, keras.optimizers.Optimizer)

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, obj: Any) -> None:
            if isinstance(obj, live):
                kind = type(obj).__name__
                raise pickle.PicklingError(
                    f"it refers to the live {kind} {getattr(obj, 'name', '')!r}, whose weights "
                    "would be copied. Make that a part of the model instead."
                )

    stream = io.BytesIO()
    with by_value():
        Pickler(stream).dump(objects)
    return stream.getvalue()


def culprit(objects: Mapping[str, Any], error: Exception) -> ValueError:
    """The refusal, naming the object that cannot be pickled."""
    for name, value in objects.items():
        try:
            pickled({name: value})
        except UNPICKLABLE as reason:
            return ValueError(f"Custom object {name!r} cannot be sent to the workers: {reason}")
    return ValueError(f"The custom objects cannot be sent to the workers: {error}")


@contextmanager
def by_value() -> Iterator[None]:
    """Let everything of the user's own modules be pickled by value, meanwhile.

    The registry is the process' own, so blocks in several threads, or one inside another, share
    what they register: the last one takes it back.
    """
    modules = lend(user_modules())
    try:
        yield
    finally:
        take_back(modules)


def lend(modules: Iterable[ModuleType]) -> list[ModuleType]:
    """Register modules with cloudpickle, and return those that `take_back` must be given."""
    from pyspark import cloudpickle

    with LENDING:
        of_others = cloudpickle.list_registry_pickle_by_value() - LENT.keys()
        lent = []
        for module in modules:
            if module.__name__ in of_others:
                continue
            with suppress(ValueError):  # it has left `sys.modules` by now
                cloudpickle.register_pickle_by_value(module)
                LENT[module.__name__] += 1
                lent.append(module)
    return lent


def take_back(modules: Iterable[ModuleType]) -> None:
    """Undo `lend` for modules that no other block wants."""
    from pyspark import cloudpickle

    with LENDING:
        for module in modules:
            LENT[module.__name__] -= 1
            if not LENT[module.__name__]:
                del LENT[module.__name__]
                if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.unregister_pickle_by_value(module)


def user_modules() -> list[ModuleType]:
    """Imported modules that belong to no library: workers may not have them."""
    return [
        module
        for name, module in list(sys.modules.items())
        if getattr(module, "__name__", None) == name and not is_library(name)
    ]


def is_builtin(module: str | None) -> bool:
    """Whether Keras finds the things of a module by itself on any worker."""
    return module is not None and module.partition(".")[0] in {"builtins", *LIBRARIES}


def is_library(name: str | None) -> bool:
    """Whether a module of this name comes with Python or was installed."""
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
    """Whether what lies in a folder comes with Python or was installed.

    Cached: there are thousands of modules in some hundred folders, and every fit asks for all.
    """
    resolved = Path(folder).resolve()
    places = (resolved, *resolved.parents)
    if any(p.name in ("site-packages", "dist-packages") for p in places):
        return True
    return any(p in library_folders() for p in places)


@lru_cache(maxsize=1)
def library_folders() -> frozenset[Path]:
    """Where Python keeps its own modules."""
    paths = sysconfig.get_paths()
    return frozenset(Path(paths[key]).resolve() for key in ("stdlib", "platstdlib"))


def unbound_names(function: FunctionType) -> list[str]:
    """Global names a function uses that nothing answers to, where it lives now."""
    used = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    return sorted(n for n in used if n not in function.__globals__ and not hasattr(builtins, n))


def check_lambdas(model: keras.Model) -> None:
    """Refuse a rebuilt model whose lambdas lost the names they use.

    Keras keeps a lambda's code, and nothing of the module it was written in.

    Raises:
        ValueError: If there is one.
    """
    for item in reachable(model):
        if not isinstance(item, FunctionType) or item.__name__ != "<lambda>":
            continue
        missing = unbound_names(item)
        if missing:
            raise ValueError(
                f"A lambda of the model uses the name(s) {', '.join(missing)}, which it loses on "
                "the way to the workers. Define a function with a name instead."
            )
