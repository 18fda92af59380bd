"""A multilayer perceptron on MNIST, for a cluster or for this machine.

    spark-submit --master spark://host:7077 mnist_mlp.py --data folder
    python mnist_mlp.py --data folder

`folder`, or the environment variable `KSPARK_DATA`, holds MNIST's idx files as
published, gzipped or not. If only its 10,000 test images are there, 8,000 of
them train. Without any, scikit-learn's digits take MNIST's place.
"""

from __future__ import annotations

import argparse
import gzip
import os
import struct
from pathlib import Path

import keras
import numpy as np
from pyspark.sql import SparkSession

from kspark import SparkModel
from kspark.session import local_session

BESIDE_THE_PROJECT = Path(__file__).resolve().parent.parent.parent / "shared" / "data"

Arrays = tuple[np.ndarray, np.ndarray]


def read_idx(path: Path) -> np.ndarray:
    """An array in the format of MNIST: its number of axes, its shape, its bytes."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    axes = raw[3]
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_mnist(folder: Path, name: str) -> Arrays | None:
    """Images and labels of "train" or "t10k", or `None` if they are not there."""
    images, labels = (
        sorted(folder.glob(f"{name}-{kind}-ubyte*")) for kind in ("images-idx3", "labels-idx1")
    )
    return (read_idx(images[0]), read_idx(labels[0])) if images and labels else None


def digits() -> Arrays:
    """The 1,797 images of 8 x 8 pixels that come with scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images * (255 / 16), labels


def load(folder: Path) -> tuple[Arrays, Arrays]:
    """Training rows and test rows, each with labels."""
    train, test = read_mnist(folder, "train"), read_mnist(folder, "t10k")
    if train is None or test is None:
        images, labels = test or digits()
        order = np.random.RandomState(0).permutation(len(images))
        first, rest = np.split(order, [len(order) * 4 // 5])
        train, test = (images[first], labels[first]), (images[rest], labels[rest])
    return rows(*train), rows(*test)


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
    folder = os.environ.get("KSPARK_DATA", BESIDE_THE_PROJECT)
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
