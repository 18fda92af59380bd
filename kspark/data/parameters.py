"""Elephas' arithmetic on lists of weights, and its conversions of models to dictionaries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

import keras
import numpy as np

from kspark.data.checks import check_kind
from kspark.errors import Described, invalid, invalid_type
from kspark.saving.rebuild import rebuilt, refuse_code

Params = Sequence[np.ndarray]

ARRAYS = "a list of arrays, such as `model.get_weights()`"


def add_params(param_list_left: Params, param_list_right: Params) -> list[np.ndarray]:
    """Add two lists of arrays element by element.

    Example:

    ```python
    updated = add_params(model.get_weights(), deltas)
    ```

    Args:
        param_list_left: List of arrays.
        param_list_right: List of arrays of the same shapes.

    Raises:
        ValueError: If the lists differ in length, or arrays in shape.
        TypeError: If they are no lists.
    """
    return [left + right for left, right in paired(param_list_left, param_list_right)]


def subtract_params(param_list_left: Params, param_list_right: Params) -> list[np.ndarray]:
    """Subtract two lists of arrays element by element.

    Example:

    ```python
    deltas = subtract_params(trained.get_weights(), model.get_weights())
    ```

    Args:
        param_list_left: List of arrays.
        param_list_right: List of arrays of the same shapes, which are subtracted.

    Raises:
        ValueError: If the lists differ in length, or arrays in shape.
        TypeError: If they are no lists.
    """
    return [left - right for left, right in paired(param_list_left, param_list_right)]


def get_neutral(array_list: Params) -> list[np.ndarray]:
    """Return zeros of the same shapes and dtypes as some arrays.

    Example:

    ```python
    total = get_neutral(model.get_weights())
    ```

    Args:
        array_list: List of arrays.
    """
    check_kind("array_list", array_list, (list, tuple), ARRAYS)
    return [np.zeros_like(array) for array in array_list]


def divide_by(array_list: Params, num_workers: float) -> list[np.ndarray]:
    """Divide each array of a list by a number.

    Example:

    ```python
    mean = divide_by(total, num_workers=4)
    ```

    Args:
        array_list: List of arrays.
        num_workers: Number to divide by.
    """
    check_kind("array_list", array_list, (list, tuple), ARRAYS)
    check_kind("num_workers", num_workers, (Number, np.number), "a number")
    return [array / num_workers for array in array_list]


def model_to_dict(model: keras.Model) -> dict[str, Any]:
    """Convert a model to a dictionary, without its optimizer state.

    Example:

    ```python
    copy = dict_to_model(model_to_dict(model))
    ```

    Args:
        model: `keras.Model`.

    Returns:
        Dictionary with `"model"`, the JSON of the model, and `"weights"`, a list of arrays.
    """
    check_kind("model", model, keras.Model, "a keras.Model")
    return {"model": model.to_json(), "weights": model.get_weights()}


def dict_to_model(_dict: Any, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """Convert a dictionary of `model_to_dict` to a model, without optimizer state.

    Example:

    ```python
    copy = dict_to_model(model_to_dict(model))
    ```

    Args:
        _dict: Dictionary that `model_to_dict` made.
        custom_objects: Dictionary from names to custom classes or functions. Defaults to
            `None`.

    Raises:
        TypeError: If `_dict` is not such a dictionary.
        ValueError: If it does not contain a model, contains code, or needs other custom
            objects.
    """
    rule = "a dictionary that `model_to_dict` made"
    if not isinstance(_dict, Mapping) or not {"model", "weights"} <= set(_dict):
        raise invalid_type("_dict", rule, _dict)
    text, objects = _dict["model"], dict(custom_objects or {})
    try:
        config = json.loads(text)
    except (TypeError, json.JSONDecodeError) as error:
        raise invalid("_dict", rule, _dict) from error
    refuse_code(config, "_dict")
    return rebuilt(text, _dict["weights"], objects, "_dict")


def paired(left: Params, right: Params) -> Any:
    """Return pairs of the arrays of two lists, which have the same shapes."""
    check_kind("param_list_left", left, (list, tuple), ARRAYS)
    check_kind("param_list_right", right, (list, tuple), ARRAYS)
    if len(left) != len(right):
        rule = f"a list of as many arrays as the {len(left)} of param_list_left"
        raise invalid("param_list_right", rule, Described(f"{len(right)} arrays"))
    for one, other in zip(left, right, strict=True):
        if np.shape(one) != np.shape(other):
            rule = f"arrays of the same shapes as param_list_left, with {np.shape(one)} among them"
            raise invalid("param_list_right", rule, Described(f"shape {np.shape(other)}"))
    return zip(left, right, strict=True)
