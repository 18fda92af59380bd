"""The `.keras` file: Keras' own zip archive, with further members for kspark's document.

`kspark.json` is the document, and `kspark/server_state/<i>.npy` are the arrays that it
lists. Keras ignores these members, so `keras.saving.load_model` can read the file, too. A
file that plain Keras wrote has no document.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any

import keras
import numpy as np

from kspark.saving.document import Document, checked_class, named, names_in
from kspark.saving.rebuild import rebuilding, refuse_code
from kspark.saving.vocabularies import record_vocabularies

DOCUMENT = "kspark.json"


def array_member(index: int) -> str:
    """Return the name of the member with an array."""
    return f"kspark/server_state/{index}.npy"


def write(local: str, model: keras.Model, document: Document) -> None:
    """Write the model and the document to the local file `local`."""
    record_vocabularies(model)
    keras.saving.save_model(model, local)
    with zipfile.ZipFile(local, "a") as archive:
        content = document.to_dict() | {"class_name": document.class_name}
        archive.writestr(DOCUMENT, json.dumps(content))
        for index, array in enumerate(document.server_state.values()):
            # Written directly to the archive, because an array may be as large as the model.
            with archive.open(array_member(index), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read(
    local: str, path: str, custom_objects: dict[str, Any], safe_mode: bool
) -> tuple[keras.Model, Document | None]:
    """Read a file that `write` or plain Keras wrote.

    Args:
        local: String, name of the local file.
        path: String, name of the file for errors.
        custom_objects: Dictionary from names to objects.
        safe_mode: Boolean, whether to refuse a file that contains code.

    Returns:
        A pair (model, document or `None`).

    Raises:
        ValueError: If the file is incomplete, contains code, or needs other custom objects.
    """
    with zipfile.ZipFile(local) as archive:
        model_config = json.loads(archive.read("config.json"))
        document = read_document(archive, path)
    if safe_mode:
        refuse_code([model_config, document.facts if document else {}], path)
    with rebuilding(path, model_config, custom_objects):
        model = keras.saving.load_model(local, custom_objects=custom_objects, safe_mode=safe_mode)
    return model, document


def read_document(archive: zipfile.ZipFile, path: str) -> Document | None:
    """Read kspark's document, or return `None` if the archive has none."""
    if DOCUMENT not in archive.namelist():
        return None
    content = json.loads(archive.read(DOCUMENT))
    config, names, facts = names_in(content, path)
    class_name = checked_class(content.get("class_name", "SparkModel"), path)
    arrays = (read_array(archive, array_member(index)) for index in range(len(names)))
    return Document(config, named(names, arrays), class_name, facts)


def read_array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """Read an array. Pickled arrays are refused."""
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
