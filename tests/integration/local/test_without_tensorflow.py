"""kspark on JAX where TensorFlow is absent, from the driver to the workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import kspark

PROGRAM = Path(__file__).with_name("without_tensorflow_program.py")

BLOCKS = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, *more):
    return None if name.partition(".")[0] == "tensorflow" else find(name, *more)

PathFinder.find_spec = staticmethod(find_others)
"""
"""Python imports it when it starts, on the driver and on the workers."""


def test_a_model_of_tensorflow_goes_on_where_only_jax_is_installed_and_returns(tmp_path):
    """It trains, scores and is saved there as with plain Keras, and nothing reaches the screen."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 6)).astype("float32")
    y = (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")
    given, saved = tmp_path / "given.keras", tmp_path / "saved.keras"
    hidden = [keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=0)
    model.save(given)
    (tmp_path / "sitecustomize.py").write_text(BLOCKS)
    path = os.pathsep.join([str(tmp_path), str(Path(kspark.__file__).parents[1])])
    output, errors = tmp_path / "output.txt", tmp_path / "errors.txt"
    with output.open("w") as stdout, errors.open("w") as stderr:
        done = subprocess.run(
            [sys.executable, PROGRAM, given, saved],
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path},
            cwd=tmp_path,
            stdout=stdout,
            stderr=stderr,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, errors.read_text()[-4000:]
    lines = errors.read_text().splitlines()
    assert [line for line in lines if "JDK_JAVA_OPTIONS" not in line] == []
    loaded = keras.saving.load_model(saved)
    assert int(loaded.optimizer.iterations) == 2 * 2 + 8  # of TensorFlow, and of JAX
    found = loaded.predict(x, verbose=0).argmax(axis=1)
    assert found.tolist() == json.loads(output.read_text())
