"""How a model is trained: every argument of a fit, checked once, as plain data.

`TrainingPlan.create` checks all arguments together; `checks` has the rule of each one;
`learning_rate` scales the learning rate with the number of workers.
"""

from kspark.plan.training_plan import TrainingPlan

__all__ = ["TrainingPlan"]
