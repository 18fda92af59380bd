"""Plain Keras and the three modes of kspark, side by side on a real data set.

    python quickstart.py [picture.png]

Starts a local Spark with two tasks, trains a small network on scikit-learn's
handwritten digits, prints a table, and saves the training curves as a picture.
"""

from __future__ import annotations

import sys
import time

from kspark import SparkModel
from kspark.session import local_session

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EPOCHS = 10
BATCH_SIZE = 16
MODES = (("synchronous", "epoch"), ("asynchronous", "batch"), ("hogwild", "batch"))


def digits() -> list[np.ndarray]:
    """1,797 images of 8 x 8 pixels: training rows, test rows and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    return train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)


def build_model() -> keras.Model:
    """The same network with the same initial weights, each time."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.003)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def timed_fit(
    trainer: keras.Model | SparkModel, data: list[np.ndarray], verbose: str | int = "auto"
) -> dict[str, object]:
    """Train, and keep what the table and the picture show."""
    x, x_test, y, y_test = data
    started = time.perf_counter()
    history = trainer.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=verbose,
        validation_data=(x_test, y_test),
    )
    seconds = time.perf_counter() - started
    curve = history.history["val_accuracy"]
    return {"curve": curve, "accuracy": curve[-1], "seconds": seconds}


def print_table(results: dict[str, dict[str, object]]) -> None:
    print(f"\n{'':24}{'accuracy':>10}{'seconds':>10}")
    for name, result in results.items():
        print(f"{name:24}{result['accuracy']:>10.3f}{result['seconds']:>10.1f}")


def save_curves(results: dict[str, dict[str, object]], path: str) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        axes.plot(range(1, EPOCHS + 1), result["curve"], label=name)
    axes.set(xlabel="epoch", ylabel="accuracy on test rows", title="Handwritten digits, 2 workers")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main(path: str = "quickstart.png") -> None:
    data = digits()
    spark = local_session(2)
    results = {}
    print("plain Keras")
    results["plain Keras"] = timed_fit(build_model(), data, verbose=2)
    for mode, frequency in MODES:
        name = f'{mode}, "{frequency}"'
        print(f"\nkspark, {name}")
        results[name] = timed_fit(SparkModel(build_model(), mode, frequency, seed=0), data)
    spark.stop()

    print_table(results)
    print("The first kspark fit includes the start of the workers, which import Keras once.")
    print("With so few images plain Keras is faster; README.md has results of a larger set.")
    save_curves(results, path)
    print(f"The training curves are in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
