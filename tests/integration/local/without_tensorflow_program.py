"""A script that trains, scores and saves on JAX where TensorFlow is not installed.

`test_without_tensorflow.py` runs it, with the path of a model that TensorFlow has trained, and of
the one to save.
"""

import sys
from importlib.util import find_spec

import keras
import numpy as np

from kspark import SparkModel, check_cluster, load_spark_model
from kspark.ml import KerasClassificationModel, KerasClassifier
from kspark.session import local_session


def rows():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def has_tensorflow(_):
    from importlib.util import find_spec

    return find_spec("tensorflow") is not None


def main(given, saved):
    assert keras.config.backend() == "jax"
    assert find_spec("tensorflow") is None
    spark = local_session(2)
    workers = spark.sparkContext.parallelize(range(2), 2).map(has_tensorflow)
    assert workers.collect() == [False, False]
    assert all(worker.packages["jax"] for worker in check_cluster(spark))
    x, y = rows()
    plain, model = keras.saving.load_model(given), keras.saving.load_model(given)
    spark_model = SparkModel(model, num_workers=1)
    settings = {"batch_size": 8, "epochs": 1, "shuffle": False, "verbose": 0}
    plain.fit(x, y, **settings)
    spark_model.fit(x, y, **settings)
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    scores = plain.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(spark_model.evaluate(x, y, verbose=0), scores, atol=1e-5)
    scores = plain.predict(x, verbose=0)
    np.testing.assert_allclose(spark_model.predict(x, verbose=0), scores, atol=1e-5)

    spark_model.save(saved)
    reloaded = load_spark_model(saved)

    columns = zip(x.astype(float).tolist(), y.astype(float).tolist(), strict=True)
    frame = spark.createDataFrame(list(columns), "features array<double>, label double")
    stage = KerasClassifier(plain, epochs=1, numWorkers=2, verbose=0).fit(frame)
    stage.save(saved + ".stage")
    loaded = KerasClassificationModel.load(saved + ".stage")
    found, expected = (one.transform(frame).toPandas()["prediction"] for one in (loaded, stage))
    assert (found == expected).all()
    assert "tensorflow" not in sys.modules
    print(reloaded.predict(x, verbose=0).argmax(axis=1).tolist())


main(*sys.argv[1:])
