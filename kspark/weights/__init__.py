"""The weights of a model as one flat vector, and how the vector is sent.

`spec` describes the vector. `arithmetic` computes deltas and weighted means. `packing` defines how
deltas and gradients are sent. `layout`, `comparing`, `changes` and `reference` omit blocks that
did not change.

A *block* is a part of the vector that an exchange may leave unchanged:

* a row of a large table, such as the rows of an embedding that no batch has looked up;
* a whole non-trainable variable, such as those of a frozen layer, which never change.

All other parts are *dense* and are always sent. A payload contains the dense parts and the changed
blocks:

```
changed   one bit per block in the order of the vector, the lowest bit of a byte first,
          padded with zeros to a multiple of 8 bytes
values    dense parts and changed blocks, in the order of the vector
```

Payloads are lossless. Blocks are compared bit by bit, so NaN counts as a change, and so does -0.0
compared with 0.0. A vector is sent whole if its payload would not be smaller. A model without any
block has no `Layout`, and its vectors are never compared.
"""

from kspark.weights.arithmetic import (
    WeightedMean,
    apply_delta,
    compute_delta,
    mean_in_order,
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
    "mean_in_order",
    "same_kind",
    "weighted_mean",
]
