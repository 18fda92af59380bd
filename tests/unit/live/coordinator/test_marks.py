"""Marks: when the hooks of batches run on the driver, from the reports of the shards."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kspark.live.coordinator.marks import MAX_WAITING, Marks
from kspark.live.coordinator.running import Running
from kspark.live.wire.reports import ProgressReport


def report(batches, epoch=0):
    return ProgressReport(epoch, 10 * batches, 1000, batches)


def marks_of(taker, epoch=0):
    """The marks that wait, oldest first."""
    return list(iter(lambda: taker.next(epoch), None))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 30), st.randoms())
def test_the_number_of_marks_depends_on_the_batches_only(counts, every, random):
    """Not on the order in which reports come."""
    step = -(-every // len(counts))
    stops = [sorted({*range(step, count, step), count}) for count in counts]
    marks, found, done = Marks(every), [], [0] * len(counts)
    while any(stops):
        shard = random.choice([s for s, left in enumerate(stops) if left])
        done[shard] = stops[shard].pop(0)
        marks.take(shard, report(done[shard]), [])
        for mark in marks_of(marks):
            assert mark.batches == sum(done)
            assert mark.num_examples == 10 * sum(done)
            found.append(mark.batches)
    assert len(found) == sum(counts) // every
    for number, batches in enumerate(found):
        assert (number + 1) * every <= batches < (number + 1) * every + step
    if len(counts) == 1:
        assert found == list(range(every, counts[0] + 1, every))


def test_a_mark_has_the_metrics_of_its_moment():
    marks = Marks(4)
    marks.take(1, report(2), ["of shard 1"])
    marks.take(0, report(2), ["of shard 0"])
    marks.take(0, report(3), ["later"])
    (mark,) = marks_of(marks)
    assert mark.metrics == [["of shard 0"], ["of shard 1"]]


def test_an_epoch_that_starts_again_repeats_no_mark():
    marks = Marks(2)
    for batches in (2, 4, 0, 2, 4, 6):
        marks.take(0, report(batches), [])
    assert [mark.batches for mark in marks_of(marks)] == [2, 4, 6]


def test_a_shard_that_is_ahead_does_not_change_the_epoch_of_the_driver():
    marks = Marks(4)
    for epoch, batches in ((0, 4), (1, 4), (1, 8), (2, 4)):
        marks.take(0, report(batches, epoch), [f"epoch {epoch}"])
    marks.take(1, report(4), ["other"])
    assert [m.metrics for m in marks_of(marks)] == [[["epoch 0"]], [["epoch 0"], ["other"]]]
    assert [mark.batches for mark in marks_of(marks, 1)] == [4, 8]
    assert marks_of(marks, 0) == []  # forgotten
    assert [mark.batches for mark in marks_of(marks, 2)] == [4]


def test_a_slow_driver_misses_marks_but_not_the_last_one():
    marks = Marks(1)
    for batches in range(1, 3 * MAX_WAITING + 1):
        marks.take(0, report(batches), [])
    found = [mark.batches for mark in marks_of(marks)]
    assert found == [*range(1, MAX_WAITING), 3 * MAX_WAITING]


def test_without_marks_reports_are_for_the_display_only():
    for every, expected in ((None, None), (1, 1)):
        running = Running(every)
        running.take(0, report(1), [np.ones(2)])
        mark = running.next_mark(0)
        assert running.at(0).num_examples == 10
        assert (mark and mark.batches) == expected
