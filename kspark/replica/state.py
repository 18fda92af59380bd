"""What a live model holds: merged weights, fixed variables, optimizer and metric state.

All of it is read and written as NumPy arrays in a fixed order, so that it can
be kept in files and sent over wires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kspark.errors import invalid
from kspark.replica.backends import get_backend
from kspark.replica.backends.base import Engine
from kspark.replica.variables import (
    assign_all,
    model_variables,
    rng_variables,
    same_structure,
    values_of,
    weight_spec,
)
from kspark.shards import InputSpec
from kspark.weights import FIXED, WeightSpec


class ReplicaState:
    """A compiled model's state as arrays. The base of `Replica`.

    Args:
        model: A compiled, built `keras.Model` with a built optimizer.
        spec: `WeightSpec` of the model; the names may be another process's.
        inputs: `InputSpec` of the model.

    Attributes:
        model: The `keras.Model`.
        spec: The `WeightSpec`.
        inputs: The `InputSpec`.

    Raises:
        ValueError: If `spec` is another model's.
    """

    def __init__(self, model: keras.Model, spec: WeightSpec, inputs: InputSpec) -> None:
        if not same_structure(weight_spec(model), spec):
            raise invalid("spec", f"the `WeightSpec` of the model {model.name!r}", spec)
        self.model = model
        self.spec = spec
        self.inputs = inputs
        variables = model_variables(model)
        self._fixed = [v for v, w in zip(variables, spec.weights, strict=True) if w.role == FIXED]
        backend = get_backend(str(keras.backend.backend()))
        self._engine: Engine = backend.Engine(model, variables, spec, inputs)

    # -- weights ----------------------------------------------------------------------------

    def get_vector(self, out: np.ndarray | None = None) -> np.ndarray:
        """The merged weights as one vector.

        Args:
            out: Vector of `spec.size` elements to write into.

        Returns:
            `out`, or a new vector.

        Raises:
            IncompatibleDeltaError: If `out` is not of this model's spec.
        """
        if out is not None:
            self.spec.check(out, "out")
        return self._engine.get_vector(out)

    def set_vector(self, vector: np.ndarray) -> None:
        """Set the merged weights. The vector is copied.

        Raises:
            IncompatibleDeltaError: If it is not of this model's spec.
        """
        self.spec.check(vector)
        self._engine.set_vector(vector)

    def get_fixed(self) -> list[np.ndarray]:
        """Values of the variables that never merge: counters, RNG state."""
        return values_of(self._fixed)

    def set_fixed(self, values: Sequence[np.ndarray]) -> None:
        """The inverse of `get_fixed`.

        Raises:
            ValueError: If the number or shapes of the arrays differ.
        """
        assign_all(self._fixed, values, "fixed")

    def reseed(self, seed: int, shard: int) -> None:
        """Give a shard random numbers of its own; shard 0 keeps the model's.

        Only the seeds change, and depend on the arguments alone; the generators'
        counters stay. So it does no harm to call this twice.

        Args:
            seed: Integer >= 0, the fit's seed.
            shard: Integer >= 0.
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
        """Values of the optimizer's variables, its step counter and learning rate among them."""
        return values_of(self.model.optimizer.variables)

    def set_optimizer_state(self, values: Sequence[np.ndarray]) -> None:
        """The inverse of `get_optimizer_state`.

        Raises:
            ValueError: If the number or shapes of the arrays differ.
        """
        assign_all(self.model.optimizer.variables, values, "optimizer_state")

    @property
    def learning_rate(self) -> float | None:
        """The optimizer's learning rate; `None` if a schedule decides."""
        rate = self.model.optimizer.learning_rate
        if not isinstance(rate, keras.Variable):
            return None
        return float(keras.ops.convert_to_numpy(rate.value))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self.learning_rate is None:
            raise invalid("learning_rate", "left alone: the optimizer has a schedule", value)
        self.model.optimizer.learning_rate = value

    def advance_schedule(self, steps: int) -> None:
        """Go on in a learning rate schedule as if so many steps had been made.

        An optimizer without one is left alone: its step counter corrects the bias of
        moments (Adam), which start anew with it.
        """
        if steps and self.learning_rate is None:
            self.model.optimizer.iterations.assign_add(steps)

    def finalize(self) -> None:
        """What Keras does when training ends: with `use_ema`, the averages become the weights."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    # -- metrics ----------------------------------------------------------------------------

    def reset_metrics(self) -> None:
        """Begin all metrics anew."""
        self.model.reset_metrics()

    def metric_state(self) -> list[np.ndarray]:
        """Values of all metric variables; states of several replicas add up element by element."""
        return values_of(self.model.metrics_variables)

    def set_metric_state(self, values: Sequence[np.ndarray]) -> None:
        """The inverse of `metric_state`. The metrics must be prepared (`Replica.prepare_metrics`).

        Raises:
            ValueError: If the number or shapes of the arrays differ.
        """
        assign_all(self.model.metrics_variables, values, "metric_state")

    def metric_results(self) -> dict[str, Any]:
        """Metrics by name, from their state; or else what a custom `train_step` returned last.

        Floats, and arrays for metrics with one number per class.
        """
        results = self.model.get_metrics_result()
        logs = self._engine.logs
        if logs is not None and set(logs) != set(results):
            return logs
        return plain_logs(results)

    def loss_is_finite(self) -> bool:
        """Whether every loss among the metrics is a finite number, as far as there are any."""
        losses = [v for name, v in self.metric_results().items() if "loss" in name]
        return all(np.all(np.isfinite(value)) for value in losses)


def plain(value: object) -> float | np.ndarray:
    """A metric's result as a float, or as an array if it has an axis."""
    array = np.asarray(keras.ops.convert_to_numpy(value))
    return array if array.ndim else float(array)


def plain_logs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Metric results without tensors; of a metric with several results, each has its own name."""
    logs: dict[str, Any] = {}
    for name, value in results.items():
        logs |= plain_logs(value) if isinstance(value, Mapping) else {name: plain(value)}
    return logs
