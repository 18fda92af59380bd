"""Shards: one partition of the user's examples as columnar arrays on local disk.

**Columnar.** An example is one row. Examples are never handled one by one but as
arrays whose first axis is the row: a model with two inputs and one output has
two arrays in `x` and one in `y`, all of the same length.

```
InputSpec     what the model wants: names, shapes and dtypes of inputs and targets
Chunk         some rows in memory, on their way to disk
   spool()    Chunks -> files under Spark's local directories, once per fit
ShardHandle   what Spark keeps of a shard: where the files are, what is in them
   Shard      the files, opened in the process that trains on them
Window        some rows in memory, on their way into the model, in training order
```

A shard larger than memory is read one `Window` at a time with plain reads into
fresh arrays; nothing is memory-mapped, so the resident memory of a worker does
not grow with its shard.
"""

from kspark.shards.facts import ShardFacts, Usage
from kspark.shards.handle import LabelStats, ShardHandle, StoredArray, merge_label_stats
from kspark.shards.reading import Shard
from kspark.shards.rows import Chunk, Window, num_batches
from kspark.shards.spec import TEXT, ArraySpec, InputSpec
from kspark.shards.writing import SpoolMissingError, remove_spools, spool, spool_directory

__all__ = [
    "TEXT",
    "ArraySpec",
    "Chunk",
    "InputSpec",
    "LabelStats",
    "Shard",
    "ShardFacts",
    "ShardHandle",
    "SpoolMissingError",
    "StoredArray",
    "Usage",
    "Window",
    "merge_label_stats",
    "num_batches",
    "remove_spools",
    "spool",
    "spool_directory",
]
