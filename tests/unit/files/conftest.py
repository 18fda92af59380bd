"""Files of a few rows in a folder of a test."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kspark.files.reading import read_pieces
from kspark.files.table import ParquetFiles


def write(path, columns, **options):
    """Write columns to a file, and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def numbered(path, start, stop, size):
    """A file of consecutive ids with row groups of a size."""
    return write(path, {"id": np.arange(start, stop)}, row_group_size=size)


def rows_of(files, *names, shards=1):
    """What the shards read of some columns: a list of dictionaries per shard."""
    chosen = [files.column(name) for name in names]
    selection = files.selection(chosen)
    found = []
    for pieces in files.split(shards):
        batches = list(read_pieces(pieces, selection))
        parts = [pa.table(batch.columns, names=list(names)) for batch in batches]
        found.append([row for part in parts for row in part.to_pylist()])
    return found


def ids_of(files, shards=1):
    """The ids that each shard reads."""
    return [[row["id"] for row in rows] for rows in rows_of(files, "id", shards=shards)]


@pytest.fixture(scope="session")
def made():
    return SimpleNamespace(
        write=write, numbered=numbered, rows=rows_of, ids=ids_of, open=ParquetFiles.open
    )
