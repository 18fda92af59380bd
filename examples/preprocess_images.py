"""Images of several sizes are decoded, resized and flipped on the workers, batch by batch.

    python preprocess_images.py

A column has the bytes of PNG files, as from Spark's source `binaryFile`. Rows are drawn here: a
rectangle is taller than wide, or wider than tall.
"""

from __future__ import annotations

import io

from kspark import SparkModel
from kspark.session import local_session

import keras
import numpy as np
from PIL import Image
from pyspark.sql import DataFrame, SparkSession

SIZE = (24, 24)


def draw_images(spark: SparkSession, count: int) -> DataFrame:
    """The bytes of a PNG file of a rectangle, and 1 if it is wider than tall."""
    rng = np.random.default_rng(0)
    rows = []
    for label in rng.integers(0, 2, count):
        side = int(rng.integers(28, 48))
        pixels = np.zeros((side, side, 3), np.uint8)
        long, short = side // 2, side // 5
        height, width = (short, long) if label else (long, short)
        top, left = rng.integers(0, side - long, 2)
        pixels[top : top + height, left : left + width] = rng.integers(100, 256, 3)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        rows.append((file.getvalue(), int(label)))
    return spark.createDataFrame(rows, "png binary, label int").repartition(2).cache()


def decoded(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The pixels of the files of a batch, all of one size, from 0 to 1."""
    images = (Image.open(io.BytesIO(content)).resize(SIZE) for content in batch["png"])
    return np.stack([np.asarray(image, np.float32) / 255 for image in images])


def build_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(spark: SparkSession | None = None, count: int = 400) -> dict[str, float]:
    """Train on files, and evaluate. Returns accuracies.

    Args:
        spark: `SparkSession`; one on this machine by default.
        count: Integer, number of images.
    """
    spark = spark or local_session()
    train, test = draw_images(spark, count).randomSplit([0.8, 0.2], seed=1)
    spark_model = SparkModel(
        build_model(), num_workers=2, batch_size=16, seed=0, preprocess=decoded
    )
    flipped = keras.layers.RandomFlip("horizontal_and_vertical")
    history = spark_model.fit(train, features_col="png", epochs=8, augment=flipped)
    found = {
        "training_accuracy": history.history["accuracy"][-1],
        "accuracy": spark_model.evaluate(test, features_col="png", return_dict=True)["accuracy"],
    }
    print(found)
    return found


if __name__ == "__main__":
    main()
