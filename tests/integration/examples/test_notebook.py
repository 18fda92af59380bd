"""`examples/quickstart.ipynb` in a real kernel: its outputs, and the effects of an interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

SECONDS = 300

START = """
import threading

from kspark import SparkModel
from kspark.session import local_session

import keras
import numpy as np

spark = local_session(2)
x, y = np.random.rand(4000, 8).astype("float32"), np.arange(4000) % 2
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, activation="softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
"""

LEFT_BEHIND = """
threads = [t.name for t in threading.enumerate() if "kspark" in t.name]
jobs = spark.sparkContext.statusTracker().getActiveJobsIds()
persisted = spark.sparkContext._jsc.getPersistentRDDs().size()
print(f"left behind: {threads} {list(jobs)} {persisted}")
"""


@pytest.fixture
def notebook(project: Path) -> nbformat.NotebookNode:
    return nbformat.read(project / "examples" / "quickstart.ipynb", as_version=4)


@pytest.fixture
def kernel_environment(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels inherit this process's environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # A notebook shows pictures in the cell, whatever the tests' own backend is.
    for name in ("MPLBACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_the_notebook_is_stored_without_outputs(notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.usefixtures("kernel_environment")
def test_the_notebook_shows_progress_in_place_and_the_curve(
    notebook: nbformat.NotebookNode, tmp_path: Path
) -> None:
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()

    outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    assert "".join(text_of(shown, "stderr") for shown in outputs.values()) == ""
    progress = text_of(outputs["fit"])
    assert "\rEpoch 1/10 ..." in progress
    assert "\rReading the rows ..." in progress
    assert progress.count("\rEpoch 10/10 - ") == 1
    assert "val_accuracy" in progress
    assert any("image/png" in output.get("data", {}) for output in outputs["curve"])
    printed = text_of(outputs["use"]).splitlines()
    assert [line for line in printed if line.startswith("Evaluate - ") and "accuracy: " in line]
    shown = [line for line in printed if line.startswith("accuracy ")]
    # kspark's exact evaluation and Keras' own, to three digits.
    assert shown[0].split()[:2] == shown[1].split()[:2]
    assert float(shown[0].split()[1]) > 0.9


@pytest.fixture
def kernel(kernel_environment: None, tmp_path: Path) -> Iterator[tuple[Any, BlockingKernelClient]]:
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def test_an_interrupted_cell_leaves_nothing_behind_and_the_next_cell_runs(
    kernel: tuple[Any, BlockingKernelClient],
) -> None:
    manager, client = kernel
    run_cell(client, START)
    for mode, frequency in [("synchronous", "epoch"), ("synchronous", "batch"), ("hogwild", 8)]:
        run_cell(client, f"spark_model = SparkModel(model, {mode!r}, {frequency!r}, timeout=20)")
        cell = client.execute("spark_model.fit(x, y, epochs=100000)")
        assert "Epoch 3/" in read(client, cell, until="Epoch 3/")[0]
        manager.interrupt_kernel()
        _, error = read(client, cell)

        assert error == "KeyboardInterrupt"
        text, error = run_cell(client, LEFT_BEHIND)
        assert text.strip() == "left behind: [] [] 0", (mode, error)
        text, error = run_cell(client, "history = spark_model.fit(x, y, epochs=2)")
        assert error is None, mode
        assert "Epoch 2/2 - " in text


def text_of(outputs: list[Any], name: str = "stdout") -> str:
    """All that a cell printed."""
    printed = [o for o in outputs if o.output_type == "stream" and o.name == name]
    return "".join(output.text for output in printed)


def run_cell(client: BlockingKernelClient, code: str) -> tuple[str, str | None]:
    return read(client, client.execute(code))


def read(client: BlockingKernelClient, cell: str, until: str = "") -> tuple[str, str | None]:
    """What a cell prints until it is done, or has printed `until`; and the name of its error.

    Nothing else is shown: neither lines of TensorFlow nor of Spark.
    """
    text, error, done = "", None, False
    while not done:
        message = client.get_iopub_msg(timeout=SECONDS)
        if message["parent_header"].get("msg_id") != cell:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            assert content["name"] == "stdout", content["text"]
            text += content["text"]
        error = content["ename"] if kind == "error" else error
        idle = kind == "status" and content["execution_state"] == "idle"
        done = idle or bool(until and until in text)
    return text, error
