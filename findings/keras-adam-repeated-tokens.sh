#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0 (CPU), Python 3.11.
#
# Behaviour: on TensorFlow, the gradient of an `Embedding` has one row per looked up token. Keras'
# Adam squares these rows before it adds those of the same token. So its second moment is a sum of
# squares, and not the square of the sum, if a token occurs twice in a batch. The same layer written
# as a product of one-hot vectors and a kernel, whose gradient is dense, trains to other weights.
#
# One would expect: two ways to write the same function, with the same gradient, train alike, as they
# do with SGD, and as one of them does on JAX and PyTorch, where gradients are dense.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import keras
import numpy as np

layers = keras.layers
rng = np.random.default_rng(0)
tokens = rng.integers(0, 5, (32, 4)).astype("int32")
y = rng.normal(size=(32, 1)).astype("float32")


def trained(sparse, optimizer):
    keras.utils.set_random_seed(1)
    table = layers.Embedding(5, 3) if sparse else layers.Dense(3, use_bias=False)
    first = [keras.Input((4,), dtype="int32")] if sparse else [keras.Input((4, 5))]
    model = keras.Sequential([*first, table, layers.GlobalAveragePooling1D(), layers.Dense(1)])
    model.set_weights([np.linspace(-1, 1, w.size).reshape(w.shape) for w in model.get_weights()])
    model.compile(optimizer, "mse")
    x = tokens if sparse else np.eye(5, dtype="float32")[tokens]
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()[0]


for optimizer in ("sgd", "adam"):
    difference = np.abs(trained(True, optimizer) - trained(False, optimizer)).max()
    print(optimizer, "equal" if difference < 1e-6 else "differ", difference > 1e-4)
PROGRAM

output=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/program.py" 2>/dev/null)
echo "$output"
# Output seen:
expected="sgd equal False
adam differ True"
[ "$output" = "$expected" ]
