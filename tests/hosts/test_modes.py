"""Undisturbed fits: every batch counts once, and the bytes are those of one machine."""

import pytest

EVERY_WAY = [
    (mode, frequency)
    for mode in ("synchronous", "asynchronous", "hogwild")
    for frequency in ("epoch", "batch", 3)
]


@pytest.mark.parametrize(("mode", "frequency"), EVERY_WAY)
def test_every_batch_is_applied_once(driver, mode, frequency):
    outcome = driver.fit(mode, frequency, batches=12, seconds=0.02)
    assert outcome.is_exact and outcome.counts_rows
    assert outcome.hosts[-1] == ["w1", "w2", "w3"]


def test_every_batch_is_applied_once_in_rounds(driver):
    outcome = driver.fit(road="rounds", seconds=0.02)
    assert outcome.road == "rounds"
    assert outcome.is_exact and outcome.counts_rows


def test_more_shards_than_slots_are_right_in_rounds(driver):
    outcome = driver.fit(workers=5, seconds=0.02)
    assert outcome.road == "rounds"
    assert outcome.is_exact and outcome.counts_rows


@pytest.mark.parametrize(
    ("frequency", "road"), [("epoch", "rounds"), ("epoch", "auto"), ("batch", "auto"), (3, "auto")]
)
def test_synchronous_fits_give_the_bytes_of_one_machine(local_bytes, driver, frequency, road):
    fit = {"model": "perceptron", "epochs": 6, "seconds": 0.0}
    outcome = driver.fit("synchronous", frequency, road=road, **fit)
    assert outcome.digest == local_bytes["perceptron", frequency, 6]
    assert outcome.state_kept
