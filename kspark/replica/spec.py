"""`ReplicaSpec`: a compiled Keras model as plain data, to be sent to the workers.

This module imports Keras inside its functions only, because a worker that unpickles a spec must
choose Keras' backend first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kspark.replica.checks import check_model
from kspark.replica.model_spec import ModelSpec
from kspark.replica.signature import input_spec
from kspark.replica.variables import weight_spec
from kspark.shards import InputSpec
from kspark.weights import WeightSpec

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ReplicaSpec:
    """A compiled model as plain data that can be unpickled without Keras.

    Create it with `ReplicaSpec.of`.

    Attributes:
        model: `ModelSpec`.
        backend: String, the Keras backend that the model was made with.
        weights: `WeightSpec` over all variables of the model.
        inputs: `InputSpec` of the model.
        digest: String, digest of the architecture, compile arguments and custom objects. The
            values of weights do not enter it.
    """

    model: ModelSpec
    backend: str
    weights: WeightSpec
    inputs: InputSpec
    digest: str

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
        described = ModelSpec.of(model, custom_objects)
        return cls(
            model=described,
            backend=str(keras.backend.backend()),
            weights=weight_spec(model),
            inputs=input_spec(model) if inputs is None else inputs,
            digest=described.digest,
        )

    def renewed(self, model: keras.Model) -> ReplicaSpec:
        """Update the spec with the model's current weights, optimizer state and RNG state.

        Args:
            model: The `keras.Model` that was passed to `of`.
        """
        return replace(self, model=ModelSpec.of(model, self.model.objects()))
