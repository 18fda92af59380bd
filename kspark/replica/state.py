"""Read and write a model's state: weights, fixed variables, optimizer and metric state.

All of it is exchanged as NumPy arrays in a fixed order, so that it can be stored in
files and sent over a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kspark.cluster.memory import nbytes
from kspark.errors import invalid
from kspark.replica.backends import get_backend
from kspark.replica.backends.base import Engine
from kspark.replica.constraints import projection_of
from kspark.replica.metrics import may_compute_loss
from kspark.replica.stepping import counters_of, has_schedule, has_several, stepping
from kspark.replica.variables import (
    assign_all,
    model_variables,
    rng_variables,
    same_structure,
    values_of,
    weight_spec,
)
from kspark.shards import InputSpec, LearningRate
from kspark.weights import FIXED, WeightSpec


class ReplicaState:
    """A compiled model's state as arrays. The base class of `Replica`.

    Args:
        model: A compiled, built `keras.Model` with a built optimizer.
        spec: `WeightSpec` of the model. Its names may differ, as in another process.
        inputs: `InputSpec` of the model.

    Attributes:
        model: The `keras.Model`.
        spec: The `WeightSpec`.
        inputs: The `InputSpec`.
        projection: Function that applies the model's constraints to a vector of weights, in place;
            `None` if the model has none.

    Raises:
        ValueError: If `spec` does not fit the model.
    """

    def __init__(self, model: keras.Model, spec: WeightSpec, inputs: InputSpec) -> None:
        if not same_structure(weight_spec(model), spec):
            raise invalid("spec", f"the `WeightSpec` of the model {model.name!r}", spec)
        self.model = model
        self.spec = spec
        self.inputs = inputs
        variables = model_variables(model)
        self._fixed = [v for v, w in zip(variables, spec.weights, strict=True) if w.role == FIXED]
        self.projection = projection_of(variables, spec)
        backend = get_backend(str(keras.backend.backend()))
        self._engine: Engine = backend.Engine(model, variables, spec, inputs)

    # -- weights ----------------------------------------------------------------------------

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the mergeable weights as one vector.

        Args:
            out: Vector of `spec.size` elements to write into. Defaults to `None`, a new one.

        Returns:
            `out`, or a new vector.

        Raises:
            IncompatibleDeltaError: If `out` does not fit `spec`.
        """
        if out is not None:
            self.spec.check(out, "out")
        return self._engine.get_vector(out)

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the mergeable weights. The vector is copied.

        Raises:
            IncompatibleDeltaError: If it does not fit `spec`.
        """
        self.spec.check(vector)
        self._engine.set_vector(vector)

    def get_fixed(self) -> list[np.ndarray]:
        """Return the values of the variables that are never merged: counters and RNG state."""
        return values_of(self._fixed)

    def set_fixed(self, values: Sequence[np.ndarray]) -> None:
        """Set the variables that are never merged to the values that `get_fixed` returned.

        Raises:
            ValueError: If the number or shapes of the arrays differ.
        """
        assign_all(self._fixed, values, "fixed")

    def reseed(self, seed: int, shard: int) -> None:
        """Set the random seeds for a shard. Shard 0 keeps the model's seeds.

        The new seeds depend on the arguments only, and the generators' counters stay
        as they are, so calling this twice has the same effect as calling it once.

        Args:
            seed: Integer >= 0, the fit's seed.
            shard: Integer >= 0, number of the shard.
        """
        if shard == 0:
            return
        for index, variable in enumerate(rng_variables(self.model)):
            state = values_of([variable])[0]
            words = np.random.SeedSequence([seed, shard, index]).generate_state(1)
            state.flat[0] = int(words[0]) % (2**31 - 1) + 1
            variable.assign(state)

    # -- optimizer --------------------------------------------------------------------------

    def get_optimizer_state(self) -> list[np.ndarray]:
        """Return the values of the optimizer's variables, with step counter and learning rate."""
        return values_of(self.model.optimizer.variables)

    @property
    def state_nbytes(self) -> int:
        """The size in bytes of `get_optimizer_state` and `get_fixed`."""
        return sum(map(nbytes, [*self.model.optimizer.variables, *self._fixed]))

    def set_optimizer_state(self, values: Sequence[np.ndarray]) -> None:
        """Set the optimizer's variables to the values that `get_optimizer_state` returned.

        Raises:
            ValueError: If the number or shapes of the arrays differ.
        """
        assign_all(self.model.optimizer.variables, values, "optimizer_state")

    @property
    def learning_rate(self) -> LearningRate:
        """The optimizer's learning rate. `None` stands for a schedule, also in a tuple."""
        optimizers = stepping(self.model.optimizer)
        rates = tuple(
            None if has_schedule(one) else float(keras.ops.convert_to_numpy(one.learning_rate))
            for one in optimizers
        )
        return rates if has_several(self.model.optimizer) else rates[0]

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        rates = value if isinstance(value, tuple) else (value,)
        for optimizer, rate in zip(stepping(self.model.optimizer), rates, strict=True):
            if rate is None:
                continue
            if has_schedule(optimizer):
                rule = "left unset, because the optimizer has a learning rate schedule"
                raise invalid("learning_rate", rule, value)
            optimizer.learning_rate = rate

    @property
    def counters(self) -> tuple[int, ...]:
        """The optimizer's scalar integers, such as `iterations`, in the order of its variables."""
        return tuple(int(value) for value in values_of(counters_of(self.model.optimizer)))

    @counters.setter
    def counters(self, values: Sequence[int]) -> None:
        arrays = [np.asarray(value) for value in values]
        assign_all(counters_of(self.model.optimizer), arrays, "counters")

    def advance_schedule(self, steps: int) -> None:
        """Advance learning rate schedules by a number of steps.

        An optimizer without a schedule is left alone: Adam corrects the bias of its moments
        by the step counter, so a counter without the moments of these steps would be wrong.
        """
        for optimizer in stepping(self.model.optimizer):
            if steps and has_schedule(optimizer):
                counters_of(optimizer)[0].assign_add(steps)

    def withdraw_steps(self, counters: Sequence[int]) -> None:
        """Set the counters back to those of steps whose state the optimizer has.

        Learning rate schedules are not set back, for the reason that `advance_schedule` gives.

        Args:
            counters: Sequence of integers, an earlier value of `counters`.
        """
        scheduled = {
            id(variable)
            for optimizer in stepping(self.model.optimizer)
            if has_schedule(optimizer)
            for variable in counters_of(optimizer)
        }
        found = counters_of(self.model.optimizer)
        for variable, value in zip(found, counters, strict=True):
            if id(variable) not in scheduled:
                variable.assign(value)

    def finalize(self) -> None:
        """Finish training as Keras does: with `use_ema`, set the weights to their averages."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def seed_backend(self, value: int) -> None:
        """Seed the random numbers that the backend draws without a variable of the model.

        The variables, such as the states of `keras.random.SeedGenerator`, are set apart from this.
        """
        self._engine.seed_backend(value)

    # -- metrics ----------------------------------------------------------------------------

    def reset_metrics(self) -> None:
        """Reset the state of all metrics."""
        self.model.reset_metrics()

    def metric_state(self) -> list[np.ndarray]:
        """Return the values of all metric variables. States of replicas add up elementwise."""
        return values_of(self.model.metrics_variables)

    def set_metric_state(self, values: Sequence[np.ndarray]) -> None:
        """Set all metric variables to the values that `metric_state` returned.

        The variables must exist; `Replica.prepare_metrics` creates them.

        Raises:
            ValueError: If the number or shapes of the arrays differ.
        """
        assign_all(self.model.metrics_variables, values, "metric_state")

    def metric_results(self) -> dict[str, Any]:
        """Compute the metrics by name from their state.

        If a custom `train_step` returned other names, return the last values that it returned.

        Returns:
            Dictionary from name to float, or to an array if a metric has one number per class.
        """
        results = self.model.get_metrics_result()
        if not may_compute_loss(self.model) and not has_counted_loss(self.model):
            results.pop("loss", None)  # Keras' own tracker, which nothing updates.
        logs = self._engine.logs
        if logs is not None and set(logs) != set(results):
            return logs
        return plain_logs(results)

    def loss_is_finite(self) -> bool:
        """Whether all losses among the metrics are finite. `True` if there is none."""
        losses = [v for name, v in self.metric_results().items() if "loss" in name]
        return all(np.all(np.isfinite(value)) for value in losses)


def has_counted_loss(model: keras.Model) -> bool:
    """Whether a metric with the name of Keras' loss tracker was updated since its last reset."""
    return any(
        np.any(keras.ops.convert_to_numpy(variable))
        for metric in model.metrics
        if metric.name == "loss"
        for variable in metric.variables
    )


def plain(value: object) -> float | np.ndarray:
    """Convert a metric's result to a float, or to an array if it is not a scalar."""
    array = np.asarray(keras.ops.convert_to_numpy(value))
    return array if array.ndim else float(array)


def plain_logs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Convert metric results to floats and arrays, and flatten metrics with several results."""
    logs: dict[str, Any] = {}
    for name, value in results.items():
        logs |= plain_logs(value) if isinstance(value, Mapping) else {name: plain(value)}
    return logs
