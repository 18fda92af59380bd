#!/usr/bin/env bash
# PySpark 4.0.1 with ipykernel 6.29.5 in the same environment, Python 3.11. Needs Java 17 on the PATH.
#
# Behaviour: in a plain script, the first `F.col("x")` imports IPython and ipykernel with several
# hundred other modules, because PySpark looks for the cell of a notebook that the call came from.
# Afterwards `"ipykernel" in sys.modules` is true, by which libraries recognize a notebook.
#
# One would expect: a script that uses no notebook does not import one, and stays recognizable as a
# script. `IPython.get_ipython()` returns `None` there.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyspark==4.0.1 ipykernel==6.29.5

cat >"$folder/program.py" <<'PROGRAM'
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
frame = spark.range(1)
before = set(sys.modules)
print("a session:", "ipykernel" in sys.modules)
F.col("id")
after = set(sys.modules) - before
print("a column:", "ipykernel" in sys.modules, len(after) > 200)
print("a notebook:", sys.modules["IPython"].get_ipython() is not None)
PROGRAM

output=$("$folder/venv/bin/python" "$folder/program.py" 2>/dev/null)
echo "$output"
# Output seen.
expected="a session: False
a column: True True
a notebook: False"
[ "$output" = "$expected" ]
