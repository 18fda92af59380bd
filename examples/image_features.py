"""Image files, a CNN, and its inner layer as features for another model of Spark's.

    python image_features.py

Saves scikit-learn's handwritten digits as image files, a folder per class, and
reads them with Spark. A network learns to tell 0 to 5 apart; what its last but
one layer sees in an image then serves Spark's `LogisticRegression` to tell
6 to 9 apart, which the network has never seen, from a few examples.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from kspark.ml import KerasClassifier, image_columns
from kspark.session import local_session

import keras
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.datasets import load_digits

SIZE = (16, 16)


def write_images(folder: Path, count: int) -> None:
    """Digits as files `<digit>/<number>.png` of 8 x 8 pixels."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1) * (255 / 16)
    for number, (image, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        keras.utils.save_img(path, image, scale=False)


def read_images(spark: SparkSession, folder: Path) -> DataFrame:
    """A column of tensors and a label, which the folder's name tells."""
    images = spark.read.format("image").load(f"{folder}/*")
    label = F.regexp_extract("image.origin", r"/(\d)/\d+\.png$", 1).cast("double")
    rows = image_columns(images, size=SIZE, channels="grey").withColumn("label", label)
    # Many small files make many partitions.
    return rows.drop("image").coalesce(2)


def build_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 1)),
            keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="embedding"),
            keras.layers.Dense(6, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(spark: SparkSession | None = None, count: int = 1200) -> dict[str, float]:
    """Train on some digits, use what was learned for the others. Returns accuracies.

    Args:
        spark: `SparkSession`; one on this machine by default.
        count: Integer, number of images.
    """
    spark = spark or local_session()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), count)
        rows = read_images(spark, Path(folder)).cache()
        found = run(rows)
    print(found)
    return found


def run(rows: DataFrame) -> dict[str, float]:
    known, unknown = rows.filter("label < 6"), rows.filter("label >= 6")
    train, test = known.randomSplit([0.8, 0.2], seed=1)
    few, rest = unknown.randomSplit([0.2, 0.8], seed=1)

    classifier = KerasClassifier(build_model(), epochs=8, batchSize=16, numWorkers=2, seed=0)
    fitted = classifier.fit(train)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy")

    embedding = fitted.copy().setFeatureLayer("embedding").setOutputCol("seen")
    regression = LogisticRegression(featuresCol="seen", regParam=0.01)
    second = regression.fit(embedding.transform(few))
    return {
        "network": accuracy.evaluate(fitted.transform(test)),
        "regression_on_its_features": accuracy.evaluate(
            second.transform(embedding.transform(rest))
        ),
        "num_features": second.numFeatures,
    }


if __name__ == "__main__":
    main()
