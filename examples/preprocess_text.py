"""Text is prepared on the workers, and what prepares it is saved with the pipeline.

    python preprocess_text.py

A model of word counts learns from which library a function's description comes: NumPy or
PySpark. `TextVectorization` is not a part of the model, but its `preprocess`.
"""

from __future__ import annotations

import tempfile

from kspark.ml import KerasClassifier
from kspark.session import local_session

import keras
import numpy as np
import pyspark.sql.functions
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession

LIBRARIES = (np, pyspark.sql.functions)
NUM_WORDS = 500


def read_texts(spark: SparkSession) -> DataFrame:
    """A text and the number of its library."""
    rows = []
    for label, module in enumerate(LIBRARIES):
        for name in dir(module):
            value = getattr(module, name)
            if callable(value) and not name.startswith("_") and value.__doc__:
                rows.append((" ".join(value.__doc__.split(">>>")[0].split()[:40]), label))
    return spark.createDataFrame(rows, "text string, label int")


def build_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((NUM_WORDS,)), keras.layers.Dense(len(LIBRARIES), activation="softmax")]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def main(spark: SparkSession | None = None) -> dict[str, float]:
    """Train, save, load and evaluate a pipeline. Returns accuracies.

    Args:
        spark: `SparkSession`; one on this machine by default.
    """
    spark = spark or local_session()
    train, test = read_texts(spark).repartition(2).cache().randomSplit([0.8, 0.2], seed=1)
    words = keras.layers.TextVectorization(
        NUM_WORDS, output_mode="multi_hot", pad_to_max_tokens=True
    )
    words.adapt([row.text for row in train.select("text").collect()])
    classifier = KerasClassifier(
        build_model(), featuresCol="text", preprocess=words, epochs=8, numWorkers=2, seed=0
    )
    fitted = Pipeline(stages=[classifier]).fit(train)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy")
    with tempfile.TemporaryDirectory() as folder:
        fitted.write().overwrite().save(f"{folder}/pipeline")
        loaded = PipelineModel.load(f"{folder}/pipeline")
    found = {
        "accuracy": accuracy.evaluate(fitted.transform(test)),
        "accuracy_of_the_loaded_pipeline": accuracy.evaluate(loaded.transform(test)),
        "accuracy_of_the_largest_class": test.filter("label = 1").count() / test.count(),
    }
    print(found)
    return found


if __name__ == "__main__":
    main()
