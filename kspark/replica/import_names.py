"""Functions that files name: by their import name "module:name", and never as code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from types import FunctionType
from typing import Any

from kspark.errors import invalid
from kspark.replica.pickling import is_library


def import_name(function: Any) -> str:
    """Return "module:name" of a function, whether or not it can be imported."""
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}:{name}"


def imported(name: str, argument: str) -> Any:
    """Import a function.

    Args:
        name: String "module:name".
        argument: String, the argument that names it, for errors.

    Raises:
        ValueError: If there is no such function.
    """
    module, _, qualified = name.partition(":")
    try:
        found = reduce(getattr, qualified.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        rule = 'the import name "module:name" of a function'
        raise invalid(argument, rule, name) from error
    if not callable(found):
        raise invalid(argument, 'the import name "module:name" of a function', name)
    return found


def name_to_save(function: Any, argument: str) -> str:
    """Return the import name of a function that a later program can import.

    Raises:
        ValueError: If it is a lambda, or a function of the main program or inside another one.
    """
    name = import_name(function)
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if module in ("__main__", "__mp_main__") or found is None or found is not function:
        rule = (
            "a function that can be imported, or a Keras layer, to be saved: files have no code. "
            "Put the function in a module that the loading program can import"
        )
        raise invalid(argument, rule, name)
    return name


def by_arguments(name: str) -> str:
    """Return how `load_spark_model` gets a function, or leaves the safe mode."""
    return f"from `custom_objects={{{name!r}: ...}}`, or with `safe_mode=False`"


def restored(
    name: str,
    argument: str,
    custom_objects: Mapping[str, Any],
    *,
    safe_mode: bool,
    ways: Callable[[str], str] = by_arguments,
) -> Any:
    """Return the function that a file names.

    A file could name any function. In safe mode, only plain functions are restored that are neither
    of Python itself nor of an installed library, in a module that the program has imported.

    Args:
        name: String "module:name".
        argument: String, the argument that it was, for errors.
        custom_objects: Mapping from names, with or without the module, to functions. Those of
            `keras.saving.custom_object_scope` are known, too.
        safe_mode: Boolean.
        ways: Function that returns how the user passes a function of a name, or leaves the safe
            mode, for errors. Defaults to `by_arguments`.

    Raises:
        ValueError: If there is no such function, or it is not restored in safe mode.
    """
    import keras

    module, _, qualified = name.partition(":")
    for key in (name, qualified):
        given = keras.saving.get_registered_object(key, custom_objects=dict(custom_objects))
        if given is not None:
            return given
    if not safe_mode:
        return imported(name, argument)
    way = f"{ways(qualified)} if you trust the file"
    if is_of_library(module):
        raise invalid(argument, f"a function of your own modules, or loaded {way}", name)
    if module not in sys.modules:
        raise invalid(argument, f"loaded after `import {module}`, or {way}", name)
    found = imported(name, argument)
    if not isinstance(found, FunctionType):
        raise invalid(argument, f"a function, or loaded {way}", name)
    if is_of_library(found.__module__):  # which the module of the user has imported
        raise invalid(argument, f"a function of your own modules, or loaded {way}", name)
    return found


def is_of_library(module: str) -> bool:
    """Whether a module is one of Python or of an installed library, imported or not."""
    return module.partition(".")[0] in sys.stdlib_module_names or is_library(module)
