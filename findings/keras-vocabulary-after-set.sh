#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0 (CPU), Python 3.11.
#
# Behaviour: a `StringLookup` that was made with `vocabulary=[...]` and later got another one by
# `set_vocabulary` uses the new words, but a model that contains it is saved with the old ones: the
# loaded model gives other numbers than the saved one. A layer made without `vocabulary` is saved
# with the words of `set_vocabulary`.
#
# One would expect: a loaded model predicts what the saved one predicted.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import sys

import keras
import tensorflow as tf

for given in (["red", "green"], None):
    words = keras.Input((1,), dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=given)
    if given is None:
        lookup.set_vocabulary(["red", "green"])
    model = keras.Model(words, lookup(words))
    lookup.set_vocabulary(["blue", "red"])
    path = f"{sys.argv[1]}/model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    rows = tf.constant([["red"], ["blue"]])
    print(given, [m(rows).numpy().ravel().tolist() for m in (model, loaded)])
PROGRAM

output=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/program.py" "$folder" 2>/dev/null)
echo "$output"
# Output seen:
expected="['red', 'green'] [[2, 1], [1, 0]]
None [[2, 1], [2, 1]]"
[ "$output" = "$expected" ]
