"""Only what changed travels: the blocks of a vector, and vectors without some of them.

A *block* is a part of the flat vector that an exchange may find as it was before:

* a row of a large table: the rows of an embedding that no batch has looked up;
* a whole variable that is not trained: those of a frozen layer never change.

All else is *dense*, and always travels. A payload holds the dense parts and the blocks
that changed:

```
changed   one bit per block in the order of the vector, the lowest bit of a byte first;
          zeros up to a multiple of 8 bytes
values    dense parts and changed blocks, in the order of the vector
```

Nothing is lost: bits are compared, so that NaN counts as a change, and so does -0.0
beside 0.0. A vector whose payload would not be smaller travels as it is. A model with
neither kind of block has no `Layout`, and nobody looks at its vectors.

`layout` finds the blocks and lays out payloads; `deltas` are compared with zeros, weights
with a `reference`. No socket, no file and no Spark in here.
"""

from kspark.changes.deltas import Changes
from kspark.changes.layout import PACKED, Layout, Table
from kspark.changes.reference import Reference, completed

__all__ = ["PACKED", "Changes", "Layout", "Reference", "Table", "completed"]
