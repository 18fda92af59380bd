"""`examples/mnist_mlp.py`, through `spark-submit` on a real cluster."""

from __future__ import annotations

import gzip
import re
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pyspark
import pytest

SPARK_SUBMIT = Path(pyspark.__file__).resolve().parent / "bin" / "spark-submit"
RESULT = re.compile(r"^\d+ training rows\. Test loss [\d.]+, test accuracy ([\d.]+)$", re.MULTILINE)


def accuracy_in(output: str) -> float:
    found = RESULT.search(output)
    assert found, output
    return float(found[1])


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST's files: two zero bytes, the type, the number of axes, the shape."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder: Path, ending: str, names: tuple[str, ...] = ("train", "t10k")) -> None:
    """1,200 images that a network learns at once, under the published names."""
    labels = np.arange(1200) % 10
    images = np.zeros((1200, 28, 28), np.uint8)
    images[np.arange(1200), 2 * labels, :] = 255
    folder.mkdir()
    for name in names:
        write_idx(folder / f"{name}-images-idx3-ubyte{ending}", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte{ending}", labels)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_the_example_reads_the_published_format(project: Path, tmp_path: Path, ending: str) -> None:
    write_mnist(tmp_path / "data", ending)
    write_mnist(tmp_path / "only_test", ending, names=("t10k",))
    load = runpy.run_path(str(project / "examples" / "mnist_mlp.py"))["load"]

    for x, y in load(tmp_path / "data"):
        assert (x.shape, x.dtype, x.min(), x.max()) == ((1200, 784), np.float32, 0, 1)
        assert y.tolist() == (np.arange(1200) % 10).tolist()
    (x, _), (x_test, _) = load(tmp_path / "only_test")
    assert (len(x), len(x_test)) == (960, 240)


def test_the_example_uses_digits_of_scikit_learn_without_a_data_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = runpy.run_path(str(project / "examples" / "mnist_mlp.py"))
    monkeypatch.setattr(sys, "argv", ["mnist_mlp.py"])
    monkeypatch.delenv("KSPARK_DATA", raising=False)

    folder = names["arguments"]().data
    (x, _), (x_test, _) = names["load"](folder)

    assert folder is None
    assert (x.shape, x_test.shape) == ((1437, 64), (360, 64))


@pytest.mark.parametrize("missing", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_a_missing_file_is_named_in_the_error(project: Path, tmp_path: Path, missing: str) -> None:
    write_mnist(tmp_path / "data", ".gz")
    (tmp_path / "data" / f"{missing}.gz").unlink()
    load = runpy.run_path(str(project / "examples" / "mnist_mlp.py"))["load"]

    with pytest.raises(FileNotFoundError, match=f"must hold `{missing}.gz` or `{missing}`"):
        load(tmp_path / "data")


@pytest.mark.parametrize(
    ("mode", "frequency", "has_data"),
    [
        ("hogwild", "batch", True),
        pytest.param("synchronous", "epoch", False, marks=pytest.mark.thorough),
    ],
)
def test_spark_submit_runs_the_example_on_a_standalone_cluster(
    run,
    project: Path,
    tmp_path: Path,
    java_variables: dict[str, str],
    standalone_master: str,
    mode: str,
    frequency: str,
    has_data: bool,
) -> None:
    settings = ["spark.executor.memory=900m", "spark.ui.enabled=false"]
    settings += [f"spark.driver.{name}=127.0.0.1" for name in ("host", "bindAddress")]
    options = [part for setting in settings for part in ("--conf", setting)]
    own = {**java_variables, "PYSPARK_PYTHON": sys.executable}
    if has_data:
        write_mnist(tmp_path / "data", ".gz")
        own["KSPARK_DATA"] = str(tmp_path / "data")

    output = run(
        SPARK_SUBMIT,
        *["--master", standalone_master, *options],
        project / "examples" / "mnist_mlp.py",
        *["--mode", mode, "--frequency", frequency],
        **own,
    )

    assert f"{1200 if has_data else 1437} training rows" in output
    assert accuracy_in(output) > (0.99 if has_data else 0.85)
    # The application ran there, and not on a local Spark.
    logs = list((tmp_path / "work").glob("app-*/*/stderr"))
    assert logs
