"""How much memory data on the driver takes on its way to the workers, beside itself."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import arrays as arrays_module
from kspark.adapters import base, tables
from kspark.adapters import streams as streams_module
from kspark.adapters.arrays import adapt_arrays
from kspark.adapters.base import Columns
from kspark.adapters.streams import adapt_stream, as_stream
from kspark.adapters.tables import adapt_pandas, adapt_table
from kspark.shards import ArraySpec, InputSpec, spool

ROWS, WIDTH = 16_384, 64
SPEC = InputSpec((ArraySpec("x", (WIDTH,), "float32"),), (ArraySpec("y"),))
SIZE = 4 * ROWS * WIDTH
"""Bytes of the rows as the model takes them: 4 MiB."""

NAMES = [f"c{i}" for i in range(WIDTH)]
SPARK = SimpleNamespace(sparkContext=SimpleNamespace(master="local[2]", defaultParallelism=2))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Rows are converted 256 kB at a time."""
    for module in (arrays_module, base, tables):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1 << 18)


def ones(dtype="float32", shape=(ROWS, WIDTH)):
    return np.ones(shape, dtype)


def columns_of(dtypes):
    return {name: np.ones(ROWS, dtypes[i % len(dtypes)]) for i, name in enumerate(NAMES)}


def arrow(table):
    return pa.table({name: pa.array(values) for name, values in table.items()})


@pytest.mark.parametrize(
    ("adapter", "x", "copies"),
    [
        (adapt_arrays, ones(), 0),
        (adapt_arrays, ones("float64"), 0),
        (adapt_arrays, ones("uint8"), 0),
        (adapt_arrays, ones()[:, ::-1], 0),
        (adapt_arrays, ones(shape=(WIDTH, ROWS)).T, 0),
        (adapt_pandas, pd.DataFrame(ones(), columns=NAMES), 0),
        (adapt_pandas, pd.DataFrame(columns_of(["float32", "int64"])), 1),
        (adapt_table, arrow(columns_of(["float32"])), 1),
        (adapt_table, arrow(columns_of(["float64", "int32"])), 1),
    ],
    ids=[
        "float32",
        "float64",
        "bytes",
        "reversed",
        "transposed",
        "pandas",
        "mixed pandas",
        "arrow",
        "mixed arrow",
    ],
)
def test_rows_are_copied_at_most_once(adapter, x, copies, tmp_path):
    y = np.zeros(ROWS, "float32")
    tracemalloc.start()
    try:
        examples = adapter(SPARK, x, y, None, SPEC, Columns())
        for index, (start, rows) in enumerate(examples._slices()):
            spool(examples._pieces(rows, start), index, "rows", directory=str(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (copies + 0.5) * SIZE


def test_batches_are_not_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(streams_module.temporary.tempfile, "tempdir", str(tmp_path))

    def batches():
        for _ in range(64):
            yield ones(shape=(ROWS // 64, WIDTH)), np.zeros(ROWS // 64, "float32")

    tracemalloc.start()
    try:
        examples = adapt_stream(SPARK, as_stream(batches()), None, None, SPEC, Columns())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert examples.num_examples == ROWS
    assert peak < 0.25 * SIZE


def test_broadcasts_are_destroyed_if_a_later_one_fails():
    """Those of the slice that failed, too."""
    destroyed = []

    def broadcast(pieces):
        if len(made) == 3:
            raise MemoryError("full")
        made.append(SimpleNamespace(destroy=lambda: destroyed.append(len(made))))
        return made[-1]

    made = []
    context = SimpleNamespace(master="yarn", defaultParallelism=1, broadcast=broadcast)
    spark = SimpleNamespace(sparkContext=context)
    x = ones(shape=(16 * ROWS, WIDTH))
    spec = InputSpec(SPEC.inputs)
    examples = adapt_arrays(spark, x, None, None, spec, Columns())
    with pytest.raises(MemoryError), examples:
        examples.map_chunks(None)
    assert len(destroyed) == 3
