"""`SparkModel`: check the arguments of a call, and run it on Spark.

`model` has the class and `inference` its base class, which evaluates and predicts. `arguments`
checks arguments, `inputs` turns data into examples, and `training` decides how a fit trains and
runs it.
"""

from kspark.spark_model.model import SparkModel

__all__ = ["SparkModel"]
