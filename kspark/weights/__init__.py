"""The weights of a model as one flat vector, and what of it travels.

`spec` describes the vector, `arithmetic` has deltas and weighted means. `packing` says how
deltas and gradients travel. `layout`,
`comparing`, `changes` and `reference` leave out what did not change:

A *block* is a part of the vector that an exchange may find unchanged:

* a row of a large table: the rows of an embedding that no batch has looked up;
* a whole variable that is not trained: those of a frozen layer never change.

All other parts are *dense* and always travel. A payload holds the dense parts and the blocks
that changed:

```
changed   one bit per block in the order of the vector, the lowest bit of a byte first;
          zeros up to a multiple of 8 bytes
values    dense parts and changed blocks, in the order of the vector
```

Nothing is lost: bits are compared, so NaN counts as a change, and so does -0.0 beside 0.0.
A vector whose payload would not be smaller travels whole. A model with neither kind of block
has no `Layout`, and its vectors are never compared.
"""

from kspark.weights.arithmetic import (
    WeightedMean,
    apply_delta,
    compute_delta,
    same_kind,
    weighted_mean,
)
from kspark.weights.changes import Changes
from kspark.weights.layout import PACKED, Layout, Table
from kspark.weights.packing import Packer, PackingScheme, Whole
from kspark.weights.reference import Reference, completed
from kspark.weights.spec import FIXED, STATE, TRAINABLE, Weight, WeightSpec

__all__ = [
    "FIXED",
    "PACKED",
    "STATE",
    "TRAINABLE",
    "Changes",
    "Layout",
    "Packer",
    "PackingScheme",
    "Reference",
    "Table",
    "Weight",
    "WeightSpec",
    "WeightedMean",
    "Whole",
    "apply_delta",
    "completed",
    "compute_delta",
    "same_kind",
    "weighted_mean",
]
