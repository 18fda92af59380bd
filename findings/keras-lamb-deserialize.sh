#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0 (CPU), Python 3.11.
#
# Behaviour: `keras.optimizers.deserialize` returns the string "Lamb" for the configuration that
# `keras.optimizers.serialize` made of a `Lamb` optimizer. `keras.saving.deserialize_keras_object`
# returns an optimizer for the same configuration.
#
# One would expect: an optimizer from both, as for all other optimizers.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import keras

for name in ("Adam", "Lamb"):
    config = keras.optimizers.serialize(getattr(keras.optimizers, name)())
    copy = dict(config)  # The first function changes the configuration that it is given.
    made = keras.optimizers.deserialize(copy), keras.saving.deserialize_keras_object(config)
    print(name, *(type(one).__name__ for one in made))
PROGRAM

output=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/program.py" 2>/dev/null)
echo "$output"
# Output seen:
expected="Adam Adam Adam
Lamb str Lamb"
[ "$output" = "$expected" ]
