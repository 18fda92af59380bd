"""Save and load a model together with kspark's configuration.

There are two formats, chosen by the extension. Both contain the weights, the optimizer
state, the compile configuration, kspark's configuration and the server optimizer's state:

* `.keras` (recommended): `keras.saving.load_model` reads it, too.
* `.h5`: for Elephas and DL4J, and only for functional and Sequential models. It does not
  contain the states of random generators and of text vocabularies.

Files of all versions of Elephas and plain Keras files can be loaded, too. Loading a file
does not run code from it unless `safe_mode=False`.
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
    """The content of a model file.

    Attributes:
        model: `keras.Model`, compiled if it was when it was saved.
        config: Dictionary, kspark's (or Elephas') configuration. Empty for a
            file that plain Keras wrote.
        server_state: Dictionary of name and array, the server optimizer's state.
        class_name: String, the class that wrote the file: `"SparkModel"`,
            `"SparkMLlibModel"` or Elephas' `"AsynchronousSparkModel"`.
        facts: Dictionary of JSON data, facts of the model that Keras' part of the file leaves
            out. Their arrays are in `server_state`, under names that begin with `"model/"`.
    """

    model: keras.Model
    config: dict[str, Any]
    server_state: dict[str, np.ndarray]
    class_name: str
    facts: dict[str, Any]


def save_model(
    model: keras.Model,
    config: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    server_state: dict[str, np.ndarray] | None = None,
    spark: SparkSession | None = None,
    class_name: str = "SparkModel",
    facts: dict[str, Any] | None = None,
) -> None:
    """Save a model and kspark's configuration to one file.

    The file gets its name when it is complete. A failed save does not change an existing
    file, and leaves no other file.

    Args:
        model: `keras.Model`.
        config: Dictionary of JSON data, kspark's configuration.
        path: String or path-like that ends in `.keras` or `.h5`. Without a scheme, a
            local path on the driver; otherwise a URI that Spark can write
            (`hdfs://`, `s3a://`, `file:`).
        overwrite: Boolean, whether an existing file may be replaced. Defaults to `False`.
        server_state: Dictionary from name to array, the server optimizer's state. Defaults
            to `None`.
        spark: `SparkSession` for a path with a scheme. Defaults to `None`, the active
            session.
        class_name: String, the class to load the file as. Defaults to `"SparkModel"`.
        facts: Dictionary of JSON data, facts of the model that Keras leaves out. Defaults to
            `None`, no facts.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        OSError: If writing fails.
        TypeError: If `model` is not a Keras model.
        ValueError: If `path` has another extension, `config` is not JSON data, or the format
            cannot represent a part of the model.
    """
    if not isinstance(model, keras.Model):
        raise invalid_type("model", "a `keras.Model`", model)
    name = checked(path)
    document = Document(config, server_state or {}, class_name, facts or {})
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
        custom_objects: Mapping from names to classes or functions that are not registered
            with Keras. Defaults to `None`.
        safe_mode: Boolean, whether to refuse a file that contains Python code. Defaults to
            `True`.
        spark: `SparkSession` or `None`, as in `save_model`.

    Returns:
        A `SavedModel`.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If reading fails.
        ValueError: If the file is not a model file, contains code, or needs other custom
            objects.
    """
    name = checked(path)
    with reading(name, spark=spark) as local, recognized(local, name) as (read, file):
        model, document = read(file, name, dict(custom_objects or {}), safe_mode)
    document = document or Document({}, {})
    return SavedModel(
        model, document.config, document.server_state, document.class_name, document.facts
    )


def checked(path: str | os.PathLike[str]) -> str:
    """Check the extension of a path, and return the path as a string."""
    name = os.fspath(path)
    if not name.endswith((".keras", ".h5")):
        raise invalid("path", "a path ending in '.keras' or '.h5'", name)
    return name


def starts_as_zip(local: str) -> bool:
    """Whether a file begins like a zip file. `zipfile` also accepts HDF5 files that contain one."""
    if not os.path.isfile(local):
        return False
    with open(local, "rb") as file:
        return file.read(2) == b"PK"


@contextmanager
def recognized(local: str, path: str) -> Iterator[tuple[Reader, str]]:
    """Find the format of a file from its content, and give it the extension that Keras expects.

    Keras 2 wrote HDF5 to files of any name, so `.keras` files of Elephas may be HDF5 files.

    Yields:
        A pair (function that reads the format, name of the file).

    Raises:
        ValueError: If it is neither format.
    """
    if starts_as_zip(local) and zipfile.is_zipfile(local):
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
