"""The checked settings of a fit, as plain data.

`settings` declares each setting of `SparkModel`. `TrainingPlan.create` checks all arguments of a
fit: each value with `checks`, and combinations with `compatibility`. `learning_rate` scales the
learning rate with the number of workers.
"""

from kspark.plan.training_plan import TrainingPlan

__all__ = ["TrainingPlan"]
