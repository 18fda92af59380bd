"""What is done to the rows of each batch before the model gets them, as the user has said.

`preprocess` turns the rows of a batch into the inputs of the model, and `augment` changes these
inputs, only in training. `Preprocessing` holds both as plain data, which travels with the model in
a `ReplicaSpec`. `make` returns the `Preprocessor` of a replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kspark.replica.model_inputs import as_arrays, as_inputs
from kspark.replica.signature import DICT
from kspark.shards import Chunk, raw_arrays
from kspark.shards.ragged import alike

if TYPE_CHECKING:
    from kspark.replica.steps import BuiltStep, Step
    from kspark.shards import InputSpec


@dataclass(frozen=True)
class Preprocessing:
    """What is done to the rows of each batch, as plain data.

    Attributes:
        names: Tuple of strings, the names of the arrays in the rows, for `preprocess`.
        preprocess: `Step`, or `None`: the rows are the model's inputs.
        augment: `Step`, or `None`. Defaults to `None`.
    """

    names: tuple[str, ...]
    preprocess: Step | None
    augment: Step | None = None

    @property
    def title(self) -> str:
        """A short description."""
        steps = (self.preprocess, self.augment)
        return ", ".join(f"{step.argument}={step.title}" for step in steps if step is not None)

    def rows(self, inputs: InputSpec) -> InputSpec:
        """Return the `InputSpec` of the rows, for a model of the given `inputs`.

        With `preprocess`, features may have any values and shapes.
        """
        if self.preprocess is None:
            return inputs
        return replace(inputs, inputs=raw_arrays(self.names), x_structure=DICT)

    def make(self, inputs: InputSpec) -> Preprocessor:
        """Make what a replica calls.

        Args:
            inputs: `InputSpec` of the model.
        """
        preprocess = None if self.preprocess is None else self.preprocess.make()
        augment = None if self.augment is None else self.augment.make()
        return Preprocessor(self.names, inputs, preprocess, augment)


class Preprocessor:
    """Prepares the rows of batches for a replica, as a `kspark.replica.preparing.Preparation`.

    Args:
        names: Sequence of strings, the names of the arrays in the rows.
        inputs: `InputSpec` of the model.
        preprocess: `BuiltStep`, or `None`.
        augment: `BuiltStep`, or `None`.
    """

    def __init__(
        self,
        names: Sequence[str],
        inputs: InputSpec,
        preprocess: BuiltStep | None,
        augment: BuiltStep | None,
    ) -> None:
        self._names = list(names)
        self._inputs = inputs
        self._preprocess = preprocess
        self._augment = augment
        self._seed = 0

    def seed(self, value: int) -> None:
        """Seed the random numbers of `augment`, for one epoch of a shard."""
        self._seed = value

    def applies(self, *, training: bool) -> bool:
        """Whether it does anything to the rows."""
        return self._preprocess is not None or (training and self._augment is not None)

    def __call__(self, chunk: Chunk, number: int, *, training: bool) -> Chunk:
        """See `kspark.replica.preparing.Preparation`.

        Raises:
            ValueError: If a step returns something other than the model's inputs.
        """
        x, count = chunk.x, chunk.num_examples
        if self._preprocess is not None:
            rows = dict(zip(self._names, map(alike, x), strict=True))
            found = self._preprocess(rows, training=False)
            x = as_arrays("preprocess", found, self._inputs, count)
        if training and self._augment is not None:
            inputs, seed = as_inputs(x, self._inputs), (self._seed, number)
            found = self._augment(inputs, training=True, seed=seed)
            x = as_arrays("augment", found, self._inputs, count)
        return Chunk(x, chunk.y, chunk.sample_weight)
