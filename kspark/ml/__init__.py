"""Keras models as stages of Spark ML pipelines.

```python
from kspark.ml import KerasClassifier

classifier = KerasClassifier(model, featuresCol="features", labelCol="label", epochs=5)
fitted = Pipeline(stages=[assembler, scaler, classifier]).fit(train)
predictions = fitted.transform(test)
```

`KerasEstimator` takes any compiled model, `KerasClassifier` and `KerasRegressor` add
what Spark's evaluators expect. Each fits a model of the same name.
"""

from kspark.ml.classifier import KerasClassificationModel, KerasClassifier
from kspark.ml.estimator import KerasEstimator, KerasRegressor
from kspark.ml.model import KerasModel, KerasRegressionModel
from kspark.ml.summary import TrainingSummary

__all__ = [
    "KerasClassificationModel",
    "KerasClassifier",
    "KerasEstimator",
    "KerasModel",
    "KerasRegressionModel",
    "KerasRegressor",
    "TrainingSummary",
]
