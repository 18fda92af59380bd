"""Pickle objects by value, so that workers need only the libraries that they import.

cloudpickle pickles functions and classes of `__main__` by value. `by_value` adds those of the
user's own modules. Losses and metrics are pickled attribute by attribute, because Keras would
pickle them through `get_config`, which many of them do not have.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

LIBRARIES = frozenset(
    {"jax", "keras", "kspark", "numpy", "py4j", "pyarrow", "pyspark", "tensorflow", "torch"}
)
"""Packages that are pickled by name, wherever they are installed."""

REGISTERED: Counter[str] = Counter()
"""Number of active `by_value` blocks, in all threads, per module that kspark registered."""

REGISTRY_LOCK = Lock()
"""Guards `REGISTERED` and cloudpickle's registry while they change, but not pickling itself."""


def dump(objects: Mapping[str, Any], known: Sequence[Any] = ()) -> bytes:
    """Pickle objects; those of the user's own modules by value.

    Args:
        objects: Mapping from name to object.
        known: Sequence of layers and variables. References to them are pickled as their
            positions, and `load` replaces them by those of the copy. Defaults to `()`.

    Raises:
        ValueError: If an object cannot be pickled, for instance because it refers to
            a live model. The message names the object.
    """
    try:
        return pickled(dict(objects), known)
    except Exception as error:  # Objects of libraries raise errors of their own.
        raise unpicklable(objects, known, error) from error


def dump_with_layers(objects: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
    """Pickle objects as `dump` does. Returns the layers in them apart: `load` needs copies."""
    layers: list[Any] = []
    try:
        return pickled(dict(objects), (), layers), layers
    except Exception as error:  # Objects of libraries raise errors of their own.
        raise unpicklable(objects, layers, error) from error


def load(data: bytes, known: Sequence[Any] = ()) -> dict[str, Any]:
    """Unpickle objects, the inverse of `dump`.

    This is safe: the bytes come from `dump` in this process, or from that of the driver whose
    job, and so whose code, runs here.

    Args:
        data: Bytes that `dump` returned.
        known: Sequence of the copies of the layers and variables that `dump` got. Defaults to
            `()`.
    """

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            return known[pid]

    objects: dict[str, Any] = Unpickler(io.BytesIO(data)).load()
    return objects


def pickled(
    objects: dict[str, Any], known: Sequence[Any], layers: list[Any] | None = None
) -> bytes:
    """Pickle objects, and refuse those that refer to live models that are not `known`.

    With a list of `layers`, layers that are not known are appended to it, and become known.
    """
    import keras
    from pyspark import cloudpickle

    positions = {id(thing): i for i, thing in enumerate(known)}
    states: set[int] = set()
    live = (keras.Layer, keras.optimizers.Optimizer)

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, obj: Any) -> int | None:
            if id(obj) in positions:
                return positions[id(obj)]
            if layers is not None and isinstance(obj, keras.Layer):
                layers.append(obj)
                return positions.setdefault(id(obj), len(layers) - 1)
            if isinstance(obj, live) or is_foreign_variable(obj):
                raise pickle.PicklingError(refers_to_live(obj))
            return None

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, keras.metrics.Metric) and resets_to_zero(obj):
                states.update(map(id, obj.variables))
            reduced = reduced_by_value(obj, is_zero=id(obj) in states)
            return super().reducer_override(obj) if reduced is None else reduced

    stream = io.BytesIO()
    with by_value():
        Pickler(stream).dump(objects)
    return stream.getvalue()


def is_foreign_variable(obj: Any) -> bool:
    """Whether an object is a variable of TensorFlow itself, whose changes kspark cannot follow."""
    package = type(obj).__module__.partition(".")[0]
    return package == "tensorflow" and hasattr(obj, "assign") and hasattr(obj, "trainable")


def refers_to_live(obj: Any) -> str:
    """Return the reason why an object cannot be pickled."""
    kind = type(obj).__name__
    if is_foreign_variable(obj):
        return f"it refers to a {kind} of TensorFlow. Use a `keras.Variable` instead."
    return (
        f"it refers to the live {kind} {getattr(obj, 'name', '')!r}, whose weights "
        f"would be copied. Make the {kind} a part of the model instead."
    )


def unpicklable(objects: Mapping[str, Any], known: Sequence[Any], error: Exception) -> ValueError:
    """Return the error that names the object that cannot be pickled."""
    for name, value in objects.items():
        for leaf in leaves(value):
            try:
                pickled({name: leaf}, known)
            except Exception as reason:  # noqa: BLE001
                title = getattr(leaf, "__name__", None) or name
                text = str(reason) or type(reason).__name__
                return ValueError(f"{title!r} cannot be sent to the workers: {text}")
    return ValueError(f"{', '.join(objects)} cannot be sent to the workers: {error}")


def leaves(value: Any) -> Iterator[Any]:
    """Yield the values in nested lists and mappings."""
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple):
        yield value
        return
    for part in parts:
        yield from leaves(part)


# -- objects of Keras ---------------------------------------------------------------------------


def of_keras(obj: Any) -> bool:
    """Whether an object is an instance of a class of Keras itself."""
    return type(obj).__module__.partition(".")[0] == "keras"


def takes_variables(part: Any) -> bool:
    """Whether variables are among the arguments that a loss or a metric passes to its function."""
    import keras

    arguments = [value for value in vars(part).values() if isinstance(value, Mapping)]
    return any(isinstance(value, keras.Variable) for value in leaves(arguments))


def resets_to_zero(metric: Any) -> bool:
    """Whether a metric sets all of its variables to zero before it is used.

    Those of Keras 3.12 to 3.15 do, except for variables among the arguments of their functions. A
    subclass may have a variable that the inherited `reset_state` does not know.
    """
    return of_keras(metric) and not takes_variables(metric)


def reduced_by_value(obj: Any, *, is_zero: bool = False) -> tuple[Any, ...] | None:
    """Return how to pickle an object of Keras by value; `None` for all other objects.

    Args:
        obj: Object of any kind.
        is_zero: Boolean, whether it is a variable that will be zero when it is used. Then its value
            is left out, so that the bytes do not depend on it. Defaults to `False`.
    """
    import keras

    if isinstance(obj, keras.Variable):
        value = np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(obj)))
        value = np.zeros_like(value) if is_zero else value
        return make_variable, (value, str(obj.dtype), obj.trainable, obj.name, obj.aggregation)
    for base in (keras.losses.Loss, keras.metrics.Metric):
        if isinstance(obj, base):
            dtype = getattr(obj, "dtype", None)
            state = own_attributes(obj, base)
            return make_compiled_part, (type(obj), base, dtype), state, None, None, set_attributes
    if type(obj).__module__.startswith("keras."):
        for kind in (dict, list, set):  # Keras replaces containers by classes that track them.
            if isinstance(obj, kind):
                return kind, (kind(obj),)
    return None


def make_variable(
    value: np.ndarray, dtype: str, trainable: bool, name: str, aggregation: str
) -> Any:
    """Make a `keras.Variable`."""
    import keras

    return keras.Variable(
        value, dtype=dtype, trainable=trainable, name=name, aggregation=aggregation
    )


def make_compiled_part(kind: type, base: type, dtype: str | None) -> Any:
    """Make a loss or a metric without calling the constructor of its own class.

    Args:
        kind: Class, a subclass of `base`.
        base: Class, `keras.losses.Loss` or `keras.metrics.Metric`.
        dtype: String, or `None` for Keras' default.
    """
    part: Any = object.__new__(kind)
    base.__init__(part, dtype=dtype)  # type: ignore[misc]
    return part


def own_attributes(obj: Any, base: Any) -> dict[str, Any]:
    """Return the attributes of a loss or a metric that its base class does not manage."""
    managed = {name for name in vars(base(name="any")) if name.startswith("_")}
    return {name: value for name, value in vars(obj).items() if name not in managed}


def set_attributes(obj: Any, attributes: Mapping[str, Any]) -> None:
    """Assign attributes, so that Keras tracks variables, layers and metrics among them."""
    for name, value in attributes.items():
        setattr(obj, name, value)


# -- modules ------------------------------------------------------------------------------------


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
    return is_library_file(file)


@lru_cache(maxsize=32768)
def is_library_file(file: str) -> bool:
    """Whether a file of a module is part of Python or of an installed package.

    Cached, because each copy of a model checks thousands of modules.
    """
    if os.path.islink(file):
        file = os.path.realpath(file)
    return is_library_folder(os.path.dirname(file))


@lru_cache(maxsize=4096)
def is_library_folder(folder: str) -> bool:
    """Whether the modules in a folder are part of Python or of an installed package.

    Cached, because thousands of modules are in a few hundred folders.
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
