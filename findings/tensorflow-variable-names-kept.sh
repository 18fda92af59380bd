#!/usr/bin/env bash
# TensorFlow 2.21.0 with Keras 3.15.1, Python 3.11, Linux.
#
# Behaviour: TensorFlow keeps some 35 kB for each name that a variable ever had, after the variable
# and all that refers to it are gone. Keras numbers the layers of a process, and their numbers enter
# the names of the variables, so a program that makes one small model after the other grows by
# several hundred kB per model, whatever the size of the weights. If the names repeat, as they do
# after `keras.utils.clear_session()`, nothing is kept.
#
# One would expect: the memory of a model that nothing refers to any more is free again.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import gc
from itertools import count

import keras
import tensorflow as tf


def megabytes():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1000


def grown(make, times):
    for _ in range(20):
        make()
    gc.collect()
    before = megabytes()
    for _ in range(times):
        make()
    gc.collect()
    return megabytes() - before


def new_model(clear=False):
    if clear:
        keras.utils.clear_session()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)


numbers = count()
cases = (
    ("variables of one name", lambda: tf.Variable([1.0], name="value"), 500),
    ("variables of new names", lambda: tf.Variable([1.0], name=f"value_{next(numbers)}"), 500),
    ("models after clear_session", lambda: new_model(clear=True), 100),
    ("models", new_model, 100),
)
for what, make, times in cases:
    size = grown(make, times) / times * 1000
    print(f"{what}: {'more than 20 kB' if size > 20 else 'less than 20 kB'} stay for each")
PROGRAM

expected="variables of one name: less than 20 kB stay for each
variables of new names: more than 20 kB stay for each
models after clear_session: less than 20 kB stay for each
models: more than 20 kB stay for each"
found=$("$folder/venv/bin/python" "$folder/program.py" 2>"$folder/stderr") || cat "$folder/stderr"
echo "$found"
[ "$found" = "$expected" ]
