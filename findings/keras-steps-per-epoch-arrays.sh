#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0 (CPU), Python 3.11.
#
# Behaviour: with arrays of 3 batches and `steps_per_epoch=2`, every second epoch has one batch, although
# the warning says that training is interrupted: the epoch ends at the last row, and the next one begins
# at the first. A `tf.data.Dataset` of the same batches with `repeat()` gives two batches in each epoch.
#
# One would expect: the same batches from both, or the end of training of which the warning speaks.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import warnings

import keras
import numpy as np
import tensorflow as tf

x = np.arange(6, dtype="float32")[:, None]
repeated = tf.data.Dataset.from_tensor_slices((x, x)).batch(2).repeat()


class Sum(keras.metrics.Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true)


for name, data in (("arrays", {"x": x, "y": x, "batch_size": 2}), ("dataset", {"x": repeated})):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Sum(name="labels")])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = model.fit(**data, steps_per_epoch=2, epochs=4, shuffle=False, verbose=0).history
    texts = [str(w.message).split(";")[0] for w in told if "ran out" in str(w.message)]
    print(name, [int(total) for total in history["labels"]], *texts[:1])
PROGRAM

output=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/program.py" 2>/dev/null)
echo "$output"
# Output seen: the sum of the labels in each epoch. The three batches have the sums 1, 5 and 9.
expected="arrays [6, 9, 6, 9] Your input ran out of data
dataset [6, 10, 14, 6]"
[ "$output" = "$expected" ]
