#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0 (CPU), Python 3.11.
#
# Behaviour: under the policy "mixed_bfloat16", a model with a layer that was quantized with
# `quantize("int8")` trains if the step is compiled, with and without XLA. With `run_eagerly=True` the
# same model raises an error: the gradient of the quantized layer's inputs is float32, and the
# operation of the layer before it expects bfloat16.
#
# One would expect: `run_eagerly` changes the speed and nothing else, as under the policy "float32".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import keras
import numpy as np

ways = ({}, {"jit_compile": False}, {"run_eagerly": True})
for policy in ("float32", "mixed_bfloat16"):
    keras.config.set_dtype_policy(policy)
    for way in ways:
        layers = [keras.layers.Dense(4), keras.layers.Dense(4, name="inner"), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.get_layer("inner").quantize("int8")
        model.compile("sgd", "mse", **way)
        try:
            model.fit(np.ones((4, 4), "f4"), np.ones((4, 2), "f4"), verbose=0)
            result = "trains"
        except Exception as error:
            result = type(error).__name__
        print(policy, way, result)
PROGRAM

output=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/program.py" 2>/dev/null)
echo "$output"
# Output seen:
expected="float32 {} trains
float32 {'jit_compile': False} trains
float32 {'run_eagerly': True} trains
mixed_bfloat16 {} trains
mixed_bfloat16 {'jit_compile': False} trains
mixed_bfloat16 {'run_eagerly': True} InvalidArgumentError"
[ "$output" = "$expected" ]
