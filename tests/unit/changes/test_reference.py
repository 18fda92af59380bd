"""Weights that go back: only what is not as in an earlier answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.changes import Layout, Reference, Table, completed

LAYOUT = Layout(12, np.dtype("f4"), (Table(1, 4, 2), Table(9, 1, 3)))


@pytest.fixture
def reference():
    return Reference(LAYOUT)


def test_blocks_that_ever_changed_are_sent_from_then_on(reference):
    weights = np.zeros(12, "f4")
    assert reference.note(weights).tolist() == [False] * 5
    weights[3] = 1
    assert np.flatnonzero(reference.note(weights)).tolist() == [1]
    weights[3], weights[8] = 0, 2  # a row that is back again may be with somebody who has it not
    assert np.flatnonzero(reference.note(weights)).tolist() == [1, 3]


def test_the_first_vector_is_copied(reference):
    weights = np.zeros(12, "f4")
    reference.note(weights)
    weights[3] = 1
    assert reference.base.tolist() == [0] * 12


def test_when_nothing_is_saved_any_more_nobody_compares_again(reference, monkeypatch):
    weights = np.zeros(12, "f4")
    reference.note(weights)
    assert reference.note(weights + 1) is None
    assert reference.base is None
    monkeypatch.setattr(Layout, "changed", None)
    assert reference.note(weights) is None


@settings(max_examples=200)
@given(st.data())
def test_whoever_has_an_earlier_vector_gets_the_later_one(data):
    """Several receivers, who ask when they like; what they have is right to the bit."""
    reference, kept = Reference(LAYOUT), {}
    weights = np.arange(12, dtype="f4")
    for _ in range(data.draw(st.integers(1, 12))):
        for place in data.draw(st.lists(st.integers(0, 11), max_size=2)):
            weights[place] = data.draw(st.sampled_from([place, -1, np.nan, -0.0]))
        who = data.draw(st.integers(0, 2))
        changed = reference.note(weights)
        if changed is not None and who in kept:
            payload = LAYOUT.encode(weights, changed)
            assert payload.nbytes < weights.nbytes
            kept[who] = completed(LAYOUT, kept[who], payload)
        else:
            kept[who] = weights.copy()
        assert kept[who].tobytes() == weights.tobytes()


def test_what_is_completed_is_new():
    base = np.zeros(12, "f4")
    payload = LAYOUT.encode(base + 1, np.array([True, False, False, True, False]))
    whole = completed(LAYOUT, base, payload)
    assert whole.tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert base.tolist() == [0] * 12


def test_many_threads_note_what_each_of_them_found(reference):
    reference.note(np.zeros(12, "f4"))

    def noted(row):
        weights = np.zeros(12, "f4")
        weights[1 + 2 * row] = 1
        return reference.note(weights)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(noted, [0, 1, 2] * 20))
    assert all(changed[row] for changed, row in zip(found, [0, 1, 2] * 20, strict=True))
    assert np.flatnonzero(reference.note(np.zeros(12, "f4"))).tolist() == [0, 1, 2]
