"""Each row of the table in `docs/connect.md`, with a client and a server in processes of their own.

`connect_fronts.py` is the client. The tests check what it prints.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyspark
import pytest

from kspark.ml import KerasClassificationModel
from kspark.session import java

PROGRAM = Path(__file__).with_name("connect_fronts.py")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fronts")


def classifier():
    keras.utils.set_random_seed(3)
    layers = [keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def found(folder, spark):
    """What the client found."""
    KerasClassificationModel(classifier()).save(str(folder / "classic"))
    return run(folder)


def run(folder, *arguments):
    """Run the client. `KSPARK_CLIENT_PYTHON` names another Python for it."""
    own = {
        "KSPARK_SERVER_PYTHON": sys.executable,
        "KSPARK_CLASSIC_STAGE": str(folder / "classic"),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "KSPARK_WARM": "tensorflow",
        **java.environment(java.find_java(pyspark.__version__), folder, quiet=True),
    }
    variables = {**os.environ, **own}
    done = subprocess.run(
        [os.environ.get("KSPARK_CLIENT_PYTHON", sys.executable), str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=550,
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-5000:]
    return json.loads(lines[0].removeprefix("FOUND "))


def test_arrays_train_evaluate_and_predict_as_in_plain_keras(found):
    *differences, shards = found["arrays"]
    assert max(differences) < 1e-5
    assert shards == [15, 15, 14, 14]


def test_tables_batches_and_spooled_rows_train_as_arrays(found):
    assert max(found["tables"]) < 1e-6


def test_a_stage_is_saved_replaced_and_loaded(found):
    same, refusal, classic, _ = found["stages"]
    assert same
    assert refusal == "AnalysisException"
    assert classic == 0


def test_a_classic_session_loads_a_stage_that_was_saved_over_spark_connect(found, folder):
    loaded = KerasClassificationModel.load(str(folder / "stage"))
    expected = found["stages"][-1]
    for array, other in zip(loaded.kerasModel.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(array, np.array(other, "float32"))


def test_a_pipeline_is_saved_and_loaded(found):
    assert found["pipelines"] is True


def test_tuners_find_and_save_the_best_model(found):
    assert found["tuners"] == [2, 2, True]


def test_a_udf_predicts_as_the_model(found):
    assert found["udfs"] < 1e-6


def test_a_stream_is_scored(found):
    count, difference = found["streams"]
    assert count == 60
    assert difference < 1e-6


def test_a_large_model_is_sent_as_files_and_computes_the_same(found):
    difference, same, uploads = found["large"]
    assert difference == 0
    assert same
    assert uploads > 2


@pytest.mark.thorough
def test_a_model_that_no_message_can_hold_trains_as_in_plain_keras(folder):
    parameters, trained, predicted = run(folder, "huge")["huge"]
    assert 4 * parameters > 128 << 20
    assert trained < 1e-6
    assert predicted < 1e-4


def test_what_does_not_work_is_refused_with_the_reason(found):
    told = found["refused"]
    assert told["size"][0] == "ValueError"
    assert told["size"][1].startswith("`x` must be arrays of at most 500 bytes")
    assert "A path with a scheme needs a session with a JVM" in told["path"][1]
    assert "A path with a scheme needs a session with a JVM" in told["checkpoint"][1]


def test_a_lost_connection_is_one_clear_error(found):
    first, second = found["dropped"]
    for kind, text in (first, second):
        assert kind == "ConnectionToServerError"
        assert text.startswith("The connection to the server of Spark Connect was lost")
        assert "UNAVAILABLE" in text


@pytest.mark.thorough
def test_a_restarted_server_is_one_clear_error_and_a_new_session_trains_on(folder, spark):
    (kind, text, seconds), losses = run(folder, "restarted")["restarted"]
    assert kind == "ConnectionToServerError"
    assert "Start a new session" in text
    assert seconds < 300  # PySpark's own repetitions would take ten minutes
    assert len(losses) == 3
    assert np.isfinite(losses).all()
