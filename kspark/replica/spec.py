"""`ReplicaSpec`: a compiled Keras model as plain data, to be sent to the workers.

This module imports Keras inside its functions only, because a worker that unpickles a spec must
choose Keras' backend first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.replica.checks import check_model, check_text_inputs
from kspark.replica.model_spec import ModelSpec
from kspark.replica.preprocessing import Preprocessing
from kspark.replica.renewing import is_renewable
from kspark.replica.signature import input_spec
from kspark.replica.variables import model_variables, values_of, weight_spec
from kspark.shards import InputSpec
from kspark.weights import FIXED, WeightSpec

if TYPE_CHECKING:
    import keras


MAX_VALUES_BYTES = 64 * 2**20
"""Size up to which the values of a model are sent in a form that a built replica takes, too."""

MAX_FIXED_ITEM_BYTES = 8
"""Largest size of an element of a weight that is not merged, in bytes."""


@dataclass(frozen=True)
class Values:
    """The values of all variables of a model but its optimizer's.

    They are those in the model's file. A replica that is built already takes them from here.

    Attributes:
        vector: Vector of the mergeable weights.
        fixed: Tuple of the other arrays, as `Replica.get_fixed` returns them.
    """

    vector: np.ndarray
    fixed: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, model: keras.Model, spec: WeightSpec) -> Values | None:
        """Copy the values of a model. Returns `None` if they are large."""
        fixed_items = sum(w.size for w in spec.weights if w.role == FIXED)
        if spec.nbytes + MAX_FIXED_ITEM_BYTES * fixed_items > MAX_VALUES_BYTES:
            return None
        arrays = values_of(model_variables(model))
        fixed = (a for a, w in zip(arrays, spec.weights, strict=True) if w.role == FIXED)
        return cls(spec.flatten(arrays), tuple(fixed))


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
            values of weights do not enter it, nor do `names`.
        values: `Values`, if a replica of an earlier fit may train this model; see
            `kspark.replica.renewing`. Defaults to `None`: a replica is built anew.
        preprocessing: `Preprocessing` of the rows, or `None`: they are the model's inputs.
        names: Tuple of strings, the names of layers and metrics that Keras has made. Models with
            the same digest have as many, in the same order.
    """

    model: ModelSpec
    backend: str
    weights: WeightSpec
    inputs: InputSpec
    digest: str
    values: Values | None = field(default=None, repr=False, compare=False)
    preprocessing: Preprocessing | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: keras.Model,
        custom_objects: Mapping[str, Any] | None = None,
        inputs: InputSpec | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> ReplicaSpec:
        """Describe a model, and check that a worker can rebuild it.

        Builds the model's optimizer if necessary; changes nothing else.

        Args:
            model: A compiled, built `keras.Model`.
            custom_objects: Mapping from name to class or function, for objects to which
                the model does not refer itself.
            inputs: `InputSpec`, for a model whose inputs cannot be determined from it alone.
            preprocessing: `Preprocessing` of the rows, or `None`.

        Returns:
            A `ReplicaSpec`.

        Raises:
            ValueError: If the model is not compiled or not built, cannot be rebuilt from
                its configuration, has stateful layers, or takes text that the backend lacks.
            TypeError: If `model` is not a Keras model.
        """
        import keras

        check_model(model)
        inputs, backend = inputs or input_spec(model), str(keras.backend.backend())
        check_text_inputs(inputs, backend)
        described, weights = ModelSpec.of(model, custom_objects), weight_spec(model)
        return cls(
            model=described,
            backend=backend,
            weights=weights,
            inputs=inputs,
            digest=described.digest,
            values=Values.of(model, weights) if is_renewable(model, described) else None,
            preprocessing=preprocessing,
            names=described.names,
        )

    @property
    def rows(self) -> InputSpec:
        """`InputSpec` of the rows that the replica gets."""
        return self.inputs if self.preprocessing is None else self.preprocessing.rows(self.inputs)

    def renewed(self, model: keras.Model) -> ReplicaSpec:
        """Update the spec with the model's current weights, optimizer state and RNG state.

        Args:
            model: The `keras.Model` that was passed to `of`.
        """
        # The digest stays that of the original, so that workers keep their replicas. A later fit
        # must not take over those that are built from this spec.
        return replace(self, model=ModelSpec.of(model, self.model.objects()), values=None)
