"""`ReplicaSpec`: a compiled Keras model as plain data, and back.

What travels is a `.keras` file as bytes (architecture, weights, compile
arguments, optimizer state), the custom objects it names, and what the file
leaves out: the state of random number generators, and parts of how the model
was compiled (`kspark.replica.compiled`). This module imports Keras
inside its functions only, because the worker that unpickles a spec has to
choose Keras' backend before.
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
"""What Keras calls the metric that holds those of `compile`."""

CONFIG_FILE = "config.json"
"""The member of a `.keras` file that holds the model's configuration."""

REBUILD_ERRORS = (
    TypeError,
    ValueError,
    AttributeError,
    NameError,
    LookupError,
    ImportError,
    RuntimeError,
)
"""What `__init__`, `from_config` and `build` usually raise when a configuration lacks something."""


@dataclass(frozen=True)
class ReplicaSpec:
    """A compiled model as plain data; picklable without Keras. Make it with `ReplicaSpec.of`.

    Attributes:
        model_bytes: Bytes of a `.keras` file.
        custom_objects: Bytes, pickled mapping from name to class or function.
        backend: String, the Keras backend the model was made with.
        weights: `WeightSpec` over all variables of the model.
        inputs: `InputSpec` of the model.
        digest: String; two specs share it only if they describe the same architecture,
            compile arguments and custom objects. The values of weights are not in it.
        dtype_policy: String, the model's own dtype policy as JSON.
        optimizer: `OptimizerSpec` if the bytes do not bring the optimizer back as it is.
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
        """Take a model apart, and make sure here that a worker can put it together.

        The model's optimizer is built if it is not; nothing else changes.

        Args:
            model: A compiled, built `keras.Model`.
            custom_objects: Mapping from name to class or function, for those that the
                model does not hold itself.
            inputs: `InputSpec`, if the model does not tell what it is fed.

        Raises:
            ValueError: If the model is not compiled or not built, cannot be rebuilt from
                its configuration, or is stateful from batch to batch.
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
        """The same model with the weights, optimizer state and RNG state that it has now.

        Args:
            model: The `keras.Model` that `of` was given.
        """
        return replace(
            self,
            model_bytes=saved(model),
            optimizer=OptimizerSpec.of(model),
            rng_state=tuple(values_of(rng_variables(model))),
        )

    def load_model(self, objects: Mapping[str, Any]) -> keras.Model:
        """Make the model of its bytes; `objects` are the custom objects by name."""
        import keras

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(self.model_bytes)
            # The bytes were made from a live model of the same user, by `of`; code in
            # them (a Lambda layer) is as good as the code that brought them here.
            with default_policy(self.dtype_policy), warnings.catch_warnings():
                if self.optimizer is not None:  # it takes the place of the bytes' one
                    warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
                model = keras.saving.load_model(path, custom_objects=dict(objects), safe_mode=False)
        if self.optimizer is not None:
            self.optimizer.restore(model, objects)
        return model

    def _verify(self, model: keras.Model) -> None:
        """Rebuild the model and compare."""
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

    A second `compile` without `metrics` leaves those of the first in place (Keras 3.8 to
    3.15), but they do not come back with the model.

    Raises:
        ValueError: If it has such metrics.
    """
    has, comes_back = ({metric.name for metric in one.metrics} for one in (model, rebuilt))
    if COMPILED_METRICS in has - comes_back:
        rule = (
            "compiled with `metrics=[...]`, or with `metrics=[]` for none, when it is compiled "
            "again: it still has the metrics of an earlier `compile`, which do not reach workers"
        )
        raise invalid("model", rule, model.name)


def check_optimizer(model: keras.Model, rebuilt: keras.Model) -> None:
    """Refuse a model whose optimizer does not come back as it is.

    Raises:
        ValueError: If it is of another class or has other variables.
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
    """The model as the bytes of a `.keras` file.

    Raises:
        ValueError: If a part of it has no `get_config`, or one that is not plain data.
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
    """The configuration inside a `.keras` file, as JSON data."""
    with zipfile.ZipFile(io.BytesIO(model_bytes)) as file:
        return json.loads(file.read(CONFIG_FILE))


def digest_of(config: Any, objects: bytes) -> str:
    """32 hexadecimal digits that identify an architecture with its custom objects."""
    text = json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(text + b"\0" + objects).hexdigest()[:32]


def not_rebuilt(model: keras.Model, reason: str) -> ValueError:
    """The refusal of a model that does not come back from its configuration."""
    return ValueError(
        f"The model {model.name!r} cannot be rebuilt from its configuration, so no worker can "
        f"have it: {reason}.\nCustom layers and models need a complete `get_config`; classes and "
        "functions that the model does not hold are passed as `custom_objects`."
    )


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Give Python's and NumPy's global generators back as they were: Keras draws seeds there."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
