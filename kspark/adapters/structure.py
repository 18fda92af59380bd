"""One value per input or target out of what users pass: one thing, a list, or a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kspark.errors import invalid
from kspark.shards import ArraySpec, InputSpec


def leaves(
    value: Any, specs: Sequence[ArraySpec], name: str, outputs: Sequence[str] = ()
) -> list[Any]:
    """Take a value apart into one part per spec.

    Args:
        value: The part itself if there is one spec; a list, tuple or dictionary
            of parts otherwise.
        specs: Sequence of `ArraySpec`.
        name: String, the argument that errors name.
        outputs: Sequence of strings, names of all outputs if `specs` are some of them:
            parts for the others, `None` among them, are left out.

    Raises:
        ValueError: If the parts are not exactly those of the specs.
    """
    names = [s.name for s in specs]
    if is_per_output(value, outputs):
        value = dict(zip(outputs, value, strict=True))
    if isinstance(value, Mapping):
        if not set(names) <= set(value) <= {*names, *outputs}:
            raise invalid(name, f"a dictionary with the keys {names}", list(value))
        return [value[n] for n in names]
    if len(specs) == 1:
        return [value]
    if not isinstance(value, list | tuple) or len(value) != len(specs):
        raise invalid(name, f"a list of {len(specs)} parts, for {names}", described(value))
    return list(value)


def is_per_output(value: Any, outputs: Sequence[str]) -> bool:
    """Whether a list has one part per output, and is no list of rows or numbers itself."""
    if not outputs or not isinstance(value, list | tuple) or len(value) != len(outputs):
        return False
    return any(v is None for v in value) or all(np.ndim(v) > 0 for v in value)


def described(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")


def part_name(name: str, specs: Sequence[ArraySpec], position: int) -> str:
    """How an error names a part: "`x`", or "`x['user']`" among several."""
    return f"`{name}`" if len(specs) == 1 else f"`{name}[{specs[position].name!r}]`"


def weight_specs(value: Any, spec: InputSpec) -> list[ArraySpec]:
    """What sample weights look like: one array for all targets, or one for each.

    Args:
        value: The weights, of all rows or of one. A dictionary, and with
            several targets also a list or tuple, has one part per target.
        spec: `InputSpec`.
    """
    many = isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(spec.targets) > 1)
    names = [t.name for t in spec.targets] if many else ["sample_weight"]
    return [ArraySpec(name, None, spec.floatx) for name in names]
