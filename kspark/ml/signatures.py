"""Signatures and docstrings of stages, made from their Params.

The constructor of a stage takes its Params as `**params`. `inspect.signature`, `help()` and
completion show them one by one. Type checkers read them in `accessors.pyi`.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from inspect import Parameter, Signature
from typing import Any

from pyspark.ml.param import Param

PARAMS = "params"
"""Name of the argument of a constructor that takes the Params."""

ENTRY = re.compile(rf"^( *)\*\*{PARAMS}: .*\n(?:\1 +.*\n)*", re.MULTILINE)
"""The entry of this argument in a docstring."""

WIDTH = 100
MODULES = ("typing.", "collections.abc.", "pyspark.ml.param.")


class StageParam(Param[Any]):
    """A Param whose type is known.

    Args:
        parent: The parent of the Param.
        name: String, name of the Param.
        doc: String, a short description.
        converter: Function that checks a value and converts it.
        kind: Type of the values that a user sets.
    """

    def __init__(self, parent: Any, name: str, doc: str, converter: Any, kind: Any) -> None:
        super().__init__(parent, name, doc, converter)
        self.kind = kind


def add_accessors(cls: type, name: str, param: StageParam) -> None:
    """Add the getter and the setter of a Param to a class, unless the class defines them."""

    def get(self: Any) -> Any:
        return self.getOrDefault(name)

    def put(self: Any, value: Any) -> Any:
        return self._set(**{name: value})

    put.__annotations__["value"] = param.kind
    title, doc = name[0].upper() + name[1:], param.doc
    texts = {"get": f"The value of `{name}`: {doc}", "set": f"Set `{name}`: {doc} Returns `self`."}
    for verb, accessor in (("get", get), ("set", put)):
        if not hasattr(cls, verb + title):
            accessor.__name__ = verb + title
            accessor.__qualname__ = f"{cls.__name__}.{verb}{title}"
            accessor.__doc__ = texts[verb]
            setattr(cls, verb + title, accessor)


def params_of(cls: type) -> dict[str, StageParam]:
    """Return the Params of a class by name, those of the first base class first."""
    found: dict[str, StageParam] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, StageParam):
                found.setdefault(name, value)
    return found


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the default values in `DEFAULTS` of a class and its base classes."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base).get("DEFAULTS", {}))
    return found


def signature_of(cls: type) -> Signature:
    """Return the signature of a class, with its Params in place of `**params`."""
    constructor = inspect.signature(cls.__init__)  # type: ignore[misc]
    given = list(constructor.parameters.values())[1:]
    if not given or (given[-1].name, given[-1].kind) != (PARAMS, Parameter.VAR_KEYWORD):
        return constructor.replace(parameters=given, return_annotation=Signature.empty)
    return Signature([*given[:-1], *parameters_of(cls)])


def parameters_of(cls: type) -> Iterator[Parameter]:
    """Yield the Params of a class as parameters of its constructor."""
    defaults = defaults_of(cls)
    for name, param in params_of(cls).items():
        default = defaults.get(name)
        kind = param.kind if default is not None or param.kind is Any else param.kind | None
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def documented(cls: type) -> str | None:
    """Return the docstring of a class with an entry for each Param in place of `**params`."""
    text = vars(cls).get("__doc__")
    if text is None or (entry := ENTRY.search(text)) is None:
        return text
    defaults, indent = defaults_of(cls), entry[1]
    entries = (described(param, defaults) for param in params_of(cls).values())
    wrapped = (
        textwrap.fill(
            line,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in entries
    )
    lines = "".join(f"{line}\n" for line in wrapped)
    return text[: entry.start()] + lines + text[entry.end() :]


def described(param: StageParam, defaults: Mapping[str, Any]) -> str:
    """Return the entry of a Param in a docstring."""
    default = defaults.get(param.name)
    shown = f'"{default}"' if isinstance(default, str) else repr(default)
    return f"{param.name}: {type_text(param.kind)}, {param.doc} Defaults to `{shown}`."


def type_text(kind: Any) -> str:
    """Return a type as Python source."""
    text = inspect.formatannotation(kind)
    for module in MODULES:
        text = text.replace(module, "")
    return text
