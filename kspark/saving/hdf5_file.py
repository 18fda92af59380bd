"""The `.h5` file: Keras' legacy HDF5 file, with the configuration attribute of Elephas.

The root attribute `distributed_config` is the JSON that Elephas writes. Elephas and DL4J's
importer read it:

    {"class_name": "SparkModel", "config": {"mode": ..., "frequency": ...,
     "parameter_server_mode": ..., "num_workers": ..., "batch_size": ...}}

kspark adds its own document under the key `"kspark"`, and the arrays that the document
lists in the group `kspark_server_state`.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import h5py
import keras
import numpy as np

from kspark.errors import Described, invalid
from kspark.saving.document import Document, checked_class, named, names_in
from kspark.saving.rebuild import rebuilding, refuse_code
from kspark.saving.training_config import compile_arguments, training_config

logger = logging.getLogger("kspark")

ATTRIBUTE = "distributed_config"
STATE = "kspark_server_state"
OPTIMIZER = "optimizer_weights"
ELEPHAS_KEYS = ("mode", "frequency", "parameter_server_mode", "num_workers", "batch_size", "port")


def write(local: str, model: keras.Model, document: Document) -> None:
    """Write the model and the document to the local file `local`.

    Raises:
        ValueError: If the format cannot represent a part of the model.
    """
    refuse_loss(model)
    keras.saving.save_model(model, local, include_optimizer=False)
    compile_config = model.get_compile_config() if model.compiled else None
    content = {
        "class_name": document.class_name,
        "config": elephas_config(document.config),
        "kspark": document.to_dict() | {"compile_config": compile_config},
    }
    with h5py.File(local, "a") as file:
        file.attrs[ATTRIBUTE] = json.dumps(content).encode()
        write_arrays(file.create_group(STATE), document.server_state.values())
        if compile_config is not None:
            config = training_config(compile_config)
            file.attrs["training_config"] = json.dumps(config).encode()
            group, variables = file.create_group(OPTIMIZER), model.optimizer.variables
            group.attrs["weight_names"] = [str(index).encode() for index in range(len(variables))]
            write_arrays(group, (keras.ops.convert_to_numpy(v) for v in variables))


def read(
    local: str, path: str, custom_objects: dict[str, Any], safe_mode: bool
) -> tuple[keras.Model, Document | None]:
    """Read a file that `write`, Elephas or plain Keras wrote.

    Args:
        local: String, name of the local file, ending in `.h5`.
        path: String, name of the file for errors.
        custom_objects: Dictionary from names to objects.
        safe_mode: Boolean, whether to refuse a file that contains code.

    Returns:
        A pair (model, document or `None`).

    Raises:
        ValueError: If the file does not contain a complete model, contains code, or needs
            other custom objects.
    """
    with h5py.File(local, "r") as file:
        content = json_attribute(file, ATTRIBUTE) or {}
        model_config = json_attribute(file, "model_config")
        legacy = json_attribute(file, "training_config")
        compile_config = content.get("kspark", {}).get("compile_config")
        document = read_document(file, content, path)
        if model_config is None:
            raise invalid("path", "a file of a whole Keras model, not of weights only", path)
        configs = [model_config, legacy, compile_config, document.facts if document else {}]
        if safe_mode:
            refuse_code(configs, path)
        with rebuilding(path, configs, custom_objects):
            model = keras.saving.load_model(
                local, custom_objects=custom_objects, compile=False, safe_mode=safe_mode
            )
            with keras.saving.custom_object_scope(custom_objects):
                compile_as_saved(model, compile_config, legacy)
        if model.compiled:
            restore_optimizer(model, file, path)
    return model, document


def elephas_config(config: dict[str, Any]) -> dict[str, Any]:
    """Convert kspark's configuration to that of Elephas and DL4J.

    Both have only two frequencies, and DL4J needs a number of workers.
    """
    frequency = config.get("frequency", "epoch")
    return {
        "mode": config.get("mode", "synchronous"),
        "frequency": frequency if frequency in ("epoch", "batch") else "batch",
        "parameter_server_mode": config.get("parameter_server_mode") or "http",
        "num_workers": config.get("num_workers") or 1,
        "batch_size": config.get("batch_size") or 32,
    }


def read_document(file: h5py.File, content: dict[str, Any], path: str) -> Document | None:
    """Read kspark's document, or make one from Elephas' configuration; `None` without either."""
    if not content:
        return None
    class_name = checked_class(content.get("class_name"), path)
    if "kspark" in content:
        config, names, facts = names_in(content["kspark"], path)
        arrays = (read_array(file[STATE], str(index)) for index in range(len(names)))
        return Document(config, named(names, arrays), class_name, facts)
    config = content.get("config") or {}
    unknown = sorted(set(config) - set(ELEPHAS_KEYS))
    if unknown:
        logger.warning("Ignored %s of %s: Elephas saved but never used them.", unknown, path)
    return Document({k: v for k, v in config.items() if k in ELEPHAS_KEYS}, {}, class_name)


def compile_as_saved(
    model: keras.Model, compile_config: dict[str, Any] | None, legacy: dict[str, Any] | None
) -> None:
    """Compile the model from kspark's compile configuration, or else from the legacy one."""
    if compile_config is not None:
        model.compile_from_config(compile_config)
    elif legacy is not None:
        model.compile(**compile_arguments(legacy))


def restore_optimizer(model: keras.Model, file: h5py.File, path: str) -> None:
    """Restore the variables of the optimizer, or warn if they do not fit."""
    model.optimizer.build(model.trainable_variables)
    if OPTIMIZER not in file:
        return
    group, variables = file[OPTIMIZER], model.optimizer.variables
    arrays = [read_array(group, name) for name in names_attribute(group, "weight_names")]
    saved, wanted = [a.shape for a in arrays], [tuple(v.shape) for v in variables]
    # Before its first step, an optimizer has only scalars (iterations, learning rate).
    if saved != wanted[: len(saved)] or (len(saved) < len(wanted) and any(saved)):
        logger.warning(
            "The optimizer state of %s (Keras %s) does not fit this Keras version. The optimizer "
            "starts without it.",
            path,
            text(file.attrs.get("keras_version", "unknown")),
        )
        return
    for variable, array in zip(variables, arrays, strict=False):
        variable.assign(array)


def refuse_loss(model: keras.Model) -> None:
    """Refuse a model that an HDF5 file cannot represent completely.

    Raises:
        ValueError: If it cannot.
    """
    if getattr(model, "inputs", None) is None:
        kinds = "built, and Sequential or functional, for '.h5' ('.keras' takes any)"
        raise invalid("model", kinds, Described(f"the model {model.name!r}"))
    for layer in layers_of(model):
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory() as directory:
                layer.save_assets(directory)
                if os.listdir(directory):
                    kinds = "without an adapted vocabulary for '.h5' ('.keras' keeps it)"
                    raise invalid("model", kinds, Described(f"the layer {layer.name!r}"))


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of a model, including those of models inside it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)


def write_arrays(group: h5py.Group, arrays: Iterable[np.ndarray]) -> None:
    """Write arrays, with their indices as names."""
    for index, array in enumerate(arrays):
        group.create_dataset(str(index), data=array)


def read_array(group: h5py.Group, name: str) -> np.ndarray:
    """Read an array, but not from another file, to which an HDF5 file can link.

    Raises:
        ValueError: If the array is in another file.
    """
    data = group[name]
    elsewhere = data.file.filename != group.file.filename or data.external or data.is_virtual
    if elsewhere:
        raise ValueError(f"Array {name!r} of {group.file.filename} lies in another file.")
    return np.asarray(data[()])


def names_attribute(group: h5py.Group, name: str) -> list[str]:
    """Read a list of names, which Keras divides into `name0`, `name1`... if it is long."""
    keys = [name] if name in group.attrs else []
    while f"{name}{len(keys)}" in group.attrs:
        keys.append(f"{name}{len(keys)}")
    pieces = [group.attrs[key] for key in keys]
    return [text(item) for piece in pieces for item in piece]


def json_attribute(file: h5py.File, name: str) -> Any:
    """Read the JSON of a root attribute, or return `None` if there is none."""
    return json.loads(text(file.attrs[name])) if name in file.attrs else None


def text(value: str | bytes) -> str:
    """Decode the text of an attribute, which may be of either kind of string."""
    return value.decode() if isinstance(value, bytes) else str(value)
