"""A multilayer perceptron on MNIST, for a cluster or for this machine.

    spark-submit --master spark://host:7077 mnist_mlp.py --data folder
    python mnist_mlp.py --data folder

`folder` holds MNIST's idx files as published, gzipped or not. It defaults to the
environment variable `KSPARK_DATA`. If the folder has no training images, the
example trains on 8,000 of the 10,000 test images. Without a folder, it uses
scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import gzip
import os
import struct
from pathlib import Path

from kspark import SparkModel
from kspark.session import local_session

import keras
import numpy as np
from pyspark.sql import SparkSession

Arrays = tuple[np.ndarray, np.ndarray]


def read_idx(path: Path) -> np.ndarray:
    """An array in the format of MNIST: its number of axes, its shape, its bytes."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    axes = raw[3]
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def find(folder: Path, name: str) -> Path | None:
    """The path of a file, gzipped or not, or `None` if the folder does not hold it."""
    paths = (folder / f"{name}.gz", folder / name)
    return next((path for path in paths if path.is_file()), None)


def read_mnist(folder: Path, part: str) -> Arrays:
    """Images and labels of "train" or "t10k"."""
    arrays = []
    for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        path = find(folder, name)
        if path is None:
            raise FileNotFoundError(
                f"The data folder must hold `{name}.gz` or `{name}`. Received: {folder}. "
                "Unset `KSPARK_DATA` to use scikit-learn's digits."
            )
        arrays.append(read_idx(path))
    images, labels = arrays
    return images, labels


def digits() -> Arrays:
    """The 1,797 images of 8 x 8 pixels that come with scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images * (255 / 16), labels


def load(folder: Path | None) -> tuple[Arrays, Arrays]:
    """Training rows and test rows, each with labels; scikit-learn's without a folder."""
    if folder is not None and find(folder, "train-images-idx3-ubyte"):
        return rows(*read_mnist(folder, "train")), rows(*read_mnist(folder, "t10k"))
    images, labels = digits() if folder is None else read_mnist(folder, "t10k")
    order = np.random.RandomState(0).permutation(len(images))
    first, rest = np.split(order, [len(order) * 4 // 5])
    return rows(images[first], labels[first]), rows(images[rest], labels[rest])


def rows(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Pixels from 0 to 1, one row per image."""
    pixels = images.reshape(len(images), -1).astype("float32") / 255
    return pixels, labels.astype("int32")


def build_model(num_features: int) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((num_features,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def session() -> SparkSession:
    """The cluster's session under `spark-submit`, else one on this machine."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # set by spark-submit
        return SparkSession.builder.appName("mnist_mlp").getOrCreate()
    return local_session(app_name="mnist_mlp")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = os.environ.get("KSPARK_DATA") or None
    parser.add_argument("--data", type=Path, default=folder, help="folder of MNIST's idx files")
    parser.add_argument("--mode", default="synchronous")
    parser.add_argument("--frequency", default="epoch", help='"epoch", "batch", or batches')
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    frequency = int(args.frequency) if args.frequency.isdigit() else args.frequency
    (x, y), (x_test, y_test) = load(args.data)
    keras.utils.set_random_seed(0)
    spark = session()
    spark_model = SparkModel(
        build_model(x.shape[1]), args.mode, frequency, num_workers=args.workers
    )
    spark_model.fit(x, y, epochs=args.epochs, batch_size=64, validation_split=0.1)
    loss, accuracy = spark_model.evaluate(x_test, y_test)
    print(f"{len(x)} training rows. Test loss {loss:.3f}, test accuracy {accuracy:.3f}")
    spark.stop()


if __name__ == "__main__":
    main()
