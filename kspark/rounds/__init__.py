"""The default way to train: all shards train for an epoch, and the driver merges.

`driver` is what the driver does in an epoch, and `task` is what a task does. These two files
contain the whole algorithm. `road` decides whether an epoch is a Spark job of its own, or an order
to the tasks of a long job: `long_job` and `dispatcher` are the driver's side of it, `long_task` is
that of a task, and `results` is what goes between them. `stragglers`, `shard_jobs` and `patience`
let a round end without its slowest shards.
"""
