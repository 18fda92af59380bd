"""The default way to train: one ordinary Spark job per epoch.

`driver` is what the driver does in an epoch, and `task` is what a task does. These two files
contain the whole algorithm. `stragglers`, `shard_jobs` and `patience` let a round end without its
slowest shards.
"""
