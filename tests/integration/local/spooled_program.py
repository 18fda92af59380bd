"""A script with a small driver that spools rows and never deletes them.

`test_spooled_data.py` runs it. The results of Spark's jobs may have 1 MB, and the rows have 40 MB.
"""

import json
import os
import signal
import sys

import keras
import numpy as np

from kspark import SparkModel
from kspark.data import spool
from kspark.errors import ClusterError
from kspark.ml import KerasRegressor
from kspark.session import local_session

ROWS, WIDTH = 40_000, 250
CONFIG = {"spark.driver.memory": "512m", "spark.driver.maxResultSize": "1m"}


def regression():
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def use_rows(spark, folder):
    """Everything that reads many rows, from a DataFrame and from files."""
    features = f"transform(sequence(1, {WIDTH}), i -> cast(sin(id * i) as float)) as features"
    rows = spark.range(0, ROWS, 1, 2).selectExpr(features, "cast(id % 2 as float) as label")
    rows.write.parquet(f"{folder}/rows")
    frame, losses = spark.read.parquet(f"{folder}/rows"), []
    for x in (frame, f"{folder}/rows"):
        model = SparkModel(regression(), batch_size=1000, num_workers=2)
        model.fit(x, epochs=2, verbose=0, validation_split=0.1, reshuffle="epoch")
        losses.append(model.evaluate(x, verbose=0))
    model.predict(f"{folder}/rows", output=f"{folder}/files", verbose=0)
    model.predict(frame).write.parquet(f"{folder}/frame")
    stage = KerasRegressor(regression(), batchSize=1000).fit(frame)
    stage.transform(frame).write.parquet(f"{folder}/stage")
    written = [spark.read.parquet(f"{folder}/{name}") for name in ("files", "frame", "stage")]
    return {"losses": losses, "written": [one.select("prediction").count() for one in written]}


if __name__ == "__main__":
    spark = local_session(cores=2, config=CONFIG)
    rows = spool(np.ones((20, 3)), np.zeros(20))
    told = {"folders": [folder for _, folder in rows.places if os.path.isdir(folder)]}
    if sys.argv[1] == "killed":
        print(json.dumps(told), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    told |= use_rows(spark, sys.argv[2])
    try:
        spark.range(0, ROWS, 1, 2).selectExpr("sha2(string(id), 512)").collect()
    except Exception as error:  # noqa: BLE001 - Spark's, of several kinds
        told["limit"] = "spark.driver.maxResultSize" in str(error)
    other = spool(f"{sys.argv[2]}/rows")
    told["folders"] += [folder for _, folder in other.places]
    told["nbytes"] = other.nbytes
    spark.stop()
    try:
        rows.check_open()
    except ClusterError as error:
        told["stopped"] = str(error)
    other.close()
    print(json.dumps(told))
