"""Executors and hosts that are lost, and links that are cut: the right model, or a clear error."""

import pytest
from hostlab.driver import During

SYNCHRONOUS = [("epoch", "rounds"), ("epoch", "live"), ("batch", "auto")]
EXCHANGING = [("asynchronous", "batch"), ("hogwild", "epoch")]

SPARK_NOTICES = 200.0
"""Seconds after which Spark, with its usual settings, has noticed that a host is silent."""


@pytest.mark.parametrize(("frequency", "road"), SYNCHRONOUS)
def test_a_killed_executor_changes_no_byte(local_bytes, driver, cluster, frequency, road):
    kill = During(2, lambda: cluster.kill_executor("w2"))
    outcome = driver.fit("synchronous", frequency, kill, model="stateless", epochs=6, road=road)
    assert outcome.digest == local_bytes["stateless", frequency, 6]


def test_optimizer_state_survives_a_killed_executor_or_is_said_to_be_lost(
    local_bytes, driver, cluster
):
    kill = During(2, lambda: cluster.kill_executor("w2"))
    outcome = driver.fit("synchronous", "epoch", kill, model="perceptron", epochs=6, road="rounds")
    assert outcome.ended_well and outcome.counts_rows
    same = outcome.digest == local_bytes["perceptron", "epoch", 6]
    assert same if outcome.state_kept else outcome.logged("WARNING.*optimizer state of shards")


@pytest.mark.parametrize(("mode", "frequency"), EXCHANGING)
def test_no_push_is_lost_or_applied_twice_after_an_executor_was_killed(
    driver, cluster, mode, frequency
):
    outcome = driver.fit(mode, frequency, During(1, lambda: cluster.kill_executor("w2")))
    assert outcome.is_exact


def test_rounds_go_on_without_a_lost_host(local_bytes, driver, cluster):
    lose = During(2, lambda: cluster.lose_host("w2"))
    outcome = driver.fit(
        *("synchronous", "epoch", lose),
        model="stateless",
        epochs=6,
        road="rounds",
        within=SPARK_NOTICES,
    )
    assert outcome.digest == local_bytes["stateless", "epoch", 6]


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
def test_an_exchanging_fit_goes_on_or_ends_clearly_without_a_lost_host(driver, cluster, mode):
    lose = During(1, lambda: cluster.lose_host("w2"))
    outcome = driver.fit(mode, "batch", lose, within=SPARK_NOTICES)
    assert outcome.is_exact or "w2" in outcome.message


@pytest.mark.parametrize(("frequency", "road"), SYNCHRONOUS)
def test_a_link_that_is_cut_for_twenty_seconds_changes_no_byte(
    local_bytes, driver, cluster, frequency, road
):
    cut = During(2, lambda: cluster.cut_for("w2", 20))
    outcome = driver.fit("synchronous", frequency, cut, model="perceptron", epochs=6, road=road)
    assert outcome.digest == local_bytes["perceptron", frequency, 6]


@pytest.mark.parametrize(("mode", "frequency"), EXCHANGING)
def test_no_push_is_lost_or_applied_twice_after_a_link_was_cut(driver, cluster, mode, frequency):
    outcome = driver.fit(mode, frequency, During(1, lambda: cluster.cut_for("w2", 20)))
    assert outcome.is_exact and outcome.counts_rows


def test_the_driver_s_link_may_be_cut_for_seconds(driver, cluster):
    outcome = driver.fit("asynchronous", "batch", During(1, lambda: cluster.cut_for("driver", 8)))
    assert outcome.is_exact and outcome.counts_rows


def test_a_slow_link_delays_a_fit_only(driver, cluster):
    cluster.network.slow_down("w2", "2mbit")
    outcome = driver.fit("synchronous", "batch", seconds=0.02)
    assert outcome.is_exact and outcome.counts_rows
