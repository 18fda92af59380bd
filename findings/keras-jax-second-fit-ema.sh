#!/usr/bin/env bash
# Keras 3.15.1 with JAX 0.10.2 (CPU), Python 3.11.
#
# Behaviour: on JAX, a model whose optimizer keeps a moving average of the weights (`use_ema=True`)
# can be fitted once. The second call of `fit` raises `TypeError: 'NoneType' object is not callable`,
# because the first one leaves the averages without a value.
#
# One would expect: `fit` may be called again, as on TensorFlow and PyTorch, and as on JAX without
# `use_ema`.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 jax==0.10.2

cat >"$folder/program.py" <<'PROGRAM'
import keras
import numpy as np

x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
for use_ema in (False, True):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, use_ema=use_ema), "mse")
    model.fit(x, y, verbose=0)
    try:
        model.fit(x, y, verbose=0)
        print(f"use_ema={use_ema}: no error")
    except TypeError as error:
        print(f"use_ema={use_ema}: TypeError: {error}")
PROGRAM

expected="use_ema=False: no error
use_ema=True: TypeError: 'NoneType' object is not callable"
found=$(KERAS_BACKEND=jax "$folder/venv/bin/python" "$folder/program.py" 2>"$folder/stderr") || cat "$folder/stderr"
echo "$found"
[ "$found" = "$expected" ]
