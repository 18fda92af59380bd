"""The default way to train: one ordinary Spark job per epoch.

`driver` is what the driver does in an epoch, `task` what a task does. The algorithm can be read
from these two alone. There is no server and no port, and tasks need not run at the same time:
Spark's retries, locality, dynamic allocation and waves of tasks all apply.

`stragglers`, `flights` and `patience` let a round go on without its slowest shards.
"""
