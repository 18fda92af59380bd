"""`ReplicaSpec`: a compiled Keras model as plain data, to be sent to the workers.

It contains the bytes of a `.keras` file (architecture, weights, compile arguments,
optimizer state), the custom objects that the file names, and what the file does not
store: the state of random number generators, and parts of the model's compilation
(`kspark.replica.compiled`). This module imports Keras inside its functions only,
because a worker that unpickles a spec must choose Keras' backend first.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import invalid
from kspark.replica import custom_objects as custom
from kspark.replica.checks import check_model
from kspark.replica.compiled import OptimizerSpec, classes_of, default_policy
from kspark.replica.signature import input_spec
from kspark.replica.variables import (
    rng_variables,
    same_structure,
    values_of,
    weight_spec,
)
from kspark.shards import InputSpec
from kspark.weights import WeightSpec

if TYPE_CHECKING:
    import keras


COMPILED_METRICS = "compile_metrics"
"""Keras' name of the metric that contains the metrics passed to `compile`."""

CONFIG_FILE = "config.json"
"""The member of a `.keras` file with the model's configuration."""

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


@dataclass(frozen=True)
class ReplicaSpec:
    """A compiled model as plain data that can be unpickled without Keras.

    Create it with `ReplicaSpec.of`.

    Attributes:
        model_bytes: Bytes of a `.keras` file.
        custom_objects: Bytes, pickled mapping from name to class or function.
        backend: String, the Keras backend that the model was made with.
        weights: `WeightSpec` over all variables of the model.
        inputs: `InputSpec` of the model.
        digest: String, digest of the architecture, compile arguments and custom objects. The
            values of weights do not enter it.
        dtype_policy: String, the model's own dtype policy as JSON.
        optimizer: `OptimizerSpec`, or `None` if the bytes restore the optimizer completely.
        rng_state: Tuple of arrays, state of the model's random number generators.
    """

    model_bytes: bytes = field(repr=False)
    custom_objects: bytes = field(repr=False)
    backend: str
    weights: WeightSpec
    inputs: InputSpec
    digest: str
    dtype_policy: str
    optimizer: OptimizerSpec | None = None
    rng_state: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls,
        model: keras.Model,
        custom_objects: Mapping[str, Any] | None = None,
        inputs: InputSpec | None = None,
    ) -> ReplicaSpec:
        """Describe a model, and check that a worker can rebuild it.

        Builds the model's optimizer if necessary; changes nothing else.

        Args:
            model: A compiled, built `keras.Model`.
            custom_objects: Mapping from name to class or function, for objects to which
                the model does not refer itself.
            inputs: `InputSpec`, for a model whose inputs cannot be determined from it alone.

        Returns:
            A `ReplicaSpec`.

        Raises:
            ValueError: If the model is not compiled or not built, cannot be rebuilt from
                its configuration, or has stateful layers.
            TypeError: If `model` is not a Keras model.
        """
        import keras

        check_model(model)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model_bytes = saved(model)
        config = read_config(model_bytes)
        objects = custom.dump(custom.collect(model, config, custom_objects))
        optimizer = OptimizerSpec.of(model)
        policy = json.dumps(keras.dtype_policies.serialize(model.dtype_policy))
        settings = None if optimizer is None else optimizer.settings
        spec = cls(
            model_bytes=model_bytes,
            custom_objects=objects,
            backend=str(keras.backend.backend()),
            weights=weight_spec(model),
            inputs=input_spec(model) if inputs is None else inputs,
            digest=digest_of([config, policy, settings], objects),
            dtype_policy=policy,
            optimizer=optimizer,
            rng_state=tuple(values_of(rng_variables(model))),
        )
        spec._verify(model)
        return spec

    def renewed(self, model: keras.Model) -> ReplicaSpec:
        """Update the spec with the model's current weights, optimizer state and RNG state.

        Args:
            model: The `keras.Model` that was passed to `of`.
        """
        return replace(
            self,
            model_bytes=saved(model),
            optimizer=OptimizerSpec.of(model),
            rng_state=tuple(values_of(rng_variables(model))),
        )

    def load_model(self, objects: Mapping[str, Any]) -> keras.Model:
        """Rebuild the model. `objects` are the custom objects by name."""
        import keras

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(self.model_bytes)
            # Loading code (a Lambda layer) is safe: `of` made the bytes from a model of the
            # same user, whose job runs here.
            with default_policy(self.dtype_policy), warnings.catch_warnings():
                if self.optimizer is not None:  # It replaces the optimizer of the bytes below.
                    warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
                model = keras.saving.load_model(path, custom_objects=dict(objects), safe_mode=False)
        if self.optimizer is not None:
            self.optimizer.restore(model, objects)
        return model

    def _verify(self, model: keras.Model) -> None:
        """Rebuild the model and compare it with the original.

        Raises:
            ValueError: If the model cannot be rebuilt, or differs.
        """
        try:
            with untouched_randomness():
                rebuilt = self.load_model(custom.load(self.custom_objects))
        except REBUILD_ERRORS as error:
            raise not_rebuilt(model, f"{type(error).__name__}: {error}") from error
        custom.check_lambdas(rebuilt)
        if not rebuilt.compiled or getattr(rebuilt, "optimizer", None) is None:
            raise not_rebuilt(
                model,
                "it comes back without its compile arguments. A model that overrides `compile` "
                "also overrides `get_compile_config` and `compile_from_config`",
            )
        if not same_structure(weight_spec(rebuilt), self.weights):
            raise not_rebuilt(model, "it comes back with other variables")
        check_optimizer(model, rebuilt)
        check_metrics(model, rebuilt)


def check_metrics(model: keras.Model, rebuilt: keras.Model) -> None:
    """Refuse a model with metrics that are not among its compile arguments.

    A second `compile` without `metrics` keeps the metrics of the first (Keras 3.8 to 3.15),
    but the rebuilt model lacks them.

    Raises:
        ValueError: If the model has such metrics.
    """
    has, comes_back = ({metric.name for metric in one.metrics} for one in (model, rebuilt))
    if COMPILED_METRICS in has - comes_back:
        rule = (
            "compiled with `metrics=[...]`, or with `metrics=[]` for none. It still has the "
            "metrics of an earlier `compile`, which workers would not have"
        )
        raise invalid("model", rule, model.name)


def check_optimizer(model: keras.Model, rebuilt: keras.Model) -> None:
    """Refuse a model whose optimizer cannot be rebuilt.

    Raises:
        ValueError: If the rebuilt optimizer is of another class or has other variables.
    """
    names = [" of ".join(classes_of(m.optimizer)) for m in (rebuilt, model)]
    if names[0] != names[1]:
        reason = f"its optimizer comes back as {names[0]} instead of {names[1]}"
        raise not_rebuilt(model, f"{reason}. Give the optimizer to `compile`")
    shapes = [[tuple(v.shape) for v in m.optimizer.variables] for m in (rebuilt, model)]
    if shapes[0] != shapes[1]:
        raise not_rebuilt(
            model,
            "its optimizer comes back with other variables. Compile the model again after "
            "changing what is trainable",
        )


def saved(model: keras.Model) -> bytes:
    """Save the model as the bytes of a `.keras` file.

    Raises:
        ValueError: If a part of it has no `get_config`, or one that returns more than
            plain data.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
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


def digest_of(config: Any, objects: bytes) -> str:
    """Return a digest of 32 hexadecimal digits of a configuration and its custom objects."""
    text = json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(text + b"\0" + objects).hexdigest()[:32]


def not_rebuilt(model: keras.Model, reason: str) -> ValueError:
    """Return the error for a model that cannot be rebuilt from its configuration."""
    return ValueError(
        f"The model {model.name!r} cannot be rebuilt from its configuration, so no worker can "
        f"run it: {reason}.\nWrite a complete `get_config` for custom layers and models, and pass "
        "classes and functions to which the model does not refer as `custom_objects`."
    )


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore Python's and NumPy's global random state, from which Keras draws seeds."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
