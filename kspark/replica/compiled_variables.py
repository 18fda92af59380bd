"""Find the variables that a model's compiled loss and metrics use and that the model lacks.

Callbacks assign such variables, for instance the weight of a part of the loss, so they must be the
same on the driver and on the workers. A loss or a metric has them as attributes, or its functions
refer to them.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from kspark.replica.comparing import SCALARS, enclosed_values
from kspark.replica.compile_arguments import compile_arguments
from kspark.replica.pickling import is_library

if TYPE_CHECKING:
    import keras


def compiled_variables(model: keras.Model) -> list[Any]:
    """Return the variables of the loss and the metrics, in an order that all copies share.

    Variables of the model, of its optimizer, and of its metrics' states are not among them.

    Args:
        model: `keras.Model`, compiled or not.
    """
    if not model.compiled:
        return []
    arguments = compile_arguments(model)
    compiled = [arguments[name] for name in ("loss", "metrics", "weighted_metrics")]
    found = list(variables_in(compiled, set()))
    if not found:
        return []
    known = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    excluded = {id(variable) for variable in known}
    return [variable for variable in found if id(variable) not in excluded]


def variables_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the Keras variables to which a value refers, each once.

    Args:
        value: Object of any kind. Layers, optimizers and the states of metrics are not searched.
        seen: Set of the ids of objects that were searched before, which is extended.
    """
    import keras

    if isinstance(value, SCALARS) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.Variable):
        yield value
        return
    if isinstance(value, keras.metrics.Metric):
        seen.update(map(id, value.variables))  # the metric's state
    for part in parts_of(value):
        yield from variables_in(part, seen)


def parts_of(value: Any) -> list[Any]:
    """Return the objects to which a container, a function, a loss or a user's object refers."""
    import keras

    if isinstance(value, keras.Layer | keras.optimizers.Optimizer | type):
        return []
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, FunctionType):
        return enclosed(value)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, keras.losses.Loss | keras.metrics.Metric) or is_users(type(value)):
        return [*getattr(value, "__dict__", {}).values(), *methods_of(type(value))]
    return []


def is_users(kind: type) -> bool:
    """Whether a class is not part of Python or of an installed package."""
    return kind.__module__ != "builtins" and not is_library(kind.__module__)


def methods_of(kind: type) -> list[FunctionType]:
    """Return the functions of a class and of its bases, except those of libraries."""
    bases = [base for base in kind.__mro__ if is_users(base)]
    return [f for base in bases for f in vars(base).values() if isinstance(f, FunctionType)]


def enclosed(function: FunctionType) -> list[Any]:
    """Return the values that a function encloses, its defaults, and the globals that it uses."""
    used = [function.__globals__[name] for name in used_globals(function)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*enclosed_values(function), *defaults, *used]


def used_globals(function: FunctionType) -> list[str]:
    """Return the global names that a function uses and that are defined where it lives."""
    return [name for name in names_in(function.__code__) if name in function.__globals__]


def names_in(code: CodeType) -> list[str]:
    """Return the global names that code uses, also in the functions that it defines."""
    names = [
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    ]
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [*dict.fromkeys(names), *(name for part in inner for name in names_in(part))]
