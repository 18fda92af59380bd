"""Load the model of a `.keras` file without its loss, metrics and optimizer.

A model predicts without them, so none of their classes and functions are needed.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from pyspark.sql import SparkSession

from kspark.saving import keras_file
from kspark.saving.document import Document
from kspark.saving.filesystem import reading
from kspark.saving.rebuild import custom_names, known, objects_in, rebuilding, refuse_code

CONFIG = "config.json"
COMPILATION = "compile_config"
"""The key of the compile arguments in the configuration of a model, or of a model inside it."""


@dataclass(frozen=True)
class Uncompiled:
    """A model without its compilation.

    Attributes:
        model: `keras.Model`, not compiled.
        missing: List of the names of losses, metrics and optimizers that neither Keras nor the
            custom objects know.
        document: `Document` of the file.
    """

    model: keras.Model
    missing: list[str]
    document: Document


def load_uncompiled(
    path: str,
    *,
    custom_objects: Mapping[str, Any],
    safe_mode: bool = True,
    spark: SparkSession | None = None,
) -> Uncompiled:
    """Load a model, and find out which parts of its compilation are unknown.

    Args:
        path: String, as for `kspark.saving.load_model`.
        custom_objects: Mapping from names to classes or functions.
        safe_mode: Boolean, whether to refuse a model that contains Python code. Code in the
            loss and metrics is not loaded and not refused. Defaults to `True`.
        spark: `SparkSession` for a path with a scheme. Defaults to `None`, the active session.

    Returns:
        An `Uncompiled`.

    Raises:
        ValueError: If the model contains code, or needs other custom objects.
    """
    objects = dict(custom_objects)
    with reading(path, spark=spark) as local, zipfile.ZipFile(local) as archive:
        config = json.loads(archive.read(CONFIG))
        removed = remove_compilation(config)
        if safe_mode:
            refuse_code(config, path)
        with (
            tempfile.TemporaryDirectory(prefix="kspark-") as folder,
            rebuilding(path, config, objects),
        ):
            file = os.path.join(folder, "model.keras")
            copy_with_config(archive, config, file)
            model = keras.saving.load_model(
                file, custom_objects=objects, compile=False, safe_mode=safe_mode
            )
        document = keras_file.read_document(archive, path) or Document({}, {})
    missing = [name for name in custom_names(removed) if not known(name, objects)]
    return Uncompiled(model, missing, document)


def remove_compilation(config: object) -> list[Any]:
    """Remove the compile arguments of a model, and of the models inside it.

    Args:
        config: JSON data, the configuration of a model, which is changed.

    Returns:
        List of the compile configurations that were removed.
    """
    removed = [part.pop(COMPILATION, None) for part in objects_in(config)]
    return [compilation for compilation in removed if compilation is not None]


def copy_with_config(archive: zipfile.ZipFile, config: object, file: str) -> None:
    """Copy the members of a `.keras` file to another one, with another configuration."""
    with zipfile.ZipFile(file, "w") as copy:
        for member in archive.infolist():
            if member.filename == CONFIG:
                copy.writestr(CONFIG, json.dumps(config))
                continue
            with (
                archive.open(member) as source,
                copy.open(member.filename, "w", force_zip64=True) as target,
            ):
                for piece in iter(lambda: source.read(1 << 20), b""):
                    target.write(piece)
