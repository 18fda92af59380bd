"""What is sent to each job of a fit, with an engine that counts bytes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kspark.cluster import bootstrap
from kspark.job.sent_weights import SentWeights
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, layout

SPEC = WeightSpec(
    (
        Weight("base", (100,), "float32", STATE),
        Weight("embeddings", (50, 8), "float32", TRAINABLE),
        Weight("kernel", (3, 8), "float32", TRAINABLE),
    )
)
WHOLE = 4 * 524
SMALL = 8 + 4 * 24  # bits of 51 blocks, and the kernel


class Value:
    def __init__(self, value):
        self.value, self.destroyed = value, False

    def destroy(self):
        self.destroyed = True


class Bank:
    """Stands for an engine; `values` are the shared values."""

    def __init__(self, keeps_shared=True):
        self.keeps_shared, self.values = keeps_shared, []

    def share(self, value):
        self.values.append(Value(value))
        return self.values[-1]

    @property
    def kept(self):
        return [value.value.nbytes for value in self.values if not value.destroyed]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Functions that are shipped find kspark as it is."""
    monkeypatch.setattr(layout, "LEAST_ROWS", 4)
    monkeypatch.setattr(layout, "LEAST_BYTES", 1)
    digest = bootstrap.package_archive()[1]
    monkeypatch.setattr(sys, "_kspark_digest", digest, raising=False)


def sent_to_jobs(sent, vectors):
    """Return the bytes that are sent to each job; check that each job gets its vector."""
    counts = []
    for vector in vectors:
        with sent.share(vector) as (shared, nbytes):
            assert shared.value.tobytes() == vector.tobytes()
            counts.append(nbytes)
    return counts


def test_later_jobs_get_only_the_changed_blocks():
    bank = Bank()
    sent = SentWeights(bank, SPEC)
    vectors = [np.arange(524, dtype="f4") for _ in range(4)]
    vectors[1][3], vectors[2][405], vectors[3][430] = -1, -1, -1  # a row, the kernel, the base
    counts = sent_to_jobs(sent, vectors)
    # What has ever changed is sent each time.
    assert counts == [WHOLE, SMALL + 32, SMALL + 32, SMALL + 32 + 400]
    assert bank.kept == [WHOLE]
    sent.close()
    assert bank.kept == []


def test_a_copy_of_the_vector_is_shared():
    sent = SentWeights(Bank(), SPEC)
    weights = np.arange(524, dtype="f4")
    for _ in range(2):
        with sent.share(weights) as (shared, _):
            before = weights.copy()
            weights[5] += 1
            assert shared.value.tobytes() == before.tobytes()


def test_weights_that_all_change_are_sent_and_not_kept():
    bank = Bank()
    sent = SentWeights(bank, SPEC)
    vectors = [np.full(524, value, "f4") for value in range(3)]
    assert sent_to_jobs(sent, vectors) == [WHOLE] * 3
    assert bank.kept == []


@pytest.mark.parametrize("case", ["no blocks", "nothing is kept"])
def test_without_blocks_or_kept_values_all_weights_are_sent_to_each_job(case):
    spec = WeightSpec(SPEC.weights[2:]) if case == "no blocks" else SPEC
    bank = Bank(keeps_shared=case == "no blocks")
    sent = SentWeights(bank, spec)
    assert sent_to_jobs(sent, [np.ones(spec.size, "f4")] * 2) == [spec.nbytes] * 2
    assert bank.kept == []


def test_shared_weights_are_removed_also_if_a_job_fails():
    bank = Bank()
    sent = SentWeights(bank, SPEC)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), sent.share(np.ones(524, "f4")):
            raise ZeroDivisionError
    assert bank.kept == [WHOLE]


def test_a_derived_value_is_made_anew_of_values_that_others_own():
    part = Value(np.arange(3))
    made = bootstrap.Derived(lambda: part.value + 1)
    assert made.value.tolist() == [1, 2, 3]
    assert made.value is not made.value
    made.destroy()
    assert not part.destroyed
