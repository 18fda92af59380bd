"""The checked settings of a fit, as plain data.

`settings` declares each setting of `SparkModel`. `TrainingPlan.create` checks all arguments of a
fit: each value with `checks`, and combinations with `compatibility`. `learning_rate` scales the
learning rate with the number of workers. `shard_steps` says which batches a shard trains in an
epoch. `mixing` says which rows a shard gets when they are mixed between shards.
"""

from kspark.plan.mixing import Mixing, mixed_sizes
from kspark.plan.shard_steps import UNKNOWN, ShardSteps, Steps, StreamSteps, known, shard_steps
from kspark.plan.training_plan import TrainingPlan

__all__ = [
    "UNKNOWN",
    "Mixing",
    "ShardSteps",
    "Steps",
    "StreamSteps",
    "TrainingPlan",
    "known",
    "mixed_sizes",
    "shard_steps",
]
