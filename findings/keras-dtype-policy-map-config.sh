#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0, Python 3.11.
#
# Behaviour: `get_config` of a `DTypePolicyMap` without a default policy erases the names of the
# policies in the map, in the object itself. Its configuration then says `"name": None` for each,
# so that a map made from it computes in float32 where `mixed_bfloat16` was asked for, without a
# warning. With a default policy, the names stay.
#
# One would expect: the configuration names the policies of the map, as it does with a default
# policy, and `get_config` changes nothing. Only the default policy has to be left open.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0

cat >"$folder/program.py" <<'PROGRAM'
import keras
from keras.dtype_policies import DTypePolicyMap

for default in ("float32", None):
    policies = DTypePolicyMap(default_policy=default)
    policies["hidden"] = keras.DTypePolicy("mixed_bfloat16")
    before = policies["hidden"].name
    again = DTypePolicyMap.from_config(policies.get_config())
    after, loaded = policies["hidden"].name, again["hidden"].compute_dtype
    print(f"default {default}: {before}, after get_config {after}, from the config {loaded}")
PROGRAM

expected="default float32: mixed_bfloat16, after get_config mixed_bfloat16, from the config bfloat16
default None: mixed_bfloat16, after get_config None, from the config float32"
found=$("$folder/venv/bin/python" "$folder/program.py" 2>"$folder/stderr") || cat "$folder/stderr"
echo "$found"
[ "$found" = "$expected" ]
