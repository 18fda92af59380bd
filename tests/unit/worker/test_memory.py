"""A worker ends after a task when models that are gone have made it too large."""

from __future__ import annotations

import io
import sys
import weakref
from types import SimpleNamespace

import pytest
from pyspark.serializers import SpecialLengths, read_int, write_int

from kspark.worker import memory
from kspark.worker.memory import (
    LEAST_BYTES,
    MOST_BYTES,
    allowed_growth,
    check_memory,
    end_after_task,
    hold,
    models_built,
)


class Replica:
    """Stands for a replica."""


@pytest.fixture
def worker(monkeypatch):
    """Stands for the module `pyspark.worker`."""
    module = SimpleNamespace(write_int=write_int)
    monkeypatch.setitem(sys.modules, "pyspark.worker", module)
    return module


@pytest.fixture
def sizes(monkeypatch):
    """The sizes that the process has, one after the other."""
    monkeypatch.setattr(memory, "_first", [])
    monkeypatch.setattr(memory, "_models", [0])
    monkeypatch.setattr(memory, "_held", weakref.WeakKeyDictionary())
    monkeypatch.setattr(memory, "allowed_growth", lambda threads: 100)
    left = []
    monkeypatch.setattr(memory, "resident_bytes", lambda: left.pop(0))
    return left


@pytest.fixture
def ended(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "end_after_task", lambda: calls.append(1))
    return calls


def test_growth_counts_from_the_second_model(sizes, ended):
    check_memory(1)
    sizes += [500, 600, 601, 601]
    check_memory(1)
    check_memory(1)
    assert not ended
    check_memory(1)
    assert ended
    assert models_built() == 4


def test_what_a_collection_frees_does_not_count(sizes, ended):
    sizes += [500, 900, 550]
    for _ in range(3):
        check_memory(1)
    assert not ended
    assert not sizes


def test_models_that_are_kept_are_no_growth(sizes, ended):
    kept = [Replica() for _ in range(4)]
    sizes += [650, 800, 950]
    for replica in kept:  # each takes 150
        check_memory(1)
        hold(replica, 150)
    assert not ended
    del kept[:], replica
    sizes += [1100, 1100]  # what they took is not freed
    check_memory(1)
    assert ended


@pytest.mark.parametrize(
    ("gigabytes", "cpus", "expected"),
    [(64, 32, LEAST_BYTES), (64, 16, 512 << 20), (512, 16, MOST_BYTES), (2, 32, LEAST_BYTES)],
)
def test_the_limit_follows_the_host(monkeypatch, gigabytes, cpus, expected):
    host = {"SC_PHYS_PAGES": gigabytes << 18, "SC_PAGE_SIZE": 1 << 12}
    monkeypatch.setattr(memory.os, "sysconf", host.__getitem__)
    monkeypatch.setattr(memory.os, "cpu_count", lambda: cpus)
    assert allowed_growth(1) == expected


def test_a_limit_of_addresses_is_no_limit_of_memory(monkeypatch):
    monkeypatch.setenv("PYSPARK_EXECUTOR_MEMORY_MB", "40")
    assert allowed_growth(1) >= LEAST_BYTES


def test_this_process_has_a_size():
    assert memory.resident_bytes() > 10**7 or not sys.platform.startswith("linux")


def test_a_worker_that_ends_tells_spark_not_to_use_it_again(worker, caplog):
    caplog.set_level("INFO", "kspark")
    end_after_task()
    end_after_task()
    assert [record.getMessage()[:34] for record in caplog.records] == [
        "This Python worker ends after its "
    ]
    stream = io.BytesIO()
    worker.write_int(7, stream)
    with pytest.raises(SystemExit):
        worker.write_int(SpecialLengths.END_OF_STREAM, stream)
    stream.seek(0)
    assert [read_int(stream), read_int(stream)] == [7, SpecialLengths.END_OF_DATA_SECTION]
    assert stream.read() == b""


def test_outside_of_a_worker_nothing_ends(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyspark.worker", raising=False)
    end_after_task()
