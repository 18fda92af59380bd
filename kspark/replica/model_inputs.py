"""Check that what `preprocess` and `augment` return are the inputs of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import Described, invalid
from kspark.replica.signature import DICT, LIST
from kspark.shards import TEXT

if TYPE_CHECKING:
    from kspark.shards import ArraySpec, InputSpec


def as_arrays(argument: str, value: Any, inputs: InputSpec, count: int) -> list[np.ndarray]:
    """Return one array per input of the model, in the dtypes and shapes that it takes.

    Args:
        argument: String, the argument whose step returned `value`, for errors.
        value: Array or tensor, or list or dictionary of these, as the model takes them.
        inputs: `InputSpec` of the model.
        count: Integer, the number of rows of the batch.

    Raises:
        ValueError: If these are not the inputs of the model, or have another number of rows.
    """
    specs = inputs.inputs
    parts = parts_of(argument, value, specs)
    pairs = zip(parts, specs, strict=True)
    return [as_input(argument, part, spec, count, len(specs) > 1) for part, spec in pairs]


def as_inputs(arrays: Sequence[np.ndarray], inputs: InputSpec) -> Any:
    """Return the arrays of all inputs in the structure that the model takes."""
    if inputs.x_structure == DICT:
        return dict(zip((spec.name for spec in inputs.inputs), arrays, strict=True))
    return list(arrays) if inputs.x_structure == LIST else arrays[0]


def parts_of(argument: str, value: Any, specs: Sequence[ArraySpec]) -> list[Any]:
    """Return one part of a value per input of the model.

    Raises:
        ValueError: If there are other parts.
    """
    names = [spec.name for spec in specs]
    if isinstance(value, Mapping) and set(value) == set(names):
        return [value[name] for name in names]
    if isinstance(value, list | tuple) and len(value) == len(names) and all(map(is_array, value)):
        return list(value)
    if len(names) == 1 and is_array(value):
        return [value]
    one = f"an array, the input of the model {names[0]!r}"
    several = f"a dictionary of arrays with the keys {names}, or a list in this order"
    raise refused(argument, one if len(names) == 1 else several, shown(value), specs[0])


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def as_input(argument: str, value: Any, spec: ArraySpec, count: int, several: bool) -> np.ndarray:
    """Return the array of one input in the dtype and the shape that the model takes.

    Raises:
        ValueError: If it does not fit.
    """
    where = f" for the input {spec.name!r}" if several else ""
    array = host_array(argument, value, where)
    if array.ndim == 0 or len(array) != count:
        rule = f"as many rows as it gets, {count}{where}"
        raise refused(argument, rule, f"an array of shape {array.shape}", spec)
    shape = fitting(array.shape[1:], spec.shape)
    if shape is None:
        rule = f"rows of shape {spec.shape}, which the model takes{where}"
        raise refused(argument, rule, f"rows of shape {array.shape[1:]}", spec)
    is_text = array.dtype == object
    if array.dtype.kind not in "biufO" or (spec.dtype and is_text != (spec.dtype == TEXT)):
        rule = f"{'text' if spec.dtype == TEXT else 'numbers'}{where}"
        raise refused(argument, rule, "text" if is_text else f"an array of {array.dtype}", spec)
    if not is_text and spec.dtype:
        array = as_numbers(argument, array, spec.dtype, where)
    return array.reshape(count, *shape)


def host_array(argument: str, value: Any, where: str) -> np.ndarray:
    """Return an array or a tensor as a NumPy array; text as an object array of `str`.

    Raises:
        ValueError: If it has no shape of its own, such as a ragged tensor.
    """
    import keras

    try:
        array = value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise refused(argument, f"dense arrays{where}", type(value).__name__) from error
    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype.kind not in "OSU":
        return array
    text = [v.decode() if isinstance(v, bytes) else v for v in array.flat]
    if not all(isinstance(v, str) for v in text):
        raise refused(argument, f"numbers or text{where}", "an array of objects")
    out = np.empty(array.size, object)
    out[:] = text
    return out.reshape(array.shape)


def as_numbers(argument: str, array: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """Cast numbers to the dtype of an input.

    Raises:
        ValueError: If it is one of integers, and cannot represent a value.
    """
    wanted = np.dtype("float32" if dtype == "bfloat16" else dtype)
    if wanted == array.dtype:
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        found = array.astype(wanted)
    if wanted.kind != "f" and (found != array).any():
        rule = f"whole numbers that fit {wanted}{where}"
        raise refused(argument, rule, f"an array of {array.dtype} with other numbers")
    return found


def fitting(found: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> Any:
    """Return the shape of rows as the model takes them, or `None` if they do not fit.

    As in Keras, a last axis of 1 may be missing or surplus.
    """
    if wanted is None:
        return found
    for shape in (found, (*found, 1), found[:-1] if found[-1:] == (1,) else found):
        pairs = zip(shape, wanted, strict=False)
        if len(shape) == len(wanted) and all(w in (None, n) for n, w in pairs):
            return shape
    return None


def refused(argument: str, rule: str, found: str, spec: ArraySpec | None = None) -> ValueError:
    """Return the error for what a step returned, with the line that a function may end with.

    Args:
        argument: String, the argument whose step it was.
        rule: String, what the step must return.
        found: String, what it returned.
        spec: `ArraySpec` of an input of the model. Defaults to `None`.
    """
    shape = ""
    if spec is not None and spec.shape is not None:
        sizes = ["rows", *("any" if size is None else str(size) for size in spec.shape)]
        shape = f" of shape ({', '.join(sizes)})"
    advice = f"A function can end with `return np.asarray(...)`{shape}"
    return invalid(argument, f"a step that returns {rule}", Described(f"{found}. {advice}"))


def shown(value: Any) -> str:
    """Describe what a step returned."""
    if isinstance(value, Mapping):
        return f"a dictionary with the keys {list(value)}"
    if isinstance(value, list | tuple):
        kinds = sorted({type(part).__name__ for part in value})
        return f"a {type(value).__name__} of {len(value)} values of {', '.join(kinds)}"
    if is_array(value):
        return f"an array of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
