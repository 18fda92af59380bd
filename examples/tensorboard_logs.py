"""Train on Spark with TensorBoard's logs, and draw the curves that TensorBoard shows.

    python tensorboard_logs.py [picture.png]

Needs the package tensorboard: `pip install tensorboard`. TensorBoard itself shows them in a
browser: `tensorboard --logdir logs`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kspark import SparkModel

import keras
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

LOGS = Path("logs")
TAGS = ("epoch_loss", "epoch_accuracy", "epoch_learning_rate")


def train() -> None:
    """Train a small network with two workers. The learning rate falls where training stalls."""
    images, labels = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    callbacks = [
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5),
        keras.callbacks.TensorBoard(LOGS),
    ]
    SparkModel(model, num_workers=2).fit(
        images / 16, labels, epochs=20, validation_split=0.2, callbacks=callbacks
    )


def curve(run: str, tag: str) -> tuple[list[int], list[float]]:
    """The steps and values of a scalar, from the files of a run; empty if it has none."""
    events = EventAccumulator(str(LOGS / run), size_guidance={TENSORS: 0})
    events.Reload()
    if tag not in events.Tags()["tensors"]:
        return [], []
    found = events.Tensors(tag)
    return [e.step for e in found], [float(make_ndarray(e.tensor_proto)) for e in found]


def draw(picture: str) -> None:
    """Draw one panel per scalar, with the training and the validation run."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, tag in zip(figure.subplots(1, len(TAGS)), TAGS, strict=True):
        for run in ("train", "validation"):
            steps, values = curve(run, tag)
            if steps:
                axes.plot(steps, values, label=run)
        axes.set_title(tag)
        axes.set_xlabel("epoch")
        axes.set_xticks(range(0, 20, 5))
        axes.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    picture = sys.argv[1] if len(sys.argv) > 1 else "tensorboard.png"
    train()
    draw(picture)
    print(f"The curves are in {picture}, and the logs of TensorBoard in {LOGS}.")
