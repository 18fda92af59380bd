"""Build a replica from a `ReplicaSpec` in the process that runs it, or renew one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kspark.errors import EnvironmentMismatchError
from kspark.replica.backends import use_backend
from kspark.replica.signature import DICT
from kspark.replica.spec import ReplicaSpec
from kspark.replica.variables import same_structure, weight_spec

if TYPE_CHECKING:
    from kspark.replica.preprocessing import Preprocessor
    from kspark.replica.replica import Replica
    from kspark.shards import ArraySpec, InputSpec


def build(spec: ReplicaSpec, threads: int | None = None) -> Replica:
    """Build a replica with the weights, optimizer state and RNG state of the spec's model.

    Chooses Keras' backend before it imports Keras.

    Args:
        spec: `ReplicaSpec`.
        threads: Integer, threads that the backend may use. Defaults to `None`, the backend's
            default.

    Returns:
        A `Replica`.

    Raises:
        EnvironmentMismatchError: If Keras already runs on another backend in this process, or
            if the rebuilt model has other variables than the spec.
    """
    use_backend(spec.backend, threads)
    import keras

    keras.config.set_floatx(spec.inputs.floatx)
    from kspark.replica.replica import Replica

    objects = spec.model.objects()
    model = spec.model.make(objects)
    if not same_structure(weight_spec(model), spec.weights):
        raise EnvironmentMismatchError(
            f"Keras {keras.__version__} on this worker rebuilt the model with other "
            "variables than on the driver. Install the same version of Keras on both."
        )
    return Replica(model, spec.weights, spec.inputs, objects, preparation_of(spec))


def preparation_of(spec: ReplicaSpec) -> Preprocessor | None:
    """Make what prepares the rows of a replica, if there is anything to do."""
    return None if spec.preprocessing is None else spec.preprocessing.make(spec.inputs)


def renewed(replica: Replica, spec: ReplicaSpec) -> bool:
    """Set all variables of a replica to those of a spec of the same model.

    What the replica has compiled stays compiled.

    Args:
        replica: `Replica` that was built from a spec with `values` and the same digest.
        spec: `ReplicaSpec`.

    Returns:
        Boolean, `False` if the replica has to be built anew. Then nothing has changed.
    """
    values, compilation = spec.values, spec.model.compilation
    if values is None or compilation is None:
        return False
    if nameless(replica.inputs) != nameless(spec.inputs):
        return False
    if not same_structure(replica.spec, spec.weights):
        return False
    import keras

    keras.config.set_floatx(spec.inputs.floatx)
    replica.forget_rows()
    replica.spec, replica.inputs = spec.weights, spec.inputs
    replica.set_vector(values.vector)
    replica.set_fixed(values.fixed)
    replica.set_optimizer_state(compilation.optimizer.state)
    replica.reset_metrics()
    replica.preparation = preparation_of(spec)
    return True


def nameless(inputs: InputSpec) -> InputSpec:
    """Return an `InputSpec` without the names that no structure needs, which Keras numbers."""

    def without_names(arrays: tuple[ArraySpec, ...]) -> tuple[ArraySpec, ...]:
        return tuple(replace(array, name="") for array in arrays)

    if inputs.x_structure != DICT:
        inputs = replace(inputs, inputs=without_names(inputs.inputs))
    if inputs.y_structure != DICT and not inputs.outputs:
        inputs = replace(inputs, targets=without_names(inputs.targets))
    return inputs
