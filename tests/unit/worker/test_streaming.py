"""Windows of rows that a function makes, and the look at its first batch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from kspark.adapters.factories import FactoryRows
from kspark.plan import UNKNOWN, shard_steps
from kspark.shards import ArraySpec, Chunk, InputSpec, Shard, ShardHandle, SpoolMissingError
from kspark.worker import streaming
from kspark.worker.reading import EpochRows
from kspark.worker.streaming import open_stream, windows_of_chunks
from kspark.worker.tasks import FitTask

SPEC = InputSpec((ArraySpec("x", (None,), "float32"),), (ArraySpec("y"),))


def chunks_of(*lengths, width=1):
    first = 0
    for length in lengths:
        yield Chunk([np.arange(first, first + length).reshape(-1, 1).repeat(width, 1)])
        first += length


def rows_in(windows):
    return [window.x[0][:, 0].tolist() for window in windows]


@pytest.mark.parametrize("limit", ["WINDOW_BYTES", "WINDOW_SECONDS"])
def test_windows_have_whole_batches_and_end_at_a_limit(monkeypatch, limit):
    assert rows_in(windows_of_chunks(chunks_of(3, 3, 3), 4)) == [list(range(9))]
    monkeypatch.setattr(streaming, limit, 0)
    found = rows_in(windows_of_chunks(chunks_of(3, 3, 3, 1), 4))
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert rows_in(windows_of_chunks(iter([]), 4)) == []


def test_the_contents_of_bytes_count_for_the_size_of_a_window(monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 2_500_000)
    files = np.array([bytes(1_000_000)] * 7, object)
    windows = windows_of_chunks((Chunk([files[i : i + 1]]) for i in range(7)), 1)
    assert [window.num_examples for window in windows] == [3, 3, 1]


def test_a_stream_is_closed_if_training_ends_early(tools, tmp_path):
    closed = []

    def make(worker, num_workers, seed):
        try:
            while True:
                yield np.zeros((4, 1)), np.zeros(4)
        finally:
            closed.append(worker)

    fit = fit_on(tools, [4], steps=3)
    fit = replace(fit, stream=FactoryRows(make, SPEC, 1))
    rows = iter(EpochRows(fit, Shard(handle(tmp_path)), 0))
    next(rows)
    rows.close()
    assert closed == [0]


def test_batches_may_have_rows_of_other_lengths_but_a_batch_has_rows_of_one():
    def padded(*sizes):
        for width, rows in sizes:
            yield from chunks_of(rows, width=width)

    windows = list(windows_of_chunks(padded((2, 4), (2, 4), (3, 4), (2, 1)), 4))
    assert [window.x[0].shape for window in windows] == [(8, 2), (4, 3), (1, 2)]
    with pytest.raises(ValueError, match="`x` must give rows of one shape within a batch"):
        list(windows_of_chunks(padded((2, 3), (3, 4)), 4))
    with pytest.raises(ValueError, match="the same inputs, labels and sample weights"):
        list(windows_of_chunks(iter([Chunk([np.zeros(2)]), Chunk([np.zeros(2)], [np.ones(2)])]), 2))


def fit_on(tools, batches, steps=None):
    """Data of one worker, which is made of the lengths of its batches."""

    def make(worker, num_workers, seed):
        return ((c.x[0], c.x[0][:, 0]) for c in chunks_of(*batches))

    plan = tools.plan("synchronous", "epoch", steps_per_epoch=steps, class_weight={0: 2.0})
    plan = replace(plan, streams=True)
    return FitTask("fit", plan, {0: 1}, 1, stream=FactoryRows(make, SPEC, 1))


def test_the_end_of_an_epoch_is_known_with_its_last_window(tools, monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 0)
    checked = []
    rows = EpochRows(fit_on(tools, [3, 3, 3]), Shard(handle(tmp_path)), 0, checked.append)
    told = [(w.first_batch, rows.batches, rows.num_examples, len(checked)) for w in rows]
    assert told == [(0, UNKNOWN, 0, 2), (1, UNKNOWN, 0, 3), (2, 3, 9, 3)]


def test_rows_have_the_weights_of_their_classes(tools, tmp_path):
    (window,) = EpochRows(fit_on(tools, [2]), Shard(handle(tmp_path)), 0)
    assert window.sample_weight[0].tolist() == [2, 1]


@pytest.mark.parametrize(("steps", "examples"), [(2, 8), (3, 9), (4, 13), (7, 22)])
def test_the_data_begins_again_until_the_steps_are_done(tools, tmp_path, steps, examples):
    """Nine rows in batches of four: three batches per pass, the last one of a row."""
    rows = EpochRows(fit_on(tools, [3, 3, 3], steps), Shard(handle(tmp_path)), 0)
    windows = list(rows)
    assert (rows.batches, rows.num_examples) == (steps, examples)
    assert [w.first_batch for w in windows] == list(range(0, steps, 3))


@pytest.mark.parametrize("steps", [None, 3])
def test_data_without_rows_is_refused(tools, tmp_path, steps):
    with pytest.raises(ValueError, match="no rows for worker 0 of 1"):
        list(EpochRows(fit_on(tools, [], steps), Shard(handle(tmp_path)), 0))


def handle(folder):
    return ShardHandle(0, 1, str(folder), "host", 0, first_batch=3)


def test_the_first_batch_tells_what_the_rows_are_like(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    made = []

    def make(worker, num_workers, seed):
        made.append((worker, num_workers, seed))
        return iter([(np.zeros((3, 2)), np.array([0, 5, 1]), np.ones(3))])

    rows = FactoryRows(make, SPEC, 2)
    (document,) = open_stream(rows, "fit", (7, 8), False, 1, iter([0]))
    found = ShardHandle.from_json(document)
    assert made == [(1, 2, 8)]
    assert (found.index, found.num_examples, found.first_batch) == (1, 1, 3)
    assert [(a.name, a.shape) for a in found.arrays] == [
        ("x", (2,)),
        ("y", ()),
        ("sample_weight0", ()),
    ]
    assert (found.stats[0].minimum, found.stats[0].maximum) == (0, 5)
    assert Shard.open(found).index == 1
    shutil.rmtree(found.path)
    with pytest.raises(SpoolMissingError, match="Shard 1 began on host"):
        Shard.open(found)


@pytest.mark.parametrize(
    ("batches", "kind"), [([], "ValueError"), ([(np.zeros((3, 2, 2)), np.zeros(3))], "ValueError")]
)
def test_a_first_batch_that_does_not_fit_is_told_as_a_value(batches, kind):
    rows = FactoryRows(lambda worker, num_workers, seed: batches, SPEC, 1)
    (document,) = open_stream(rows, "fit", (1,), False, 0, iter([0]))
    assert json.loads(document)["failure"]["kind"] == kind


def test_steps_are_divided_and_unknown_without_a_number(tools):
    plan = replace(tools.plan(steps_per_epoch=5), streams=True)
    steps = shard_steps(plan, {0: 1, 1: 1})
    assert [one.batches for one in steps.values()] == [3, 2]
    assert [one.num_examples(0) for one in steps.values()] == [12, 8]
    endless = shard_steps(replace(plan, steps_per_epoch=None), {0: 1})[0]
    assert (endless.batches, endless.rows, endless.num_examples(0)) == (UNKNOWN, 1, 0)
