"""Measure whether memory stays flat over many fits of new models, in one driver.

    python -m benchmarks.memory.many
    python -m benchmarks.memory.many --fits 20 --every 5 --units 16
    python -m benchmarks.memory.many --architectures 1000 --transforms 2
    python -m benchmarks.memory.many --clear-session

The first command fits 1,000 models 256-256-1, one after the other, each with two workers. Each
model is a new object. With `--architectures N`, N models in turn have layers of other sizes, so
that workers cannot take over what they have built. After each fit, `--transforms` new stages add
the predictions of the model to a DataFrame. With `--clear-session`, the program calls
`keras.utils.clear_session()` before it makes a model, so that Keras numbers layers from the start.
TensorFlow keeps some memory for each name that a variable ever had.

A line of the table has what the driver's Python process, its JVM and all Python workers hold, and
what lies on disk. Workers share memory with the process that forked them, so that the sum counts
each shared page in parts (PSS). Linux only.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from benchmarks.common.options import new_parser
from benchmarks.common.tables import versions
from kspark import SparkModel
from kspark.ml import KerasModel
from kspark.session import local_session

INPUTS, ROWS = 32, 512


def status(process: int | str) -> dict[str, str]:
    """The fields of `/proc/<process>/status`."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def descendants(parent: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(status(folder.name)["PPid"])
        except (OSError, KeyError):
            continue  # The process has ended since its folder was listed.
    waiting = [parent]
    while waiting:
        found = [child for child, above in parents.items() if above in waiting]
        yield from found
        waiting = found


def figures(process: int | str) -> tuple[float, int, int]:
    """Megabytes, threads and open files of a process."""
    folder = Path(f"/proc/{process}")
    lines = (folder / "smaps_rollup").read_text(encoding="utf-8").splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    counts = [len(list((folder / name).iterdir())) for name in ("task", "fd")]
    return kilobytes * 1024 / 1e6, counts[0], counts[1]


def total(processes: list[int]) -> tuple[float, int, int]:
    """The sums of the figures of processes that still run."""
    found = []
    for process in processes:
        try:
            found.append(figures(process))
        except OSError:
            continue
    return sum(f[0] for f in found), sum(f[1] for f in found), sum(f[2] for f in found)


def size_of(folder: str) -> float:
    """Megabytes of the files in a folder."""
    sizes = 0
    for path in Path(folder).rglob("*"):
        try:
            sizes += path.lstat().st_size
        except OSError:
            continue
    return sizes / 1e6


def row(fits: int, seconds: float, folder: str) -> str:
    """A line of the table."""
    processes = list(descendants(os.getpid()))
    java = [p for p in processes if "java" in status(p)["Name"]]
    workers = [p for p in processes if p not in java]
    cells = [f"{fits}", f"{seconds:.2f}"]
    for group in ([os.getpid()], java, workers):
        cells += [f"{number:,.0f}" for number in total(group)]
    return f"| {' | '.join([*cells, f'{size_of(folder):,.1f}'])} |"


def build_model(units: int) -> keras.Model:
    """A compiled perceptron."""
    hidden = [keras.layers.Dense(units, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((INPUTS,)), *hidden, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def main() -> None:
    parser = new_parser(__doc__)
    options = (
        ("fits", 1000, "number of models"),
        ("every", 50, "fits from one line of the table to the next"),
        ("units", 256, "units of the two hidden layers"),
        ("architectures", 1, "number of architectures"),
        ("transforms", 0, "transforms of each model"),
    )
    for name, default, meaning in options:
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"{meaning}; default: {default}"
        )
    parser.add_argument(
        "--clear-session", action="store_true", help="clear Keras' session before each model"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        spark = local_session(cores=2, config={"spark.local.dir": folder})
        x = np.random.default_rng(0).normal(size=(ROWS, INPUTS)).astype("float32")
        frame = spark.createDataFrame([(r.tolist(),) for r in x[:64]], ["features"]).cache()
        print(f"{versions()}\n")
        names = [
            f"{of}{what}"
            for of in ("driver's ", "JVM's ", "workers' ")
            for what in ("MB", "threads", "files")
        ]
        print(f"| fits | seconds | {' | '.join(names)} | MB on disk |")
        print("|--:" * (len(names) + 3) + "|", flush=True)
        started = time.perf_counter()
        for number in range(1, args.fits + 1):
            if args.clear_session:
                keras.utils.clear_session()
            model = build_model(args.units + number % args.architectures)
            SparkModel(model, num_workers=2, batch_size=32).fit(x, x[:, :1], epochs=1, verbose=0)
            for _ in range(args.transforms):
                KerasModel(model, featuresCol="features").transform(frame).collect()
            if number % args.every == 0:
                seconds = (time.perf_counter() - started) / args.every
                print(row(number, seconds, folder), flush=True)
                started = time.perf_counter()
        spark.stop()


if __name__ == "__main__":
    main()
