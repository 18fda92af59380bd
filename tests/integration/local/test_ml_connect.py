"""Stages over Spark Connect, which cannot share a process with other sessions."""

import json
import os
import subprocess
import sys

import pyspark

from kspark import java

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


def test_transform_works_and_the_rest_says_that_it_does_not(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = java.environment(java.find_java(pyspark.__version__), tmp_path)
    own = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    variables = {**os.environ, **found, **own}
    run = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        env={name: value for name, value in variables.items() if value is not None},
    )
    lines = [line for line in run.stdout.splitlines() if "FOUND " in line]
    assert lines, run.stderr[-3000:]
    predictions, errors = json.loads(lines[0].split("FOUND ")[1])
    assert predictions == {str(i): 2.0 * i for i in range(5)}
    assert [e.split(" needs")[0] for e in errors] == ["`fit`", "`save`", "`load`"]
