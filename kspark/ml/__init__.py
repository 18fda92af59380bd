"""Keras models as stages of Spark ML pipelines.

```python
from kspark.ml import KerasClassifier

classifier = KerasClassifier(model, featuresCol="features", labelCol="label", epochs=5)
fitted = Pipeline(stages=[assembler, scaler, classifier]).fit(train)
predictions = fitted.transform(test)
```

`KerasEstimator` trains any compiled model. `KerasClassifier` and `KerasRegressor` add the
columns that Spark's evaluators take. Each returns a fitted stage: `KerasModel`,
`KerasClassificationModel` or `KerasRegressionModel`.

`progress` shows how far an action on the result of `transform` has come.

`ElephasEstimator`, `ElephasTransformer` and the classes `Has...`, which declare one of their
Params each, are for programs written for Elephas.
"""

from kspark.data import df_to_simple_rdd, from_data_frame, to_data_frame
from kspark.ml.classifier import KerasClassificationModel, KerasClassifier
from kspark.ml.elephas.estimator import ElephasEstimator
from kspark.ml.elephas.loading import load_ml_estimator, load_ml_transformer
from kspark.ml.elephas.losses import LossModelTypeMapper, ModelType
from kspark.ml.elephas.params import (
    HasBatchSize,
    HasCategoricalLabels,
    HasCustomObjects,
    HasEpochs,
    HasFrequency,
    HasInferenceBatchSize,
    HasKerasModelConfig,
    HasKerasOptimizerConfig,
    HasLoss,
    HasMetrics,
    HasMode,
    HasNumberOfClasses,
    HasNumberOfWorkers,
    HasValidationSplit,
    HasVerbosity,
)
from kspark.ml.elephas.transformer import ElephasTransformer
from kspark.ml.estimator import KerasEstimator, KerasRegressor
from kspark.ml.images import image_columns
from kspark.ml.model import KerasModel, KerasRegressionModel
from kspark.ml.showing import progress
from kspark.ml.summary import TrainingSummary

__all__ = [
    "ElephasEstimator",
    "ElephasTransformer",
    "HasBatchSize",
    "HasCategoricalLabels",
    "HasCustomObjects",
    "HasEpochs",
    "HasFrequency",
    "HasInferenceBatchSize",
    "HasKerasModelConfig",
    "HasKerasOptimizerConfig",
    "HasLoss",
    "HasMetrics",
    "HasMode",
    "HasNumberOfClasses",
    "HasNumberOfWorkers",
    "HasValidationSplit",
    "HasVerbosity",
    "KerasClassificationModel",
    "KerasClassifier",
    "KerasEstimator",
    "KerasModel",
    "KerasRegressionModel",
    "KerasRegressor",
    "LossModelTypeMapper",
    "ModelType",
    "TrainingSummary",
    "df_to_simple_rdd",
    "from_data_frame",
    "image_columns",
    "load_ml_estimator",
    "load_ml_transformer",
    "progress",
    "to_data_frame",
]
