"""The inputs and targets that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TEXT = "string"
"""Stands for the dtype of text, an object array of `str`."""

BYTES = "bytes"
"""Stands for the dtype of an object array of `bytes`, such as the files of images."""

RAW = "raw"
"""The dtype of an `ArraySpec` that keeps the dtype of the data: numbers, text or bytes."""

STORABLE = "storable"
"""The dtype of an `ArraySpec` of rows that are stored for any model: `""`, but with bytes."""

RAGGED = "ragged"
"""Stands for the dtype of an object array with one value per row, see `kspark.shards.ragged`."""


@dataclass(frozen=True)
class ArraySpec:
    """One input or target of a model, per example.

    Attributes:
        name: String, the name of the input or output.
        shape: Tuple of integers or `None`, without the batch axis. A `None` entry
            is a length that varies with the data. `None` instead of a tuple
            accepts any shape; it is used for labels, whose shape depends on the
            loss and not on the model's output.
        dtype: String, numpy dtype name, or `"string"` for text. Defaults to `""`,
            which keeps integers and booleans as they are and converts floating
            point numbers to `InputSpec.floatx`. `"raw"` keeps the dtype of all data, and also
            accepts bytes, rows of different shapes, and nulls. `"storable"` is as `""`, and also
            accepts these.
    """

    name: str
    shape: tuple[int | None, ...] | None = None
    dtype: str = ""

    @property
    def is_loose(self) -> bool:
        """Whether rows may be bytes, have different shapes, and be null."""
        return self.dtype in (RAW, STORABLE)


def raw_arrays(names: Sequence[str]) -> tuple[ArraySpec, ...]:
    """Return one `ArraySpec` for values of any kind and shape per name."""
    return tuple(ArraySpec(name, None, RAW) for name in names)


@dataclass(frozen=True)
class InputSpec:
    """The arrays that a model takes, and their structure.

    Attributes:
        inputs: Tuple of `ArraySpec`, in the order of `model.inputs`.
        targets: Tuple of `ArraySpec`, one per output with a loss or a metric, in the
            order of the model's outputs. Empty without labels, as in `predict`.
        num_weights: Integer, number of sample weight arrays: 0, 1, or one per target.
        x_structure: String, how `x` is passed: `"single"`, `"list"` or `"dict"` (whose
            keys are the names of the inputs).
        y_structure: String, as `x_structure`, for the targets.
        outputs: Tuple of strings, the names of all outputs if some are no targets,
            else empty.
        floatx: String, dtype of floating point data for which no dtype is given:
            labels and sample weights.
    """

    inputs: tuple[ArraySpec, ...]
    targets: tuple[ArraySpec, ...] = ()
    num_weights: int = 0
    x_structure: str = "single"
    y_structure: str = "single"
    outputs: tuple[str, ...] = ()
    floatx: str = "float32"

    @property
    def is_loose(self) -> bool:
        """Whether rows of some input may have different shapes."""
        return any(one.is_loose for one in self.inputs)
