"""Weights that go back: only what is not as in an earlier answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.weights import Layout, Reference, Table, completed
from kspark.weights.reference import MAX_WHOLE

LAYOUT = Layout(12, np.dtype("f4"), (Table(1, 4, 2), Table(9, 1, 3)))


@pytest.fixture
def reference():
    return Reference(LAYOUT)


def changed_since(reference, weights, since):
    """Blocks to send, by number."""
    return np.flatnonzero(reference.note(weights, since)[1]).tolist()


def test_blocks_are_sent_that_changed_since_a_moment(reference):
    weights = np.zeros(12, "f4")
    first, changed = reference.note(weights, None)
    assert changed is None  # who has nothing gets all
    assert changed_since(reference, weights, first) == []
    weights[3] = 1
    second, changed = reference.note(weights, first)
    assert np.flatnonzero(changed).tolist() == [1]
    weights[3], weights[8] = 0, 2  # a row that is back again
    assert changed_since(reference, weights, second) == [1, 3]
    assert changed_since(reference, weights, first) == [1, 3]
    assert changed_since(reference, weights, reference.note(weights, None)[0]) == []


def test_a_vector_that_changes_after_it_was_noted_is_seen_to(reference):
    weights = np.zeros(12, "f4")
    since, _ = reference.note(weights, None)
    weights[3] = 1
    assert changed_since(reference, weights, since) == [1]


def test_when_nothing_is_saved_for_long_nobody_compares_again(reference, monkeypatch):
    weights = np.zeros(12, "f4")
    since, _ = reference.note(weights, None)
    for step in range(MAX_WHOLE - 1):
        since, changed = reference.note(weights + step + 1, since)
        assert changed is None
    assert not reference.over
    since, changed = reference.note(weights + MAX_WHOLE - 1, since)
    assert changed is not None  # which is where it starts counting anew
    for step in range(MAX_WHOLE):
        since, _ = reference.note(weights - step - 1, since)
    assert reference.over
    monkeypatch.setattr(Layout, "changed", None)
    assert reference.note(weights, since)[1] is None


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
        since, held = kept.get(who, (None, None))
        moment, changed = reference.note(weights, since)
        if changed is not None:
            payload = LAYOUT.encode(weights, changed)
            assert payload.nbytes < weights.nbytes
            held = completed(LAYOUT, held, payload)
        else:
            held = weights.copy()
        kept[who] = (moment, held)
        assert held.tobytes() == weights.tobytes()


def test_what_is_completed_is_new():
    base = np.zeros(12, "f4")
    payload = LAYOUT.encode(base + 1, np.array([True, False, False, True, False]))
    whole = completed(LAYOUT, base, payload)
    assert whole.tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert base.tolist() == [0] * 12


def test_many_threads_note_what_each_of_them_found(reference):
    """Also if they come in another order than their weights were made in."""
    first, _ = reference.note(np.zeros(12, "f4"), None)

    def noted(row):
        weights = np.zeros(12, "f4")
        weights[1 + 2 * row] = 1
        return reference.note(weights, first)[1]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(noted, [0, 1, 2] * 20))
    assert all(changed[row] for changed, row in zip(found, [0, 1, 2] * 20, strict=True))
    assert changed_since(reference, np.zeros(12, "f4"), first) == [0, 1, 2]
