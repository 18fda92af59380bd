"""When shards are divided into groups; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.cluster import records
from kspark.job import groups
from kspark.job.groups import MIN_GROUPED_SHARDS, delta_grouping_of, grouping_of


def a_fit(counts, nbytes=1000):
    spec = SimpleNamespace(weights=SimpleNamespace(nbytes=nbytes))
    return SimpleNamespace(spark=None, spec=spec, num_train=dict(enumerate(counts)))


@pytest.fixture
def session(monkeypatch):
    """Stands for the kind of session: whether its engine groups results."""

    def make(grouped):
        monkeypatch.setattr(groups, "engine_of", lambda spark: SimpleNamespace(groups=grouped))

    return make


@pytest.mark.parametrize(
    ("counts", "groups"), [([1] * 15, None), ([1] * 15 + [0] * 9, None), ([1] * 16, 4)]
)
def test_sixteen_shards_with_examples_are_divided_into_groups(session, counts, groups):
    session(grouped=True)
    assert MIN_GROUPED_SHARDS == 16
    found = grouping_of(a_fit(counts), 1000)
    assert (found and len(found.groups)) == groups


@pytest.mark.parametrize(("nbytes", "groups"), [(1000, 4), (1001, None)])
def test_what_is_larger_than_a_record_has_no_groups(session, monkeypatch, nbytes, groups):
    session(grouped=True)
    monkeypatch.setattr(records, "LARGEST_RECORD", 1000)
    found = grouping_of(a_fit([1] * 16), nbytes)
    assert (found and len(found.groups)) == groups


def test_sessions_that_cannot_shuffle_results_have_no_groups(session):
    session(grouped=False)
    assert grouping_of(a_fit([1] * 40), 1000) is None


def test_late_shards_are_in_no_group(session):
    session(grouped=True)
    assert grouping_of(a_fit([1] * 17), 1000, without={3, 16}) is None
    grouping = grouping_of(a_fit([1] * 19), 1000, without={3, 16})
    assert sorted(grouping.number) == [s for s in range(19) if s not in (3, 16)]


def test_deltas_that_are_larger_than_a_record_have_no_groups(session, monkeypatch):
    session(grouped=True)
    monkeypatch.setattr(records, "LARGEST_RECORD", 1000)
    for nbytes, grouped in ((1000, True), (1001, False)):
        fit = a_fit([1] * 16, nbytes)
        fit.aggregator = SimpleNamespace(optimizer=SimpleNamespace(averages_deltas=True))
        fit.plan = SimpleNamespace(callbacks_every=None)
        assert (delta_grouping_of(fit) is not None) == grouped


def test_the_driver_gets_every_delta_with_callbacks_every(session):
    session(grouped=True)
    fit = a_fit([1] * 16)
    fit.aggregator = SimpleNamespace(optimizer=SimpleNamespace(averages_deltas=True))
    for every, grouped in ((None, True), (3, False)):
        fit.plan = SimpleNamespace(callbacks_every=every)
        assert (delta_grouping_of(fit) is not None) == grouped
