"""What a user calls: `SparkModel`, and one `fit` from its arguments to its `History`.

`model` has the class, `arguments` checks what it is given, `inputs` turns data into examples,
`training` decides how a fit trains and runs it.
"""

from kspark.spark_model.model import SparkModel

__all__ = ["SparkModel"]
