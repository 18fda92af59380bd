"""The program that users of Elephas have: only the import and the optimizer are new.

    python elephas_classic.py [folder]

A CNN on images of 28 x 28 pixels. `folder` holds MNIST's gzipped `t10k` files.
It defaults to the environment variable `KSPARK_DATA`. Without a folder, the
example enlarges scikit-learn's digits. The images come from a DataFrame of pixels, or, with
`main(as_files=True)`, from image files that Spark reads.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from pathlib import Path

from kspark.ml import ElephasEstimator, image_columns, to_data_frame
from kspark.session import local_session

import keras
import numpy as np
from pyspark.ml import Pipeline
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


def read(folder: Path, name: str) -> bytes:
    """The content of one of MNIST's gzipped files."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"The data folder must hold `{name}`. Received: {folder}. "
            "Unset `KSPARK_DATA` to use scikit-learn's digits."
        )
    return gzip.decompress(path.read_bytes())


def load(folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images of 28 x 28 bytes, and their labels; scikit-learn's without a folder."""
    if folder is not None:
        images = np.frombuffer(read(folder, "t10k-images-idx3-ubyte.gz"), np.uint8, offset=16)
        labels = np.frombuffer(read(folder, "t10k-labels-idx1-ubyte.gz"), np.uint8, offset=8)
        return images.reshape(-1, 28, 28), labels
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    enlarged = np.kron(digits.reshape(-1, 8, 8), np.ones((3, 3))) * (255 / 16)
    return np.pad(enlarged, ((0, 0), (2, 2), (2, 2))).astype(np.uint8), labels


def pixels_frame(spark: SparkSession, images: np.ndarray, labels: np.ndarray) -> DataFrame:
    """Pixels and a label."""
    return to_data_frame(spark.sparkContext, images.reshape(len(images), -1) / 255, labels)


def files_frame(
    spark: SparkSession, images: np.ndarray, labels: np.ndarray, folder: Path
) -> DataFrame:
    """The same by way of files `<label>-<number>.png`, which Spark reads."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"{label}-{number}.png"
        keras.utils.save_img(path, image[..., np.newaxis], scale=False)
    files = spark.read.format("binaryFile").load(str(folder))
    rows = image_columns(files, size=(28, 28), channels="grey")
    label = F.regexp_extract("path", r"(\d)-\d+\.png$", 1).cast("double")
    return rows.select("features", label.alias("label"))


def build_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def run(train_data: DataFrame, test_data: DataFrame, batch_size: int) -> float:
    """The program."""
    model = build_model()

    estimator = ElephasEstimator()
    estimator.set_keras_model_config(model.to_json())
    estimator.set_optimizer_config(keras.optimizers.serialize(keras.optimizers.Adam(0.003)))
    estimator.set_loss("categorical_crossentropy")
    estimator.set_metrics(["accuracy"])
    estimator.set_epochs(10)
    estimator.set_batch_size(batch_size)
    estimator.set_validation_split(0.1)
    estimator.set_num_workers(4)
    estimator.set_output_type("class")

    fitted = Pipeline(stages=[estimator]).fit(train_data)
    predictions = fitted.transform(test_data)
    evaluator = MulticlassClassificationEvaluator(
        labelCol="label", predictionCol="prediction", metricName="accuracy"
    )
    return evaluator.evaluate(predictions)


def main(
    spark: SparkSession | None = None,
    data: str | Path | None = None,
    count: int | None = None,
    batch_size: int = 128,
    as_files: bool = False,
) -> dict[str, float]:
    """Train on four fifths of the images, test on the others. Returns the accuracy.

    Args:
        spark: `SparkSession`; one on this machine by default.
        data: Folder of MNIST's files. Defaults to `KSPARK_DATA`.
        count: Integer, how many images; all by default.
        batch_size: Integer, examples per batch and worker.
        as_files: Boolean, whether the images go by way of files.
    """
    folder = data or os.environ.get("KSPARK_DATA")
    images, labels = load(Path(folder) if folder else None)
    images, labels = images[:count], labels[:count]
    spark = spark or local_session()
    with tempfile.TemporaryDirectory() as temporary:
        if as_files:
            rows = files_frame(spark, images, labels, Path(temporary))
        else:
            rows = pixels_frame(spark, images, labels)
        train_data, test_data = rows.cache().randomSplit([0.8, 0.2], seed=1)
        found = {"accuracy": run(train_data, test_data, batch_size)}
    print(f"{len(images)} images", found)
    return found


if __name__ == "__main__":
    main(data=sys.argv[1] if len(sys.argv) > 1 else None)
