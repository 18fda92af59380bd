"""Any optimizer of Keras as the rule for merged deltas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kspark.errors import invalid, invalid_type
from kspark.optimizers.base import (
    ASYNCHRONOUS,
    SYNCHRONOUS,
    MergeContext,
    ServerOptimizer,
    described,
)
from kspark.optimizers.keras_config import (
    classes_of,
    config_of,
    exported,
    is_keras_optimizer,
    make,
    missing_classes,
    undecayed,
)
from kspark.weights import Weight, same_kind

if TYPE_CHECKING:
    import keras

LEARNING_RATE = "learning_rate"
"""Name of the variable that belongs to a Keras optimizer's configuration, and not to its state."""


class Stepper(NamedTuple):
    """A Keras optimizer and the variables that it changes, in the order of the vector."""

    optimizer: keras.optimizers.Optimizer
    variables: list[keras.Variable]


class KerasOptimizer(ServerOptimizer):
    """An optimizer of Keras, which gets minus the merged delta as its gradient: FedOpt.

    ```
    round:  w <- S(w, -delta)
    push:   w <- w + share (S(w, -delta) - w)
    ```

    `S(w, g)` are the weights after the optimizer's step with the gradient `g`. Each trainable
    variable of the model is a variable of the optimizer, with its name, path and shape, so that
    `clipnorm`, `exclude_from_weight_decay(var_names=...)` and optimizers such as `Lamb` and `Muon`
    see the variables as they do in `keras.Model.fit`. The dtype is that of the merged weights:
    float32, or float64 if the model has such weights.

    Steps of most optimizers hardly depend on the length of the gradient. So a push is scaled by its
    share after the step is computed, as in `Adam`; the optimizer's state takes in whole deltas, and
    its schedule counts pushes. In a round, the schedule counts merges.

    The rule makes an optimizer of its own from the configuration of the given one, which does not
    change. So the optimizer that the model was compiled with can be given, too. Callbacks change
    the learning rate of the model's optimizer only; use a schedule for that of the server.

    Sign: `delta = new - old`; the gradient is `-delta`.

    Modes: synchronous, asynchronous.

    Example:

    ```python
    rate = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=20)
    spark_model = SparkModel(model, server_optimizer=keras.optimizers.AdamW(rate))
    ```

    Args:
        optimizer: `keras.optimizers.Optimizer` that was not built, or its configuration as
            `keras.optimizers.serialize` returns it. Refused are functions (also as learning
            rate), loss scales, `use_ema` and `gradient_accumulation_steps`.
        exclude_from_weight_decay: Sequence of strings, parts of names of variables without weight
            decay, besides those that the optimizer excludes already. Defaults to `()`.
        custom_objects: Mapping from class name to class, for optimizers and schedules in a
            configuration that are not registered with Keras. Defaults to `None`.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the optimizer was built, or has a part that is refused.

    Reference:
        Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, 2020,
        "Adaptive Federated Optimization", https://arxiv.org/abs/2003.00295,
        Algorithm 1 with any `ServerOpt`.
    """

    modes = frozenset((SYNCHRONOUS, ASYNCHRONOUS))
    refusal = "the state of its Keras optimizer and the weights must change together, under a lock"

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | Mapping[str, Any],
        exclude_from_weight_decay: Sequence[str] = (),
        custom_objects: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        names, self._objects = list(exclude_from_weight_decay), dict(custom_objects or {})
        is_one = isinstance(exclude_from_weight_decay, str)
        if is_one or not all(isinstance(name, str) for name in names):
            rule = "a sequence of strings"
            raise invalid_type("exclude_from_weight_decay", rule, exclude_from_weight_decay)
        if is_keras_optimizer(optimizer):
            config: Mapping[str, Any] = config_of(optimizer)
            self._objects = {**classes_of(optimizer), **self._objects}
            names += undecayed(optimizer)[0]
        elif isinstance(optimizer, Mapping):
            config = optimizer
        else:
            rule = "a `keras.optimizers.Optimizer` or its configuration"
            raise invalid_type("optimizer", rule, optimizer)
        self._config, self._names = exported(config), names
        self._stepper: Stepper | None = None
        # Stages store a configuration before they know the custom objects; see `check_mode`.
        if not missing_classes(self._config, self._objects):
            self._make()

    def _make(self) -> keras.optimizers.Optimizer:
        return make(self._config, self._names, self._objects)

    def check_mode(self, mode: str) -> None:
        """Check that the rule works in a mode, and that all classes of the optimizer are known."""
        super().check_mode(mode)
        self._make()

    # -- configuration --------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the Keras optimizer, and what it excludes from decay."""
        return {
            "optimizer": deepcopy(self._config),
            "exclude_from_weight_decay": list(self._names),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> KerasOptimizer:
        """Create a rule from a configuration, without state.

        Args:
            config: Mapping, as `get_config` returns it.
            custom_objects: Mapping from class name to class. Defaults to `None`.

        Raises:
            ValueError: If the mapping has no Keras optimizer.
        """
        if "optimizer" not in config:
            rule = "a `keras.optimizers.Optimizer` instead of the name of its rule"
            raise invalid("server_optimizer", rule, dict(config))
        return cls(**config, custom_objects=custom_objects)

    def clone(self) -> KerasOptimizer:
        """Return a new rule with the same configuration, without state."""
        return self.from_config(self.get_config(), self._objects)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._config.get('class_name')})"

    # -- variables and state --------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the optimizer's variables. Empty before the first delta."""
        return {} if self._stepper is None else self._state_of(self._stepper)

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the state that `get_state` returned. The rule must be built.

        Args:
            state: Mapping from name to array. An empty one is the state before the first delta.

        Raises:
            ValueError: If it is the state of another optimizer. Nothing changes then.
        """
        if not state:
            self._stepper = None
            return
        stepper = self._new_stepper()
        stepper.optimizer.build(stepper.variables)
        wanted, given = described(self._state_of(stepper)), described(state)
        if wanted != given:
            raise invalid("state", f"the arrays {wanted}", given)
        for name, variable in self._state_variables(stepper).items():
            variable.assign(np.array(state[name]))
        self._stepper = stepper

    def _new_stepper(self) -> Stepper:
        size, dtype = self._built or (0, np.dtype("float32"))
        layout = self._layout or (Weight("weights", (size,), str(dtype), "trainable"),)
        return Stepper(self._make(), [new_variable(weight, dtype) for weight in layout])

    def _state_variables(self, stepper: Stepper) -> dict[str, keras.Variable]:
        """Return the variables of the state by name. The names do not depend on those of layers."""
        found = [v for v in stepper.optimizer.variables if v.name != LEARNING_RATE]
        return {f"{self._config['class_name']}/{i}": v for i, v in enumerate(found)}

    def _state_of(self, stepper: Stepper) -> dict[str, np.ndarray]:
        named = self._state_variables(stepper)
        return {name: saved(value_of(variable)) for name, variable in named.items()}

    # -- the step -------------------------------------------------------------------------

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Take one step of the Keras optimizer with the gradient `-delta`, in place."""
        import keras

        same_kind(delta, weights)
        if not weights.size:
            return
        if self._stepper is None:
            self._stepper = self._new_stepper()
        optimizer, variables = self._stepper
        for part, variable in in_vector(weights, variables):
            # A copy, because JAX uses the memory of an array, and may compute with it later on.
            variable.assign(part.copy())
        if not optimizer.built:  # Some optimizers keep the first weights.
            optimizer.build(variables)
        gradients = [
            keras.ops.convert_to_tensor(part, dtype=variable.dtype)
            for part, variable in in_vector(np.negative(delta), variables)
        ]
        optimizer.apply(gradients, variables)
        for part, variable in in_vector(weights, variables):
            new = value_of(variable)
            part[...] = new if context.share == 1 else part + context.share * (new - part)


def in_vector(
    vector: np.ndarray, variables: Sequence[keras.Variable]
) -> list[tuple[np.ndarray, keras.Variable]]:
    """Return the part of a vector that belongs to each variable, as a view of its shape."""
    pairs, start = [], 0
    for variable in variables:
        shape = tuple(variable.shape)
        stop = start + int(np.prod(shape, dtype=np.int64))
        pairs.append((vector[start:stop].reshape(shape), variable))
        start = stop
    return pairs


def new_variable(weight: Weight, dtype: np.dtype) -> keras.Variable:
    """Return a variable of zeros with the path and the shape of one of the model."""
    import keras

    *scopes, name = weight.name.split("/")
    with ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        # Not trainable, because the gradients are given: torch would record operations otherwise.
        zeros = np.zeros(weight.shape, dtype)
        return keras.Variable(zeros, dtype=str(dtype), trainable=False, name=name)


def value_of(variable: keras.Variable) -> np.ndarray:
    """Return the value of a variable. The array may share its memory."""
    import keras

    value: np.ndarray = keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable))
    return value


def saved(value: np.ndarray) -> np.ndarray:
    """Copy a value. Integers become int64, because their size depends on the backend."""
    return value.astype(np.int64 if value.dtype.kind in "iu" else value.dtype)
