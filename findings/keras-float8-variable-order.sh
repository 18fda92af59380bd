#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0 (CPU), Python 3.11.
#
# Behaviour: a model that was built and then quantized with `quantize("float8")` has the kernel and
# the bias first and the scales of the quantization after them. The same model loaded from its
# `.keras` file has the scales first. `get_weights()` of the one therefore does not fit
# `set_weights()` of the other, although both are the same architecture in the same version.
#
# One would expect: `loaded.set_weights(model.get_weights())` works, as for "int8" and "int4", whose
# order stays the same.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import sys
import warnings

import keras

warnings.simplefilter("ignore")
for mode in ("int8", "float8"):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="dense")])
    model.quantize(mode)
    path = f"{sys.argv[1]}/{mode}.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    orders = [[v.name for v in m.layers[0].variables][:2] for m in (model, loaded)]
    print(mode, *orders)
PROGRAM

output=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/program.py" "$folder" 2>/dev/null)
echo "$output"
# Output seen:
expected="int8 ['bias', 'kernel'] ['bias', 'kernel']
float8 ['kernel', 'bias'] ['inputs_scale', 'inputs_amax_history']"
[ "$output" = "$expected" ]
