"""Stages over Spark Connect, which cannot share a process with other sessions."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

PROGRAM = """
import json
import keras
import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from kspark.errors import ClusterError
from kspark.ml import KerasModel, KerasRegressor

spark = SparkSession.builder.remote("local[1]").getOrCreate()
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
model.set_weights([np.array([[2.0]])])
model.compile("sgd", "mse")
frame = spark.range(5).select("id", F.col("id").cast("double").alias("features"))
rows = KerasModel(model).transform(frame).collect()
errors = []
for work in (
    lambda: KerasRegressor(model, labelCol="features").fit(frame),
    lambda: KerasRegressor(model).save("nowhere"),
    lambda: KerasRegressor.load("nowhere"),
):
    try:
        work()
    except ClusterError as error:
        errors.append(str(error))
print("FOUND", json.dumps([{r.id: r.prediction for r in rows}, errors]))
"""

NEEDED = all(importlib.util.find_spec(name) for name in ("grpc", "grpc_status", "google.rpc"))


@pytest.mark.skipif(not NEEDED, reason="needs pyspark[connect]")
@pytest.mark.skipif(shutil.which("java") is None, reason="needs java")
def test_transform_works_and_the_rest_says_that_it_does_not(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    lines = [line for line in run.stdout.splitlines() if "FOUND " in line]
    assert lines, run.stderr[-3000:]
    predictions, errors = json.loads(lines[0].split("FOUND ")[1])
    assert predictions == {str(i): 2.0 * i for i in range(5)}
    assert [e.split(" needs")[0] for e in errors] == ["`fit`", "`save`", "`load`"]
