"""Shards: one partition of the user's examples as columnar arrays on local disk.

**Columnar.** An example is one row. Examples are stored as arrays whose first
axis is the row, never one by one: a model with two inputs and one output has
two arrays in `x` and one in `y`, all of the same length.

```
InputSpec     names, shapes and dtypes of a model's inputs and targets
SparseRows    rows of one input of which most elements are zero, in place of an array
Chunk         rows in memory, to be written to disk
   spool()    writes chunks to files under Spark's local directories, once per fit
ShardHandle   describes a shard for Spark: where its files are and what they contain
   link()     names the files of a shard a second time, for another fit
   Shard      the files, opened in the process that trains on them
Window        rows in memory, in training order, to be passed to the model
```

If one `Window` holds a whole shard (at most 128 MiB), its numbers are mapped from
the shard's files, copy-on-write; files are never rewritten in place. A larger shard
is read one `Window` at a time, with plain reads into new arrays, so the resident
memory of a worker does not grow with its shard.
"""

from kspark.shards.facts import LearningRate, ShardFacts, Usage
from kspark.shards.handle import LabelStats, ShardHandle, StoredArray, merge_label_stats
from kspark.shards.linking import link
from kspark.shards.marks import is_here, mark_in
from kspark.shards.reading import Shard
from kspark.shards.removal import remove_spools
from kspark.shards.rows import Block, Chunk, Window, joined, num_batches
from kspark.shards.sparse import Features, SparseRows, dense
from kspark.shards.spec import BYTES, RAGGED, RAW, STORABLE, TEXT, ArraySpec, InputSpec, raw_arrays
from kspark.shards.writing import SpoolMissingError, spool, spool_directory

__all__ = [
    "BYTES",
    "RAGGED",
    "RAW",
    "STORABLE",
    "TEXT",
    "ArraySpec",
    "Block",
    "Chunk",
    "Features",
    "InputSpec",
    "LabelStats",
    "LearningRate",
    "Shard",
    "ShardFacts",
    "ShardHandle",
    "SparseRows",
    "SpoolMissingError",
    "StoredArray",
    "Usage",
    "Window",
    "dense",
    "is_here",
    "joined",
    "link",
    "mark_in",
    "merge_label_stats",
    "num_batches",
    "raw_arrays",
    "remove_spools",
    "spool",
    "spool_directory",
]
