"""Plain Keras and the three modes of kspark, side by side on a real data set.

    python quickstart.py [picture.png]

Starts a local Spark with two tasks, trains a small network on scikit-learn's
handwritten digits, each in nine positions, prints a table, and saves the training
curves as a picture.
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
from sklearn.utils import shuffle

EPOCHS = 8
BATCH_SIZE = 32
SHIFTS = (-1, 0, 1)
MODES = (("synchronous", "epoch"), ("asynchronous", "batch"), ("hogwild", "batch"))


def digits() -> list[np.ndarray]:
    """16,173 images of 8 x 8 pixels: training rows, test rows and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    copies = len(SHIFTS) ** 2
    x, y = shuffle(shifted(x), np.tile(y, copies), random_state=0)  # all positions on each worker
    return [x, shifted(x_test), y, np.tile(y_test, copies)]


def shifted(images: np.ndarray) -> np.ndarray:
    """Move each image by up to one pixel in both directions."""
    size, margin = 8, max(SHIFTS)
    squares = images.reshape(-1, size, size)
    padded = np.pad(squares, [(0, 0), (margin, margin), (margin, margin)])
    windows = [
        padded[:, margin + down : margin + down + size, margin + right : margin + right + size]
        for down in SHIFTS
        for right in SHIFTS
    ]
    return np.concatenate(windows).reshape(-1, size * size)


def build_model(steps_per_execution: int = 1) -> keras.Model:
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
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
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
    print(f"\n{'':26}{'accuracy':>10}{'seconds':>10}")
    for name, result in results.items():
        print(f"{name:26}{result['accuracy']:>10.3f}{result['seconds']:>10.1f}")


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
    print("\nplain Keras, 50 steps per execution")
    results["Keras, 50 steps at once"] = timed_fit(build_model(50), data, verbose=2)
    for mode, frequency in MODES:
        name = f'{mode}, "{frequency}"'
        print(f"\nkspark, {name}")
        results[name] = timed_fit(SparkModel(build_model(), mode, frequency, seed=0), data)
    spark.stop()

    print_table(results)
    print(f"{EPOCHS} epochs of {len(data[0]):,} images, two workers.")
    print("The first fit of kspark includes the start of its workers, which the others reuse.")
    save_curves(results, path)
    print(f"The training curves are in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
