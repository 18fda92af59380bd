"""A text model on a column of strings: the words become numbers inside the model.

    python text_classifier.py

From which library does a function's description come: NumPy, PySpark or Keras?
The descriptions are those of the installed libraries.
"""

from __future__ import annotations

from kspark.ml import KerasClassifier
from kspark.session import local_session

import keras
import numpy as np
import pyspark.sql.functions
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession

LIBRARIES = {"numpy": np, "pyspark": pyspark.sql.functions, "keras": keras.ops}
NUM_WORDS = 2000


def read_texts(spark: SparkSession) -> DataFrame:
    """A text and the number of its library."""
    rows = []
    for label, module in enumerate(LIBRARIES.values()):
        for name in dir(module):
            value = getattr(module, name)
            if callable(value) and not name.startswith("_") and value.__doc__:
                # A few lines, without the examples that would give it away.
                text = " ".join(value.__doc__.split(">>>")[0].split()[:60])
                rows.append((text, label))
    return spark.createDataFrame(rows, "text string, label int")


def build_model(texts: list[str]) -> keras.Model:
    """A model whose input is text; it learns the vocabulary before it goes to Spark."""
    keras.utils.set_random_seed(0)
    words = keras.layers.TextVectorization(NUM_WORDS, output_sequence_length=60)
    words.adapt(texts)
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            words,
            keras.layers.Embedding(NUM_WORDS, 16),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(len(LIBRARIES), activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def main(spark: SparkSession | None = None) -> dict[str, float]:
    """Train, evaluate, ask in SQL. Returns what it found.

    Args:
        spark: `SparkSession`; one on this machine by default.
    """
    spark = spark or local_session()
    train, test = read_texts(spark).repartition(2).cache().randomSplit([0.8, 0.2], seed=1)
    model = build_model([row.text for row in train.select("text").collect()])
    classifier = KerasClassifier(model, featuresCol="text", epochs=8, numWorkers=2, seed=0)
    fitted = classifier.fit(train)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy")

    fitted.asUDF("library_of")
    asked = "Collection function: returns a new column of the elements of an array column"
    (row,) = spark.sql("SELECT library_of(:text) AS answer", {"text": asked}).collect()
    sizes = [row["count"] for row in test.groupBy("label").count().collect()]
    found = {
        "accuracy": accuracy.evaluate(fitted.transform(test)),
        "accuracy_of_the_largest_class": max(sizes) / sum(sizes),
        "answer": int(row.answer),
    }
    print(found, "asked in SQL:", list(LIBRARIES)[found["answer"]])
    return found


if __name__ == "__main__":
    main()
