"""Every public name is listed in `__all__`, and explained by its docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import EnumMeta
from functools import cached_property
from typing import Any

import pytest

import kspark.ml

MODULES = (
    "kspark",
    "kspark.compression",
    "kspark.data",
    "kspark.ml",
    "kspark.mllib",
    "kspark.optimizers",
    "kspark.session",
)

# Elephas' base classes, which hold one Param each and are not made by users.
ONE_PARAM = {f"kspark.ml.{name}" for name in kspark.ml.__all__ if name.startswith("Has")}

SECTION = re.compile(r"^(Args|Attributes|Examples?|Raises|References?|Returns|Yields):$", re.M)

# Functions that pass on the errors of others: their own source has no `raise`.
RAISES = {
    "kspark.SparkModel",
    "kspark.SparkModel.evaluate",
    "kspark.SparkModel.fit",
    "kspark.SparkModel.save",
    "kspark.check_cluster",
    "kspark.load_spark_model",
    "kspark.ml.KerasEstimator",
    "kspark.ml.KerasModel",
    "kspark.session.local_session",
}


def sections(doc: str) -> dict[str, str]:
    """The sections of a docstring by their titles; what comes before them is under ""."""
    parts = SECTION.split(doc)
    titles = ["", *(title.rstrip("s") for title in parts[1::2])]
    return dict(zip(titles, parts[::2], strict=True))


def public_names(module: str) -> list[str]:
    return [n for n in importlib.import_module(module).__all__ if not n.startswith("__")]


def order(name: str) -> tuple[int, str]:
    """Constants, classes, then the rest, as ruff sorts `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def function_of(value: Any) -> Any:
    """The function behind a method or property, or `None`."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, cached_property):
        value = value.func
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    return inspect.unwrap(value) if inspect.isfunction(value) else None


def public_objects() -> dict[str, Any]:
    """Public classes and functions by dotted name; what two modules offer, once."""
    found: dict[int, tuple[str, Any]] = {}
    for module in MODULES:
        for name in public_names(module):
            value = getattr(importlib.import_module(module), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(id(value), (f"{module}.{name}", value))
    return dict(found.values())


def public_members(objects: dict[str, Any]) -> dict[str, tuple[type, str, Any]]:
    """Class, name and function of the public methods and properties that kspark defines.

    A method is looked at where it is first public: once, however many classes inherit it.
    """
    found: dict[Any, tuple[str, tuple[type, str, Any]]] = {}
    for owner, cls in objects.items():
        for name in sorted(dir(cls)) if inspect.isclass(cls) else ():
            function = function_of(inspect.getattr_static(cls, name, None))
            if function and not name.startswith("_") and function.__module__.startswith("kspark"):
                found.setdefault((function, name), (f"{owner}.{name}", (cls, name, function)))
    return dict(found.values())


OBJECTS = public_objects()
MEMBERS = public_members(OBJECTS)


def docs_of(name: str) -> list[dict[str, str]]:
    """Sections of a public name's docstring, and of the docstrings that it inherits."""
    if name in MEMBERS:
        cls, member, _ = MEMBERS[name]
        values = [vars(base)[member] for base in cls.__mro__ if member in vars(base)]
        found = [getattr(function_of(value), "__doc__", None) for value in values]
    elif inspect.isclass(OBJECTS[name]):
        found = [c.__doc__ for c in OBJECTS[name].__mro__ if c.__module__.startswith("kspark")]
    else:
        found = [OBJECTS[name].__doc__]
    return [sections(inspect.cleandoc(doc)) for doc in found if doc]


def parameters_of(name: str) -> list[str]:
    """Parameters to explain: not the members of an enumeration, nor the value of a Param.

    `explainParams()` explains what the setter of a Param takes.
    """
    if name in OBJECTS and isinstance(OBJECTS[name], EnumMeta):
        return []
    function = MEMBERS[name][2] if name in MEMBERS else OBJECTS[name]
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
    setter = re.search(r"^kspark\.ml\..*\.set\w+$", name) and len(parameters) == 1
    return [] if setter else parameters


def raises(function: Any) -> bool:
    """Whether a function's own source raises anything; what dataclasses generate has none."""
    if function.__code__.co_filename.startswith("<"):
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(tree))


def raising() -> Iterator[str]:
    for name, value in {**OBJECTS, **{name: entry[2] for name, entry in MEMBERS.items()}}.items():
        if inspect.isclass(value):
            value = function_of(vars(value).get("__post_init__", vars(value).get("__init__")))
        if name in RAISES or (value is not None and raises(value)):
            yield name


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_its_names_exist(module):
    listed = importlib.import_module(module).__all__
    assert listed == sorted(listed, key=order)
    assert [n for n in listed if not hasattr(importlib.import_module(module), n)] == []


@pytest.mark.parametrize("module", MODULES)
def test_all_has_every_public_name_that_the_module_defines(module):
    imported = importlib.import_module(module)
    for name, value in vars(imported).items():
        defined = getattr(value, "__module__", None) or ""
        own = inspect.isfunction(value) and defined == module
        own |= inspect.isclass(value) and (f"{defined}.").startswith(f"{module}.")
        assert not own or name.startswith("_") or name in imported.__all__, name


@pytest.mark.parametrize("name", [*OBJECTS, *MEMBERS])
def test_every_public_name_has_a_docstring_that_explains_its_arguments(name):
    docs = docs_of(name)
    assert docs and docs[0][""].strip()
    explained = "".join(doc.get("Arg", "") + doc.get("Attribute", "") for doc in docs)
    parameters = [] if name in ONE_PARAM else parameters_of(name)
    missing = [p for p in parameters if not re.search(rf"(?<!\w){re.escape(p)}(?!\w)", explained)]
    assert missing == []


@pytest.mark.parametrize("name", sorted(raising()))
def test_errors_of_public_names_are_documented(name):
    assert any(doc.get("Raise", "").strip() for doc in docs_of(name))


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_class_and_function_has_an_example(name):
    own = docs_of(name)[0]
    assert name in ONE_PARAM or own.get("Example", "").strip() or ">>> " in "".join(own.values())
