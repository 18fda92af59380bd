"""Tasks see the GPUs that Spark gives them: made-up addresses, which a discovery script names."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import keras
import numpy as np
import pytest
from pyspark import TaskContext
from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from kspark import SparkModel, check_cluster
from kspark.errors import NotEnoughSlotsError
from kspark.ml import KerasModel
from kspark.session import local_session

SCRIPT = """\
#!/bin/sh
echo '{"name": "gpu", "addresses": ["6", "7"]}'
"""

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 3)).astype("f4")
Y = X.sum(1)


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """An executor with two cores and two GPUs, of which each task takes one."""
    script = tmp_path_factory.mktemp("discovery") / "gpus.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    gpus = {
        "spark.worker.resource.gpu.amount": 2,
        "spark.worker.resource.gpu.discoveryScript": script,
        "spark.executor.resource.gpu.amount": 2,
        "spark.task.resource.gpu.amount": 1,
    }
    if (running := SparkSession.getActiveSession()) is not None:
        running.stop()
    yield local_session(2, executors=1, memory="1g", config=gpus)
    SparkSession.getActiveSession().stop()


@pytest.fixture
def seen(tmp_path):
    """What the tasks saw since the last call: a list of dictionaries, and what records it."""

    def read():
        files = sorted(tmp_path.glob("*.json"))
        found = [json.loads(file.read_text()) for file in files]
        for file in files:
            file.unlink()
        return found

    read.recording = recording(str(tmp_path))
    return read


def recording(folder):
    """A `preprocess` that changes nothing, and records what each task sees of the GPUs."""

    def record(batch):
        import tensorflow as tf

        context = TaskContext.get()
        if context is not None:  # The driver calls it, too.
            variables = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH")
            facts = {
                "given": ",".join(sorted(context.resources()["gpu"].addresses)),
                "visible": os.environ[variables[0]],
                "grows": os.environ[variables[1]],
                "threads": tf.config.threading.get_intra_op_parallelism_threads(),
                "process": os.getpid(),
            }
            Path(folder, f"{uuid.uuid4().hex}.json").write_text(json.dumps(facts))
        return next(iter(batch.values()))

    return record


def compiled():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def model_of(seen, **settings):
    return SparkModel(
        compiled(), num_workers=2, batch_size=8, preprocess=seen.recording, **settings
    )


def profile(cpus, gpu):
    return ResourceProfileBuilder().require(
        TaskResourceRequests().cpus(cpus).resource("gpu", gpu)
    ).build  # fmt: skip


def gpus_of(facts):
    """The GPUs that all tasks saw, after a check that each saw those that Spark gave it."""
    assert facts
    for fact in facts:
        assert fact["visible"] == fact["given"]
        assert fact["grows"] == "true"
    return {fact["visible"] for fact in facts}


def frame_of(spark):
    rows = [(x.tolist(), float(y)) for x, y in zip(X, Y, strict=True)]
    return spark.createDataFrame(rows, "features array<float>, label float").repartition(2)


def test_the_check_names_the_gpus_of_a_host(spark):
    (worker,) = check_cluster(spark)
    assert worker.gpus == ("6", "7")


@pytest.mark.parametrize("road", ["rounds", "live"])
def test_each_worker_trains_on_a_gpu_of_its_own(spark, seen, road):
    model_of(seen, road=road).fit(X, Y, epochs=2, verbose=0)
    facts = seen()
    assert gpus_of(facts) == {"6", "7"}
    assert {fact["threads"] for fact in facts} == {1}


def test_predictions_and_stages_see_the_gpus_of_their_tasks(spark, seen):
    frame, spark_model = frame_of(spark), model_of(seen)
    expected = spark_model.master_network.predict(X, verbose=0)
    np.testing.assert_allclose(spark_model.predict(X, verbose=0), expected, atol=1e-5)
    assert gpus_of(seen()) <= {"6", "7"}
    spark_model.evaluate(frame, verbose=0)
    assert gpus_of(seen()) <= {"6", "7"}
    KerasModel(compiled(), preprocess=seen.recording).transform(frame).collect()
    assert gpus_of(seen()) <= {"6", "7"}


def test_tasks_of_a_profile_share_a_gpu_by_fractions(spark, seen):
    """Spark gives all of them the first GPU."""
    spark_model = model_of(seen, road="live", resources=profile(1, 0.5))
    spark_model.fit(X, Y, verbose=0)
    assert gpus_of(seen()) == {"6"}
    spark_model.evaluate(frame_of(spark), verbose=0)
    assert gpus_of(seen()) == {"6"}


def test_a_reused_worker_whose_gpus_changed_is_replaced(spark, seen):
    spark_model = model_of(seen, road="live")
    spark_model.fit(X, Y, verbose=0)
    before = seen()
    assert gpus_of(before) == {"6", "7"}
    spark_model.resources = profile(2, 2)
    found = spark_model.predict(frame_of(spark)).collect()
    assert len(found) == 64
    after = seen()
    assert gpus_of(after) == {"6,7"}
    assert not {fact["process"] for fact in after} & {fact["process"] for fact in before}
    assert {fact["threads"] for fact in after} == {2}
    with pytest.raises(NotEnoughSlotsError, match="has 1 free task slots"):
        spark_model.fit(X, Y, verbose=0)
