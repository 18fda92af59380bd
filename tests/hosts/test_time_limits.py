"""No fit waits for ever, and none ends because something honest takes long."""

import re

import pytest
from hostlab.driver import During

TIMEOUT = 20.0
"""The `timeout` of the fits."""

GRACE = 60.0
"""Seconds after `timeout` within which a lost host must have led to an end."""

SPARK_NOTICES = 120.0
"""Seconds after which Spark, with its usual settings, gives up an executor that is silent."""

PORTS = (7000, 7009)
"""Ports of the driver that a firewall closes."""

EVERY_MODE = [
    ("synchronous", "epoch", "rounds"),
    ("synchronous", "epoch", "live"),
    ("synchronous", "batch", "auto"),
    ("asynchronous", "batch", "auto"),
    ("hogwild", "epoch", "auto"),
]


def right_or_names(outcome, host):
    """Whether the model is right, or the error names the host."""
    return outcome.is_exact or host in outcome.message


@pytest.mark.parametrize(("frequency", "road"), [("epoch", "auto"), ("batch", "auto")])
def test_a_lost_host_ends_a_synchronous_live_fit_in_time(driver, cluster, frequency, road):
    lose = During(1, lambda: cluster.lose_host("w2"))
    outcome = driver.fit(
        "synchronous", frequency, lose, road=road, timeout=TIMEOUT, within=TIMEOUT + GRACE
    )
    assert right_or_names(outcome, "w2")


@pytest.mark.parametrize(("mode", "frequency", "road"), EVERY_MODE)
def test_a_frozen_worker_holds_nobody_up_for_ever(driver, cluster, mode, frequency, road):
    freeze = During(1, lambda: cluster.freeze_python("w2"))
    outcome = driver.fit(
        mode, frequency, freeze, road=road, timeout=TIMEOUT, within=2 * TIMEOUT + GRACE
    )
    assert right_or_names(outcome, "w2")


@pytest.mark.parametrize(
    ("mode", "frequency", "road"), [EVERY_MODE[0], EVERY_MODE[2], EVERY_MODE[3]]
)
def test_a_frozen_host_holds_nobody_up_for_ever(driver, cluster, mode, frequency, road):
    freeze = During(1, lambda: cluster.freeze("w2"))
    outcome = driver.fit(
        mode, frequency, freeze, road=road, timeout=TIMEOUT, within=SPARK_NOTICES + GRACE
    )
    assert right_or_names(outcome, "w2")


@pytest.mark.parametrize(("mode", "frequency", "road"), EVERY_MODE)
def test_steps_and_epochs_longer_than_the_timeout_are_no_hang(driver, mode, frequency, road):
    slow = {"batches": 2, "epochs": 2, "seconds": 7.0, "slow_shard": 1}
    outcome = driver.fit(mode, frequency, road=road, timeout=4.0, **slow)
    assert outcome.is_exact and outcome.counts_rows


@pytest.mark.parametrize(
    ("mode", "frequency"), [("synchronous", "epoch"), ("asynchronous", "batch")]
)
def test_a_step_timeout_limits_computing(driver, mode, frequency):
    slow = {"batches": 4, "epochs": 2, "seconds": 15.0, "slow_shard": 1}
    outcome = driver.fit(mode, frequency, step_timeout=5.0, **slow)
    assert not outcome.ended_well
    assert "step_timeout" in outcome.message and re.search(r"\bw[123]\b", outcome.message)


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [("synchronous", "batch"), ("asynchronous", "epoch"), ("hogwild", "epoch")],
)
def test_an_unreachable_port_is_reported_before_training(driver, cluster, mode, frequency):
    driver.fit(epochs=1, batches=1)  # Workers have started.
    cluster.network.firewall("driver", *PORTS)
    outcome = driver.fit(mode, frequency, port=PORTS, within=30.0)
    assert not outcome.ended_well
    assert re.search(r"driver:700\d|10\.77\.0\.20:700\d", outcome.message)
    assert "`port`" in outcome.message or "port=" in outcome.message


def test_the_default_mode_needs_no_open_port(local_bytes, driver, cluster):
    cluster.network.firewall("driver", *PORTS)
    fit = {"model": "perceptron", "epochs": 6, "seconds": 0.0}
    outcome = driver.fit(port=PORTS, **fit)
    assert outcome.digest == local_bytes["perceptron", "epoch", 6]


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [
        ("asynchronous", "epoch"),
        ("asynchronous", "batch"),
        ("hogwild", "epoch"),
        ("hogwild", "batch"),
    ],
)
def test_rows_of_a_dead_worker_count_once_or_are_said_to_be_missing(
    driver, cluster, mode, frequency
):
    outcome = driver.fit(mode, frequency, During(1, lambda: cluster.kill_python("w2"), 0.6))
    assert outcome.is_exact
    assert max(outcome.rows) <= outcome.num_rows
    for missing in (outcome.num_rows - rows for rows in outcome.rows):
        assert missing == 0 or outcome.logged(rf"WARNING.*\b{missing}\b.*(rows|examples)")
