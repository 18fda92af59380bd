"""Read and write the HDF5 files of Elephas' stages.

An estimator is stored as the JSON attribute `distributed_config`. A transformer's weights
are stored next to it as arrays. Elephas stores them as text inside the attribute, which
HDF5 limits to 64 KB. Files of Elephas can be read, and a stage whose attribute is small
enough is written so that Elephas can read it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from kspark.errors import invalid
from kspark.files.paths import is_remote, local_path
from kspark.ml.elephas.losses import ModelType
from kspark.saving.filesystem import reading, writing
from kspark.saving.rebuild import refuse_code
from kspark.saving.uncompiled import remove_compilation

ATTRIBUTE = "distributed_config"
WEIGHTS = "kspark_weights"
MAX_ATTRIBUTE = 60_000
ENDINGS = (".h5", ".hdf5")


def is_file_name(path: str) -> bool:
    """Whether a path has the extension of an HDF5 file."""
    return path.lower().endswith(ENDINGS)


def is_file(path: str) -> bool:
    """Whether to read a path as an HDF5 file. Elephas' files can have any extension."""
    if is_remote(path):
        return is_file_name(path)
    place = local_path(path)
    return os.path.isfile(place) or (is_file_name(path) and not os.path.isdir(place))


def write(
    path: str, class_name: str, config: dict[str, Any], more: dict[str, Any], weights: Any
) -> None:
    """Write a stage's file. An existing file is replaced, as in Elephas.

    Args:
        path: String.
        class_name: String, name of the stage's class in Elephas.
        config: Dictionary, the arguments of that class.
        more: Dictionary, additional arguments of kspark's class.
        weights: Sequence of arrays.
    """
    content = {"class_name": class_name, "config": config, "kspark": more}
    text = json.dumps(content).encode()
    if len(text) > MAX_ATTRIBUTE and config.get("weights"):
        text = json.dumps({**content, "config": {**config, "weights": []}}).encode()
    with writing(path, overwrite=True) as local, h5py.File(local, "w") as file:
        if len(text) > MAX_ATTRIBUTE:
            file.create_dataset(ATTRIBUTE, data=np.frombuffer(text, np.uint8))
        else:
            file.attrs[ATTRIBUTE] = text
        group = file.create_group(WEIGHTS)
        for index, weight in enumerate(weights):
            group.create_dataset(str(index), data=np.asarray(weight))


def read(path: str, class_name: str, safe: bool) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read a stage's file.

    Args:
        path: String.
        class_name: String, name of the class that the file must contain.
        safe: Boolean, whether to refuse a file that contains code.

    Returns:
        Tuple of the configuration and the list of weights.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no file of this class, or contains code.
    """
    rule = f"a file of an {class_name}"
    with reading(path) as local:
        if not h5py.is_hdf5(local):
            raise invalid("file_name", rule, path)
        with h5py.File(local, "r") as file:
            text = file.attrs.get(ATTRIBUTE)
            if text is None and ATTRIBUTE in file:
                text = file[ATTRIBUTE][()].tobytes()
            content = json.loads(text) if text is not None else {}
            group = file.get(WEIGHTS, {})
            weights = [group[str(index)][()] for index in range(len(group))]
    if content.get("class_name") != class_name:
        raise invalid("file_name", rule, path)
    config = {**content["config"], **content.get("kspark", {})}
    if safe:
        refuse_code_in(config, path, trains=class_name == "ElephasEstimator")
    listed = [np.asarray(w, np.float32) for w in config.pop("weights", [])]
    return config, weights or listed


def refuse_code_in(params: Mapping[str, Any], path: str, *, trains: bool) -> None:
    """Refuse code in the model, and in its loss, metrics and optimizer if the stage trains.

    Args:
        params: Mapping with the values of Params.
        path: String, the file that they were read from.
        trains: Boolean, whether the stage compiles the model.

    Raises:
        ValueError: If they contain code.
    """
    parts = [params.get(name) for name in ("optimizer_config", "loss", "metrics")]
    with contextlib.suppress(json.JSONDecodeError):  # Building the model raises the error.
        parts.append(json.loads(params.get("keras_model_config") or "null"))
    if not trains:
        remove_compilation(parts)
    refuse_code(parts, path)


def encoded(kind: ModelType | None) -> Any:
    """Convert a model type to the JSON data that Elephas writes."""
    return None if kind is None else {"__enum__": str(kind)}


def decoded(value: Any) -> ModelType | None:
    """Convert Elephas' JSON data to a model type, the inverse of `encoded`."""
    return None if value is None else ModelType[value["__enum__"].split(".")[-1]]
