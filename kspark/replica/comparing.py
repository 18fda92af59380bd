"""Compare an object with its copy by their attributes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import numpy as np

from kspark.replica.pickling import LIBRARIES

T = TypeVar("T")

SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic)
SEQUENCES = (list, tuple)


def shallow_copy(obj: T, **attributes: Any) -> T:
    """Return an object of the same class with the same attributes, except for those given.

    It does not call the class, so that the original does not change.
    """
    copy = object.__new__(type(obj))
    vars(copy).update({**vars(obj), **attributes})
    return copy


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore Python's and NumPy's global random state, from which Keras draws seeds."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def is_own(obj: Any) -> bool:
    """Whether a function, or the class of an object, belongs to no library that workers have."""
    thing = obj if isinstance(obj, FunctionType) else type(obj)
    package = (thing.__module__ or "").partition(".")[0]
    return package != "builtins" and package not in LIBRARIES


def changed_attributes(original: Any, copy: Any) -> dict[str, Any]:
    """Return the attributes of an object that its copy lacks, or has with other values.

    Keras' own classes describe themselves completely, so only functions and parts of the user's
    are compared there. Attributes that Keras manages itself are left out, as are those that cannot
    be compared, such as locks, layers and variables.
    """
    whole, theirs = is_own(original), vars(copy)
    return {
        name: value
        for name, value in vars(original).items()
        if name not in managed_names()
        and (whole or has_own(value))
        and is_data(value)
        and (name not in theirs or differ(value, theirs[name]))
    }


def lost_methods(original: Any, copy: Any) -> list[str]:
    """Return the methods of its class that an object, but not its copy, has replaced by its own.

    Those that Keras replaces itself, and functions that `changed_attributes` has, are left out.
    """
    theirs, carried = vars(copy), changed_attributes(original, copy)
    return [
        name
        for name, value in vars(original).items()
        if callable(value)
        and callable(getattr(type(original), name, None))
        and name not in managed_names()
        and name not in carried
        and (name not in theirs or code_of(value) != code_of(theirs[name]))
    ]


def code_of(function: Any) -> Any:
    """Return the code of a function or method, or the class of another callable object."""
    return getattr(getattr(function, "__func__", function), "__code__", type(function))


@lru_cache(maxsize=1)
def managed_names() -> frozenset[str]:
    """Return the attributes that Keras gives to all layers, models and optimizers."""
    import keras

    with untouched_randomness():
        start, last = keras.Input((1,), name="managed_input"), keras.layers.Dense(1, name="managed")
        model = keras.Sequential([start, last], name="managed_sequential")
        functional = keras.Model(start, last(start), name="managed_model")
        optimizer = keras.optimizers.SGD(name="managed_optimizer")
        for each in (model, functional):
            each.compile(optimizer, "mse", metrics=["mse"])
        optimizer.build(model.trainable_variables)
        empty = keras.layers.Layer(name="managed_layer")
    return frozenset().union(*map(vars, (model, functional, optimizer, empty)))


def has_own(value: Any) -> bool:
    """Whether a value is, or contains, a function or an object of the user's."""
    if isinstance(value, Mapping):
        return any(map(has_own, value.values()))
    if isinstance(value, SEQUENCES):
        return any(map(has_own, value))
    return is_own(value)


def is_data(value: Any, depth: int = 4) -> bool:
    """Whether a value is plain data, a function, or an object of the user's that holds such.

    Args:
        value: Any object.
        depth: Integer, how deep the user's own objects may be nested. Defaults to `4`.
    """
    if isinstance(value, (*SCALARS, np.ndarray, FunctionType)):
        return True
    if isinstance(value, Mapping):
        return all(is_data(item, depth) for item in value.values())
    if isinstance(value, (*SEQUENCES, set, frozenset)):
        return all(is_data(item, depth) for item in value)
    if isinstance(value, partial):
        return all(is_data(item, depth) for item in parts_of_partial(value))
    return is_part(value) or (depth > 0 and is_record(value) and is_data(vars(value), depth - 1))


def is_record(value: Any) -> bool:
    """Whether a value is an object of the user's own class that is no layer or variable."""
    import keras

    live = keras.Layer | keras.Variable | keras.optimizers.Optimizer
    return is_own(value) and hasattr(value, "__dict__") and not isinstance(value, live)


def is_part(value: Any) -> bool:
    """Whether a value is a constraint, regularizer, initializer, loss or metric of Keras."""
    import keras

    kinds = (
        keras.constraints.Constraint,
        keras.regularizers.Regularizer,
        keras.initializers.Initializer,
        keras.losses.Loss,
        keras.metrics.Metric,
    )
    return isinstance(value, kinds)


def differ(left: Any, right: Any) -> bool:
    """Whether two values differ. Values that cannot be compared count as equal."""
    if left is right:
        return False
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return not same_arrays(left, right)
    if isinstance(left, SCALARS) or isinstance(right, SCALARS):
        return type(left) is not type(right) or not same_scalars(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() != right.keys() or any(differ(left[k], right[k]) for k in left)
    if isinstance(left, SEQUENCES) and isinstance(right, SEQUENCES):
        return len(left) != len(right) or any(map(differ, left, right))
    if isinstance(left, (set, frozenset)) and isinstance(right, (set, frozenset)):
        return left != right
    if isinstance(left, partial) and isinstance(right, partial):
        return differ(parts_of_partial(left), parts_of_partial(right))
    if isinstance(left, FunctionType) and isinstance(right, FunctionType):
        return functions_differ(left, right)
    if isinstance(left, (MethodType, ModuleType, type)):
        return False
    if type(left) is not type(right):
        return type(left).__qualname__ != type(right).__qualname__
    return (is_part(left) or is_record(left)) and differ(vars(left), vars(right))


def parts_of_partial(value: partial[Any]) -> list[Any]:
    """Return the function and the arguments of a partial function."""
    return [value.func, value.args, value.keywords]


def same_arrays(left: Any, right: Any) -> bool:
    """Whether two values are arrays of the same type, shape and values."""
    if not isinstance(left, np.ndarray) or not isinstance(right, np.ndarray):
        return False
    return left.dtype == right.dtype and np.array_equal(
        left, right, equal_nan=left.dtype.kind == "f"
    )


def same_scalars(left: Any, right: Any) -> bool:
    """Whether two scalars are equal; NaN equals NaN."""
    return bool(left == right or (left != left and right != right))


def functions_differ(left: FunctionType, right: FunctionType) -> bool:
    """Whether two functions differ in their code, their defaults or the values that they enclose.

    A lambda always differs: Keras saves it without the global names that it uses.
    """
    if left.__name__ == "<lambda>" or left.__code__ != right.__code__:
        return True
    pairs = [
        (enclosed_values(left), enclosed_values(right)),
        (left.__defaults__, right.__defaults__),
        (left.__kwdefaults__, right.__kwdefaults__),
        (left.__module__, right.__module__),
    ]
    return any(differ(*pair) for pair in pairs)


def enclosed_values(function: FunctionType) -> list[Any]:
    """Return the values that a function encloses. A variable without a value yet is left out."""
    values = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            values.append(cell.cell_contents)
    return values
