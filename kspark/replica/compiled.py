"""`Compilation`: what a model was compiled with, as plain data.

Keras rebuilds losses, metrics and the optimizer from their configurations. Much of what people
write has none: their own losses and metrics, closures, lambdas, learning rate schedules. And no
configuration tells which variables are excluded from weight decay, whether Keras wrapped the
optimizer to scale the loss, and that metrics of an earlier `compile` are still in use. So the
arguments of `compile` are sent by value, and the optimizer by its configuration, exclusions and
state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kspark.replica import pickling
from kspark.replica.auto_names import (
    automatic_names,
    canonical,
    canonical_pickle,
    is_automatic,
)
from kspark.replica.compile_arguments import compile_arguments
from kspark.replica.optimizer import OptimizerSpec
from kspark.replica.variables import in_order

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Compilation:
    """What a model was compiled with, as plain data.

    Attributes:
        arguments: Bytes, the pickled arguments of `compile` except the optimizer. `None` if the
            model's class compiles itself from the configuration in the model's file.
        optimizer: `OptimizerSpec`.
        names: Tuple of strings, the automatic names of losses and metrics in the arguments.
    """

    arguments: bytes | None = field(repr=False)
    optimizer: OptimizerSpec
    names: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, model: keras.Model) -> Compilation:
        """Describe the compilation of a model with a built optimizer.

        Raises:
            ValueError: If an argument of `compile` cannot be pickled. The message names it.
        """
        if compiles_itself(model):
            return cls(None, OptimizerSpec.of(model))
        given = compile_arguments(model)
        arguments = pickling.dump(given, known_parts(model))
        return cls(arguments, OptimizerSpec.of(model), names_of_parts(given))

    @property
    def settings(self) -> list[Any]:
        """The optimizer's configuration, without automatic names, and exclusions, as JSON data."""
        config = json.loads(self.optimizer.config)
        known = canonical(config, automatic_names(config))
        return [known, self.optimizer.excluded, self.optimizer.numbers]

    @property
    def canonical_arguments(self) -> bytes:
        """The arguments of `compile` without the numbers in the names of losses and metrics."""
        return canonical_pickle(self.arguments or b"", self.names)

    def compared(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> Compilation:
        """Add what the optimizer's configuration lacks; see `OptimizerSpec.compared`."""
        return replace(self, optimizer=self.optimizer.compared(model, custom_objects))

    def compile(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> None:
        """Compile a copy of the model in the same way, and build its optimizer."""
        import keras

        model.optimizer = self.optimizer.make(custom_objects)
        self.optimizer.build(model)
        if self.arguments is not None:
            arguments = pickling.load(self.arguments, known_parts(model))
            # Models that override `compile` get what their `compile` stored as attributes.
            keras.Model.compile(model, model.optimizer, auto_scale_loss=False, **arguments)


def names_of_parts(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the automatic names of losses and metrics of Keras among arguments of `compile`."""
    parts = [part for part in pickling.leaves(arguments) if pickling.of_keras(part)]
    names = ((getattr(part, "name", None), type(part).__name__) for part in parts)
    return tuple(dict.fromkeys(name for name, kind in names if is_automatic(name, kind)))


def compiles_itself(model: keras.Model) -> bool:
    """Whether a class of models overrides the methods that compile a loaded model."""
    import keras

    names = ("get_compile_config", "compile_from_config")
    return any(getattr(type(model), n) is not getattr(keras.Model, n) for n in names)


def known_parts(model: keras.Model) -> list[Any]:
    """Return a model, its layers, variables and those of its optimizer, in the order of all copies.

    Those of the optimizer come last, because a copy is compared before it is compiled.
    """
    optimizer = getattr(model, "optimizer", None)
    own = [] if optimizer is None else optimizer.variables
    return [model, *layers_of(model), *in_order(model, model.variables), *own]


def layers_of(model: keras.Model) -> Iterator[Any]:
    """Yield the layers of a model and of the models in it."""
    import keras

    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
