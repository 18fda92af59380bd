"""What a model wants to be fed."""

from __future__ import annotations

from dataclasses import dataclass

TEXT = "string"


@dataclass(frozen=True)
class ArraySpec:
    """One input or target of a model, per example.

    Attributes:
        name: String, the name of the input or output.
        shape: Tuple without the batch axis; `None` entries are lengths that
            the data decide. `None` instead of a tuple accepts any shape, which
            is what labels need: the loss, not the output, decides theirs.
        dtype: String, numpy dtype name, or `"string"` for text. `""` takes
            the data's own (integers and booleans as they are, floating point
            numbers as `InputSpec.floatx`).
    """

    name: str
    shape: tuple[int | None, ...] | None = None
    dtype: str = ""


@dataclass(frozen=True)
class InputSpec:
    """All that a model is fed.

    Attributes:
        inputs: Tuple of `ArraySpec`, in the order of `model.inputs`.
        targets: Tuple of `ArraySpec`, in the order of the model's outputs: those that
            have a loss or a metric. Empty when there are no labels, as in `predict`.
        num_weights: Integer, arrays of sample weights: 0, 1, or one per target.
        x_structure: `"single"`, `"list"` or `"dict"` (whose keys are the names).
        y_structure: As `x_structure`, for the targets.
        outputs: Tuple of strings, the names of all outputs if not every one is a target.
        floatx: String, dtype of floating point data without a dtype of their
            own: labels and sample weights.
    """

    inputs: tuple[ArraySpec, ...]
    targets: tuple[ArraySpec, ...] = ()
    num_weights: int = 0
    x_structure: str = "single"
    y_structure: str = "single"
    outputs: tuple[str, ...] = ()
    floatx: str = "float32"
