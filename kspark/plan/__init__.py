"""The checked settings of a fit, as plain data.

`settings` declares each setting of `SparkModel`. `TrainingPlan.create` checks all arguments of a
fit: each value with `checks`, and combinations with `compatibility`. `learning_rate` scales the
learning rate with the number of workers. `shard_steps` says which batches a shard trains in an
epoch.
"""

from kspark.plan.shard_steps import ShardSteps, shard_steps
from kspark.plan.training_plan import TrainingPlan

__all__ = ["ShardSteps", "TrainingPlan", "shard_steps"]
