"""`preprocess` and `augment` in files: a layer as its Keras file, a function by its import name."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kspark import saving
from kspark.errors import Described, invalid
from kspark.replica.file_facts import PREFIX as FACTS
from kspark.replica.file_facts import FileFacts
from kspark.replica.import_names import name_to_save, restored
from kspark.replica.model_bytes import NOT_BUILT
from kspark.replica.steps import container_of

FUNCTION, LAYER, MODEL = "function", "layer", "model"
"""Kinds of steps in files. A layer that is no model is saved in a model that contains it alone."""


def kind_of(step: Any) -> str:
    """Return the kind of a step."""
    if not isinstance(step, keras.Layer):
        return FUNCTION
    return MODEL if isinstance(step, keras.Model) else LAYER


PREFIX = "kspark/steps/"
"""Prefix of the names of the arrays of steps, beside which a file has those of other parts."""


@dataclass(frozen=True)
class SavedStep:
    """A step as data of the file of a `SparkModel`.

    Attributes:
        config: Dictionary of JSON data: empty, or the argument with its kind and its name.
        arrays: Dictionary of arrays: the bytes of a Keras file, by `PREFIX` and the argument.
    """

    config: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, argument: str, step: Any, custom_objects: Mapping[str, Any]) -> SavedStep:
        """Describe a step.

        Args:
            argument: String, its argument.
            step: Function, layer or `None`.
            custom_objects: Mapping from names to objects.

        Raises:
            ValueError: If it is a function that cannot be imported.
        """
        if step is None:
            return cls()
        kind = kind_of(step)
        if kind == FUNCTION:
            return cls({argument: {"kind": kind, "name": name_to_save(step, argument)}})
        with tempfile.TemporaryDirectory(prefix="kspark-") as folder:
            path = Path(folder) / "step.keras"
            save_layer(step, str(path), custom_objects)
            content = np.frombuffer(path.read_bytes(), np.uint8)
        return cls({argument: {"kind": kind}}, {PREFIX + argument: content})

    def load(self, argument: str, custom_objects: Mapping[str, Any], *, safe_mode: bool) -> Any:
        """Return the step, or `None`.

        Args:
            argument: String, its argument.
            custom_objects: Mapping from names to objects.
            safe_mode: Boolean, whether to refuse code, and functions that a file may not name.

        Raises:
            ValueError: If it is refused, or not found.
        """
        saved = self.config.get(argument)
        if saved is None:
            return None
        if saved["kind"] == FUNCTION:
            return restored(saved["name"], argument, custom_objects, safe_mode=safe_mode)
        with tempfile.TemporaryDirectory(prefix="kspark-") as folder:
            path = Path(folder) / "step.keras"
            path.write_bytes(self.arrays[PREFIX + argument].tobytes())
            return load_layer(saved["kind"], str(path), custom_objects, safe_mode=safe_mode)


def check_names(state: Mapping[str, np.ndarray]) -> None:
    """Check that the arrays of a server optimizer have none of the names of a file's own arrays.

    Raises:
        ValueError: If one has.
    """
    for name in state:
        if name.startswith((PREFIX, FACTS)):
            rule = f"one whose state has no names that begin with {PREFIX!r} or {FACTS!r}"
            raise invalid("server_optimizer", rule, Described(f"the name {name!r}"))


def save_layer(
    layer: keras.Layer, path: str, custom_objects: Mapping[str, Any], spark: Any = None
) -> None:
    """Write a layer as a Keras file.

    Args:
        layer: `keras.Layer`.
        path: String that ends in `.keras`: a local path, or a URI that Spark can write.
        custom_objects: Mapping from names to objects.
        spark: `SparkSession` for a URI. Defaults to `None`.
    """
    model = container_of(layer)
    facts = FileFacts.of(model, custom_objects)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NOT_BUILT)
        saving.save_model(model, {}, path, spark=spark, server_state=facts.arrays, facts=facts.data)


def load_layer(
    kind: str, path: str, custom_objects: Mapping[str, Any], *, safe_mode: bool, spark: Any = None
) -> keras.Layer:
    """Read a layer that `save_layer` wrote.

    Args:
        kind: String, `"layer"` or `"model"`.
        path: String, as in `save_layer`.
        custom_objects: Mapping from names to objects.
        safe_mode: Boolean, whether to refuse a file that contains Python code.
        spark: `SparkSession` for a URI. Defaults to `None`.
    """
    loaded = saving.load_model(
        path, custom_objects=custom_objects, safe_mode=safe_mode, spark=spark
    )
    facts, _ = FileFacts.loaded(loaded.facts, loaded.server_state)
    facts.apply(loaded.model, custom_objects, safe_mode=safe_mode)
    return loaded.model if kind == MODEL else loaded.model.layers[0]
