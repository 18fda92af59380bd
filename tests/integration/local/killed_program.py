"""A script whose driver is killed in the middle of a fit: `test_checkpoints.py` runs it.

The test runs the same fit as a function of this module, undisturbed and after the kill.
"""

import os
import signal
import sys

import keras
import numpy as np

from kspark import SparkModel
from kspark.session import local_session

EPOCHS = 4


class Killed(keras.callbacks.Callback):
    """Ends the process without any chance to clean up."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def compiled():
    """State of every kind: moments, moving statistics, a random generator, a step counter."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3, seed=3),
        keras.layers.Dense(2, "softmax"),
    ]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def trained(*callbacks, settings=None, **arguments):
    """Fit as a script does that is run again after a failure. Returns the model and the history."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype("float32")
    given = {"num_workers": 2, "batch_size": 8, "seed": 7, **(settings or {})}
    own = [
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10.0),
        keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
    ]
    spark_model = SparkModel(compiled(), **given)
    options = {"epochs": EPOCHS, "verbose": 0, "validation_split": 0.2, **arguments}
    spark_model.fit(x, (x[:, 0] > 0).astype("int64"), callbacks=[*callbacks, *own], **options)
    return spark_model


if __name__ == "__main__":
    local_session(cores=2)
    trained(Killed(), checkpoint=sys.argv[1], resume=True)
