"""Take apart the user's values: one value, a list, or a dictionary, per input or target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kspark.errors import Described, invalid
from kspark.shards import ArraySpec, InputSpec


def leaves(
    value: Any, specs: Sequence[ArraySpec], name: str, outputs: Sequence[str] = ()
) -> list[Any]:
    """Divide a value into one part per spec.

    Args:
        value: The part itself if there is one spec; otherwise a list, tuple or dictionary
            of parts.
        specs: Sequence of `ArraySpec`.
        name: String, the argument, for errors.
        outputs: Sequence of strings, names of all outputs of the model if `specs` are targets.
            Parts for outputs without a spec are left out; they may be `None`.

    Raises:
        ValueError: If the parts do not match the specs.
    """
    names = [s.name for s in specs]
    if is_per_output(value, outputs):
        value = dict(zip(outputs, value, strict=True))
    if isinstance(value, Mapping):
        if not set(names) <= set(value) <= {*names, *outputs}:
            rule = f"a dictionary with the keys {names}"
            if len(names) == 1:
                rule += ", or a table, such as `pandas.DataFrame(x)`, for columns side by side"
            raise invalid(name, rule, Described(f"a dictionary with the keys {list(value)}"))
        return [value[n] for n in names]
    if len(specs) == 1:
        return [value]
    if not isinstance(value, list | tuple) or len(value) != len(specs):
        raise invalid(
            name, f"a list of {len(specs)} parts, for {names}", Described(described(value))
        )
    return list(value)


def is_per_output(value: Any, outputs: Sequence[str]) -> bool:
    """Whether a list has one part per output, and is not itself a list of rows or numbers."""
    if not outputs or not isinstance(value, list | tuple) or len(value) != len(outputs):
        return False
    return any(v is None for v in value) or all(np.ndim(v) > 0 for v in value)


def described(value: Any) -> str:
    """Describe a value by its type and length or shape."""
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")


def part_name(name: str, specs: Sequence[ArraySpec], position: int) -> str:
    """Return the name of a part in errors: "`x`", or "`x['user']`" if there are several."""
    return f"`{name}`" if len(specs) == 1 else f"`{name}[{specs[position].name!r}]`"


def weight_specs(value: Any, spec: InputSpec) -> list[ArraySpec]:
    """Return the specs of sample weights: one for all targets, or one for each target.

    Args:
        value: The weights of all rows or of one row, or the names of their columns. A dictionary
            has one part per target, and so has a list or tuple if there are several targets.
        spec: `InputSpec`.
    """
    many = isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(spec.targets) > 1)
    names = [t.name for t in spec.targets] if many else ["sample_weight"]
    return [ArraySpec(name, None, spec.floatx) for name in names]
