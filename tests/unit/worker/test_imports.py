"""What a Python worker imports before its task runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

TASKS = (
    *("kspark.live.task", "kspark.rounds.task", "kspark.worker.groups", "kspark.worker.images"),
    *("kspark.worker.inference", "kspark.worker.spooling", "kspark.worker.state"),
    "kspark.worker.files",
)


def modules_after(code: str) -> set[str]:
    """Names of the modules that a new process has imported after some code."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", TASKS)
def test_a_task_imports_no_keras_before_its_backend_is_chosen(module):
    assert "keras" not in modules_after(f"import {module}")


def test_a_task_that_reads_files_imports_no_spark_ml():
    assert not {"pyspark.ml", "pyarrow.dataset"} & modules_after("import kspark.worker.files")


def test_a_live_task_does_not_import_the_coordinator_of_the_driver():
    modules = modules_after("import kspark.live.task")
    assert not {name for name in modules if name.startswith("kspark.live.coordinator")}
