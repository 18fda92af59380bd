"""Stages over Spark Connect, which cannot share a process with other sessions.

`connect_program.py` runs the fits in one session. The tests check what it prints.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyspark
import pytest

from kspark.session import java

PROGRAM = Path(__file__).with_name("connect_program.py")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("connect")
    own = {
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "KSPARK_WARM": "tensorflow",
        "SPARK_TESTING": "1",  # any free port, in place of a fixed one
        **java.environment(java.find_java(pyspark.__version__), folder, quiet=True),
    }
    variables = {**os.environ, **own}
    run = subprocess.run(
        [sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=550,
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
    )
    lines = [line for line in run.stdout.splitlines() if "FOUND " in line]
    assert lines, run.stderr[-5000:]
    return json.loads(lines[0].split("FOUND ")[1])


@pytest.fixture(scope="module")
def program():
    """The same fits, for the classic session of this process."""
    spec = importlib.util.spec_from_file_location(PROGRAM.stem, PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform != "linux", reason="workers start warm on Linux only")
def test_workers_start_with_keras_imported(found):
    assert found["warm"]
    assert all(found["warm"])


def test_transform_gives_the_predictions_of_the_model(found):
    assert found["transformed"] == {str(i): 2.0 * i for i in range(5)}


def test_progress_counts_the_tasks_that_the_server_reports(found):
    assert re.fullmatch(r"Count - [\d.]+s - 3 tasks\n", found["shown"])


def test_a_fit_equals_that_of_a_classic_session(found, program, spark):
    """With uneven shards, one of them empty, and with validation rows."""
    expected, ours = program.fit_uneven(spark), found["fit_uneven"]
    assert ours["shards"] == expected["shards"] == [0, 2, 3]
    for part in ("weights", "state"):
        for a, b in zip(ours[part], expected[part], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert set(ours["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name, values in expected["history"].items():
        np.testing.assert_allclose(ours["history"][name], values, rtol=0, atol=1e-5)


def test_small_partitions_of_a_shuffle_are_merged_as_in_a_classic_session(found, program, spark):
    few = program.fit_shuffled(spark)
    assert few < 10 < sum(program.ROWS)
    assert found["fit_shuffled"] == few


def test_a_single_shard_equals_plain_fit(found):
    weights, history = found["one_shard"]
    assert weights < 1e-6
    assert history < 1e-5


def test_every_row_counts_once_per_epoch(found, program):
    ids = [float(100 * i + n) for i, rows in enumerate(program.ROWS) for n in range(rows)]
    held = [i for i in ids if i % 4 == 0]
    trained = [i for i in ids if i % 4]
    for history in found["counted"][:2]:
        assert figures(history) == [[len(ids)] * 2, [sum(ids)] * 2]
    assert figures(found["counted"][2]) == [[len(trained)] * 2, [sum(trained)] * 2]
    assert figures(found["counted"][2], "val_") == [[len(held)] * 2, [sum(held)] * 2]


def figures(history, prefix=""):
    return [history[f"{prefix}rows"], history[f"{prefix}ids"]]


def test_functions_make_the_rows_of_each_worker(found):
    history, sums, shape, counts = found["streamed"]
    assert history["rows"] == history["val_rows"] == [11, 11]
    assert history["ids"] == history["val_ids"] == [sum(range(11))] * 2
    assert (sums["rows"], sums["ids"], shape, counts) == (11, 55, [11, 1], [6, 5])


def test_nondeterministic_rows_are_read_once(found):
    first, *others = found["read_once"]
    assert first > 0
    # Other rows would be some percent away; the order of a sum is only its rounding.
    np.testing.assert_allclose(others, [first, first], rtol=1e-5)


def test_a_second_fit_continues_with_weights_and_optimizer_state(found):
    difference, ours, expected = found["continued"]
    assert difference < 1e-6
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_unsupported_settings_and_methods_are_refused(found):
    told = found["refusals"]
    where = "over Spark Connect"
    assert told["mode"][0] == told["frequency"][0] == "ValueError"
    assert told["mode"][1].startswith(f'`mode` must be "synchronous" {where}')
    assert told["mode"][1].endswith("Received: mode='hogwild'")
    assert told["frequency"][1].startswith(f'`frequency` must be "epoch" {where}')
    assert told["frequency"][1].endswith("Received: frequency=3")
    assert told["elephas"][1].startswith(f'`mode` must be "synchronous" {where}')


def test_an_exception_on_a_worker_is_reported_with_its_traceback(found):
    kind, text = found["refusals"]["raises"]
    assert kind == "WorkerError"
    assert "Shard 0 failed on host" in text
    assert "ZeroDivisionError" in text
    assert "a mistake of the model's" in text
    assert "Traceback" in text
    assert f'{PROGRAM.name}", line' in text


def test_labels_that_are_not_classes_are_refused(found):
    kind, text = found["bad_labels"]
    assert kind == "ValueError"
    assert text.endswith("Received: labelCol='label' with 5")


def test_an_interrupt_is_raised_by_fit(found):
    assert found["refusals"]["interrupt"][0] == "KeyboardInterrupt"


def test_a_running_job_can_be_cancelled(found):
    running, finished, text = found["cancelled"]
    assert running
    assert finished
    assert "OPERATION_CANCELED" in text


def test_fits_leave_nothing_behind(found):
    empty = {"threads": [], "persisted": 0, "views": [], "spools": [], "settings": None}
    assert found["left_behind"] == empty


def test_spooled_rows_train_as_their_source_and_are_deleted(found):
    difference, (frame, rows), there, left = found["spooled"]
    assert difference == 0
    assert frame == rows
    assert there and all(there)
    assert not any(left)


def test_sparse_rows_stay_sparse_and_train_as_the_array(found):
    difference, nbytes, dense = found["sparse"]
    assert difference < 1e-6
    assert nbytes < dense / 10


def test_files_are_read_and_written(found):
    epochs, in_order, difference, shape = found["files"]
    assert (epochs, in_order, shape) == (2, True, [60, 3])
    assert difference < 1e-5
