"""`ModelSpec`: a Keras model as plain data, from which equal copies can be made.

Whoever needs a copy of a user's model makes it here: the workers, the stages that train a copy, and
the stages that score with one. A spec contains the bytes of a `.keras` file (architecture and
weights), the custom objects that the file names, the model's compilation (see
`kspark.replica.compiled`) and what else the file does not hold (see
`kspark.replica.differences`). `of` makes a copy at once and compares it with the original, so that
a model that cannot be copied is refused before any job runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kspark.replica import custom_objects as custom
from kspark.replica import pickling
from kspark.replica.auto_names import automatic_names, canonical
from kspark.replica.comparing import untouched_randomness
from kspark.replica.compiled import Compilation
from kspark.replica.differences import Differences
from kspark.replica.lambdas import without_lambdas
from kspark.replica.model_bytes import (
    REBUILD_ERRORS,
    policy_of,
    read_config,
    rebuilt,
    saved,
    with_config,
)
from kspark.replica.optimizer import classes_of
from kspark.replica.variables import in_order

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ModelSpec:
    """A Keras model as plain data that can be unpickled without Keras.

    Create it with `ModelSpec.of`.

    Attributes:
        model_bytes: Bytes of a `.keras` file, in general without the model's compilation.
        custom_objects: Bytes, pickled mapping from name to class or function.
        dtype_policy: String, the model's own dtype policy as JSON.
        compilation: `Compilation`, or `None` for a model that is not compiled.
        differences: `Differences` between the model and what its bytes restore.
    """

    model_bytes: bytes = field(repr=False)
    custom_objects: bytes = field(repr=False)
    dtype_policy: str
    compilation: Compilation | None
    differences: Differences = Differences()

    @classmethod
    def of(cls, model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> ModelSpec:
        """Describe a model, and check that it can be copied.

        Builds the optimizer of a compiled model if necessary, and brings the configurations of
        lookup layers up to date with their vocabularies; changes nothing else.

        Args:
            model: A built `keras.Model`.
            custom_objects: Mapping from name to class or function, for objects to which
                the model does not refer itself.

        Raises:
            ValueError: If the model cannot be rebuilt from its configuration, or a part of it
                cannot be sent.
        """
        compiled = model.compiled and getattr(model, "optimizer", None) is not None
        if compiled and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        compilation = Compilation.of(model) if compiled else None
        optimizer = None if compilation is None else json.loads(compilation.optimizer.config)
        model_bytes, objects = described(model, custom_objects, optimizer)
        spec = cls(model_bytes, pickling.dump(objects), policy_of(model), compilation)
        compared = spec._compared(model)
        if not objects:
            return compared
        # To pickle a class and its instances changes the class, and so its bytes, the first time.
        return replace(compared, custom_objects=pickling.dump(objects))

    @property
    def digest(self) -> str:
        """Digest of 32 hexadecimal digits of all but the values of variables and `names`."""
        compilation = None if self.compilation is None else self.compilation.settings
        model = read_config(self.model_bytes)
        config = [canonical(model, automatic_names(model)), self.dtype_policy, compilation]
        text = json.dumps(config, sort_keys=True).encode()
        parts = [text, self.custom_objects, self.differences.attribute_values]
        if self.compilation is not None:
            parts += [self.compilation.canonical_arguments, self.compilation.optimizer.parts]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]

    @property
    def names(self) -> tuple[str, ...]:
        """The automatic names in which models with the same digest may differ, in one order."""
        metrics = () if self.compilation is None else self.compilation.names
        return (*automatic_names(read_config(self.model_bytes)), *metrics)

    def objects(self) -> dict[str, Any]:
        """Return the custom objects by name."""
        return pickling.load(self.custom_objects)

    def make(self, objects: Mapping[str, Any] | None = None) -> keras.Model:
        """Make a copy of the model.

        Args:
            objects: Mapping, the result of `objects`. Defaults to `None`, to load it here.
        """
        objects = self.objects() if objects is None else objects
        with untouched_randomness():
            return self._made(objects)

    def _made(self, objects: Mapping[str, Any]) -> keras.Model:
        copy = rebuilt(self.model_bytes, self.dtype_policy, objects, compiles=self._compiles)
        self.differences.apply(copy)
        if self.compilation is not None:
            self.compilation.compile(copy, objects)
            self.compilation.optimizer.set_state(copy)
        return copy

    @property
    def _compiles(self) -> bool:
        """Whether the model's class compiles itself from the configuration in the file."""
        return self.compilation is not None and self.compilation.arguments is None

    def _compared(self, model: keras.Model) -> ModelSpec:
        """Make a copy, compare it with the original, and return a spec with the differences.

        Raises:
            ValueError: If no equal copy can be made.
        """
        with untouched_randomness():
            try:
                objects = self.objects()
                copy = rebuilt(
                    self.model_bytes, self.dtype_policy, objects, compiles=self._compiles
                )
            except REBUILD_ERRORS as error:
                raise not_rebuilt(model, told(error)) from error
            check_variables(model, copy)
            spec = replace(self, differences=Differences.between(model, copy))
            if self.compilation is None:
                return spec
            check_compiled(model, copy, self.compilation)
            try:
                compilation = self.compilation.compared(model, objects)
                spec.differences.apply(copy)
                compilation.compile(copy, objects)
            except REBUILD_ERRORS as error:
                raise not_rebuilt(model, told(error)) from error
            check_optimizer(model, copy)
            return replace(spec, compilation=compilation)


def described(
    model: keras.Model, custom_objects: Mapping[str, Any] | None, further: Any = None
) -> tuple[bytes, dict[str, Any]]:
    """Describe a model by the bytes of a `.keras` file and the custom objects that it names.

    Args:
        model: A built `keras.Model`.
        custom_objects: Mapping from name to object, or `None`.
        further: JSON data, a further configuration that may name custom objects. Defaults to
            `None`.

    Raises:
        ValueError: If a part of the model cannot be described by plain data.
    """
    model_bytes = saved(model)
    config, lambdas = without_lambdas(read_config(model_bytes), custom.reachable(model))
    if lambdas:
        model_bytes = with_config(model_bytes, config)
    objects = custom.collect(model, [config, further], custom_objects)
    return model_bytes, objects | lambdas


def check_variables(model: keras.Model, copy: keras.Model) -> None:
    """Refuse a model whose copy has other variables.

    Raises:
        ValueError: If the number, a name, a shape or a dtype of the variables differs.
    """
    ours, theirs = (list(map(signature_of, in_order(m, m.variables))) for m in (model, copy))
    if ours != theirs:
        raise not_rebuilt(model, "it comes back with other variables")


def signature_of(variable: Any) -> tuple[str, tuple[int, ...], str]:
    """Return the name, without its number in the process, the shape and the dtype of a variable."""
    return re.sub(r"_\d+$", "", variable.name), tuple(variable.shape), str(variable.dtype)


def check_compiled(model: keras.Model, copy: keras.Model, compilation: Compilation) -> None:
    """Refuse a model whose own `compile` does more than kspark can repeat.

    Raises:
        ValueError: If the copy lacks layers or optimizers, or if the class overrides the methods
            that compile a loaded model, but they do not compile it.
    """
    import keras

    live = keras.optimizers.Optimizer | keras.Layer
    missing = vars(model).keys() - vars(copy).keys() - {"optimizer"}
    lost = sorted(name for name in missing if isinstance(vars(model)[name], live))
    if lost and type(model).compile is not keras.Model.compile:
        raise not_rebuilt(
            model,
            f"it comes back without {', '.join(lost)}. A model whose `compile` stores layers or "
            "optimizers also overrides `get_compile_config` and `compile_from_config`",
        )
    compiled = copy.compiled and getattr(copy, "optimizer", None) is not None
    if compilation.arguments is None and not compiled:
        raise not_rebuilt(
            model,
            "it comes back without its compile arguments. A model that overrides `compile` "
            "also overrides `get_compile_config` and `compile_from_config`",
        )


def check_optimizer(model: keras.Model, copy: keras.Model) -> None:
    """Refuse a model whose optimizer cannot be rebuilt.

    Raises:
        ValueError: If the optimizer of the copy is of another class or has other variables.
    """
    ours, theirs = (" of ".join(classes_of(m.optimizer)) for m in (model, copy))
    if ours != theirs:
        reason = f"its optimizer comes back as {theirs} instead of {ours}"
        raise not_rebuilt(model, f"{reason}. Give the optimizer to `compile`")
    shapes = [[tuple(v.shape) for v in m.optimizer.variables] for m in (model, copy)]
    if shapes[0] != shapes[1]:
        raise not_rebuilt(
            model,
            "its optimizer comes back with other variables. Compile the model again after "
            "changing what is trainable",
        )


def told(error: BaseException) -> str:
    """Return the class and the text of an error, without the configurations that Keras adds.

    Keras describes the whole model, then each part around the faulty one, and last the fault.
    """
    return f"{type(error).__name__}: {str(error).rpartition('Exception encountered: ')[2].strip()}"


def not_rebuilt(model: keras.Model, reason: str) -> ValueError:
    """Return the error for a model that cannot be rebuilt from its configuration."""
    return ValueError(
        f"The model {model.name!r} cannot be rebuilt from its configuration, so no worker can "
        f"run it: {reason.rstrip('.')}.\nWrite a complete `get_config` for custom layers and "
        "models, and pass classes and functions to which the model does not refer as "
        "`custom_objects`."
    )
