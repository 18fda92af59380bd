"""Save a model as the bytes of a `.keras` file, and rebuild it from them."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kspark.replica.comparing import shallow_copy
from kspark.replica.compiled import compiles_itself

if TYPE_CHECKING:
    import keras

CONFIG_FILE = "config.json"
"""The member of a `.keras` file with the model's configuration."""

NOT_BUILT = "You are saving a model that has not yet been built"
"""The first words of Keras' warning about a model that is not built, see `steps.py`."""

REBUILD_ERRORS = (
    TypeError,
    ValueError,
    AttributeError,
    NameError,
    LookupError,
    ImportError,
    RuntimeError,
)
"""Errors that `__init__`, `from_config` and `build` usually raise for incomplete configurations."""


def saved(model: keras.Model) -> bytes:
    """Save a model as the bytes of a `.keras` file, in general without its compilation.

    The compilation is saved only if the model's class restores it by itself. Saving a shallow
    copy without it leaves the model as it is, also for other threads.

    Raises:
        ValueError: If a part of the model has no `get_config`, or one that returns more than
            plain data.
    """
    from kspark.saving.vocabularies import record_vocabularies

    record_vocabularies(model)
    if not compiles_itself(model):
        model = shallow_copy(model, compiled=False, optimizer=None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
                warnings.filterwarnings("ignore", NOT_BUILT)
                model.save(path)
        except (NotImplementedError, *REBUILD_ERRORS) as error:
            raise ValueError(
                f"The model {model.name!r} cannot be sent to the workers, because a part of it "
                "cannot be described by plain data. Custom layers and models need a "
                f"`get_config` method. Keras says: {str(error).strip()}"
            ) from error
        return path.read_bytes()


def read_config(model_bytes: bytes) -> Any:
    """Read the configuration in a `.keras` file."""
    with zipfile.ZipFile(io.BytesIO(model_bytes)) as file:
        return json.loads(file.read(CONFIG_FILE))


def with_config(model_bytes: bytes, config: Any) -> bytes:
    """Replace the configuration in a `.keras` file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model_bytes)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = json.dumps(config) if name == CONFIG_FILE else old.read(name)
            new.writestr(name, content)
    return stream.getvalue()


def rebuilt(
    model_bytes: bytes, dtype_policy: str, objects: Mapping[str, Any], *, compiles: bool = False
) -> keras.Model:
    """Rebuild a model from the bytes of `saved`.

    Args:
        model_bytes: Bytes of a `.keras` file.
        dtype_policy: String, the dtype policy of the model as JSON.
        objects: Mapping of the custom objects.
        compiles: Boolean, whether to compile the model from the file. Defaults to `False`.
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(model_bytes)
        # Loading code (a Lambda layer) is safe: `saved` made the bytes from a model of the
        # same user, whose job runs here.
        with default_policy(dtype_policy), warnings.catch_warnings():
            # The optimizer of the file, if there is one, is replaced.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return keras.saving.load_model(
                path, custom_objects=dict(objects), compile=compiles, safe_mode=False
            )


def policy_of(model: keras.Model) -> str:
    """Return the dtype policy of a model as JSON."""
    import keras

    return json.dumps(keras.dtype_policies.serialize(model.dtype_policy))


@contextmanager
def default_policy(config: str) -> Iterator[None]:
    """Set the global dtype policy inside the block.

    Args:
        config: String, the policy's configuration as JSON.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(keras.dtype_policies.deserialize(json.loads(config)))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
