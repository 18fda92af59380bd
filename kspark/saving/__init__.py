"""Save a model with all that kspark knows about it, and load it again.

Two formats, chosen by the extension. Weights, optimizer state and compile
configuration come back from both, and so do kspark's configuration and the server
optimizer's state:

* `.keras`, the recommended one: opens with `keras.saving.load_model` too.
* `.h5`: for Elephas and DL4J. For functional and Sequential models; the state of
  random generators and of text vocabularies is not in it.

Files written by Elephas, up to 6 and since 7, load as well, and so does a plain
Keras file. No file runs code of its own on loading unless `safe_mode=False`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import keras
import numpy as np
from pyspark.sql import SparkSession

from kspark.errors import invalid, invalid_type
from kspark.saving import hdf5_file, keras_file
from kspark.saving.document import Document
from kspark.saving.filesystem import reading, writing

Reader = Callable[[str, str, dict[str, Any], bool], tuple[keras.Model, Document | None]]

__all__ = ["SavedModel", "load_model", "save_model"]


@dataclass(frozen=True)
class SavedModel:
    """What a model file holds.

    Attributes:
        model: `keras.Model`, compiled if it was when it was saved.
        config: Dictionary, kspark's (or Elephas') configuration. Empty for a
            file that plain Keras wrote.
        server_state: Dictionary of name and array, the server optimizer's state.
        class_name: String, the class that wrote the file: `"SparkModel"`,
            `"SparkMLlibModel"` or Elephas' `"AsynchronousSparkModel"`.
    """

    model: keras.Model
    config: dict[str, Any]
    server_state: dict[str, np.ndarray]
    class_name: str


def save_model(
    model: keras.Model,
    config: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    server_state: dict[str, np.ndarray] | None = None,
    spark: SparkSession | None = None,
    class_name: str = "SparkModel",
) -> None:
    """Save a model and kspark's configuration to one file.

    The file appears under its name when it is complete. A failed save leaves what
    was there, and nothing else.

    Args:
        model: `keras.Model`.
        config: Dictionary of JSON data, kspark's configuration.
        path: String or path-like, ending in `.keras` or `.h5`. Without a scheme a
            local path of the driver, else anything that Spark can write
            (`hdfs://`, `s3a://`, `file:`).
        overwrite: Boolean, whether an existing file may be replaced.
        server_state: Optional dictionary of name and array.
        spark: `SparkSession` or `None`, for a path with a scheme. `None` takes the
            active session.
        class_name: String, the class that the file is to be loaded as.

    Raises:
        FileExistsError: If the file exists and `overwrite` is false.
        OSError: If the file system refuses.
        TypeError: If `model` is no Keras model.
        ValueError: If `path` has another extension, `config` is no JSON data,
            or the format would lose a part of the model.
    """
    if not isinstance(model, keras.Model):
        raise invalid_type("model", "a `keras.Model`", model)
    name = checked(path)
    document = Document(config, server_state or {}, class_name)
    document.check()
    write = hdf5_file.write if name.endswith(".h5") else keras_file.write
    with writing(name, overwrite=overwrite, spark=spark) as local:
        write(local, model, document)


def load_model(
    path: str | os.PathLike[str],
    *,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
    spark: SparkSession | None = None,
) -> SavedModel:
    """Load a file of `save_model`, of Elephas, or of plain Keras.

    Args:
        path: String or path-like, as in `save_model`.
        custom_objects: Optional dictionary of name and class or function, for what
            is not registered with Keras.
        safe_mode: Boolean. If true, a file with Python code inside is refused.
        spark: `SparkSession` or `None`, as in `save_model`.

    Returns:
        A `SavedModel`.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the file system refuses.
        ValueError: If it is no model file, holds code, or needs custom objects.
    """
    name = checked(path)
    with reading(name, spark=spark) as local, recognized(local, name) as (read, file):
        model, document = read(file, name, dict(custom_objects or {}), safe_mode)
    document = document or Document({}, {})
    return SavedModel(model, document.config, document.server_state, document.class_name)


def checked(path: str | os.PathLike[str]) -> str:
    """The path as a string, if its extension is one of the two."""
    name = os.fspath(path)
    if not name.endswith((".keras", ".h5")):
        raise invalid("path", "a path ending in '.keras' or '.h5'", name)
    return name


@contextmanager
def recognized(local: str, path: str) -> Iterator[tuple[Reader, str]]:
    """Tell a file's format by its content, and give it the extension that Keras expects.

    Keras 2 wrote HDF5 to any name, so Elephas left `.keras` files that are none.

    Yields:
        A pair (function that reads the format, name of the file).

    Raises:
        ValueError: If it is neither format.
    """
    if zipfile.is_zipfile(local):
        read, extension = keras_file.read, ".keras"
    elif os.path.isfile(local) and h5py.is_hdf5(local):
        read, extension = hdf5_file.read, ".h5"
    else:
        raise invalid("path", "a Keras model file, and whole", path)
    if local.endswith(extension):
        yield read, local
        return
    with tempfile.TemporaryDirectory(prefix="kspark-") as directory:
        yield read, shutil.copyfile(local, os.path.join(directory, "model" + extension))
