"""Shards and task slots come together, wherever Spark puts tasks and whoever leaves or joins."""

import pytest
from hostlab.driver import During
from hostlab.network import SAME_NAME

ALL = ["w1", "w2", "w3"]

DECOMMISSION = {
    "decommission_enabled": "true",
    "storage_decommission_enabled": "true",
    "storage_decommission_rddBlocks_enabled": "true",
}
DYNAMIC = {
    "dynamicAllocation_enabled": "true",
    "dynamicAllocation_shuffleTracking_enabled": "true",
    "dynamicAllocation_executorIdleTimeout": "3s",
    "dynamicAllocation_cachedExecutorIdleTimeout": "3s",
    "dynamicAllocation_maxExecutors": "3",
}


def crowded_driver(hosts, model, name):
    """A driver whose cached rows are all on one of its three executors."""

    def cache(driver):
        driver.ask("cache", model=model, workers=3, rows=120)
        for late in ("w2", "w3"):
            hosts.cluster.start_worker(late)

    return hosts.driver(present=["w1"], prepare=cache, app_name=name)


@pytest.fixture
def crowded(hosts):
    """Such a driver for the model that counts."""
    return crowded_driver(hosts, "counting", "crowded")


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [
        *(("synchronous", "epoch"), ("synchronous", "batch")),
        *(("asynchronous", "epoch"), ("hogwild", "epoch"), ("hogwild", "batch")),
    ],
)
def test_each_slot_gets_a_shard_though_all_rows_are_on_one_host(crowded, mode, frequency):
    outcome = crowded.fit(mode, frequency, cached=True)
    assert outcome.is_exact and outcome.counts_rows
    assert outcome.hosts[-1] == ALL
    assert not outcome.logged("gone")  # The files are where they were.


def test_rounds_spread_over_all_slots_though_all_rows_are_on_one_host(crowded):
    outcome = crowded.fit(cached=True, road="rounds", epochs=6)
    assert outcome.is_exact and outcome.counts_rows
    assert outcome.hosts[2] == ALL


def test_rounds_spread_to_a_host_that_joins(hosts, cluster):
    driver = hosts.driver(present=["w1", "w2"], app_name="joined")
    join = During(1, lambda: cluster.start_worker("w3"))
    outcome = driver.fit("synchronous", "epoch", join, epochs=20, road="rounds")
    assert outcome.is_exact and outcome.counts_rows
    assert spread_two_epochs_after_it_came(outcome, after=1)


def test_rounds_spread_to_an_executor_that_came_back(driver, cluster):
    kill = During(1, lambda: cluster.kill_executor("w2"))
    outcome = driver.fit("synchronous", "epoch", kill, epochs=20, road="rounds")
    assert outcome.is_exact and outcome.counts_rows
    assert spread_two_epochs_after_it_came(outcome, after=1)


def spread_two_epochs_after_it_came(outcome, after):
    """Whether all hosts train at the latest two epochs after there are three executors."""
    complete = [e["epoch"] for e in outcome.epochs if e["epoch"] > after and e["executors"] == 3]
    assert complete and complete[0] + 2 < len(outcome.hosts), "The executor came too late."
    return all(hosts == ALL for hosts in outcome.hosts[complete[0] + 2 :])


def test_a_decommissioned_executor_changes_no_byte(local_bytes, hosts, cluster):
    driver = hosts.driver(**DECOMMISSION)
    leave = During(2, lambda: cluster.decommission("w2"))
    fit = {"model": "perceptron", "epochs": 6, "road": "rounds"}
    # Between the epochs, Spark has the time to move the handles of the shards.
    outcome = driver.fit("synchronous", "epoch", leave, pause=4.0, **fit)
    assert outcome.digest == local_bytes["perceptron", "epoch", 6]
    assert "w2" not in outcome.hosts[-1]
    assert outcome.logged("moved")


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous", "hogwild"])
def test_speculation_is_refused_before_training(hosts, mode):
    driver = hosts.driver(speculation="true", speculation_multiplier="1.5")
    outcome = driver.fit(mode, "epoch")
    assert "spark.speculation" in outcome.message and not outcome.epochs


@pytest.mark.parametrize(("frequency", "road"), [("epoch", "rounds"), ("batch", "auto")])
def test_hosts_of_the_same_name_are_told_apart(local_bytes, hosts, cluster, frequency, road):
    for name in ALL:
        cluster.hosts[name].rename(SAME_NAME)
    driver = hosts.driver(app_name="same-names")  # New executors: the others know their names.
    outcome = driver.fit("synchronous", frequency, model="perceptron", epochs=6, road=road)
    assert outcome.hosts[-1] == [SAME_NAME]
    assert outcome.digest == local_bytes["perceptron", frequency, 6]
    assert outcome.state_kept
    assert not outcome.logged("again|gone")  # Nothing was written or submitted twice.


def test_hosts_of_the_same_name_share_out_the_rows_of_one_of_them_once(hosts, cluster):
    for name in ALL:
        cluster.hosts[name].rename(SAME_NAME)
    driver = crowded_driver(hosts, "perceptron", "same-names-crowded")
    outcome = driver.fit(model="perceptron", cached=True, road="rounds", epochs=6)
    assert outcome.counts_rows and outcome.state_kept
    assert len(outcome.logged("again")) <= 3  # Not in every epoch.


def test_optimizer_state_survives_when_idle_executors_are_removed(local_bytes, hosts):
    driver = hosts.driver(**DYNAMIC, dynamicAllocation_initialExecutors="3")
    fit = {"model": "perceptron", "epochs": 3, "road": "rounds", "seconds": 0.0}
    outcome = driver.fit(pause=12.0, **fit)
    assert min(epoch["executors"] for epoch in outcome.epochs[1:]) < 3  # Some were removed.
    assert outcome.digest == local_bytes["perceptron", "epoch", 3]
    assert outcome.state_kept


def test_a_fit_waits_for_slots_that_dynamic_allocation_may_add(hosts):
    initial = {"dynamicAllocation_initialExecutors": "1", "dynamicAllocation_minExecutors": "1"}
    driver = hosts.driver(executors=1, **DYNAMIC, **initial)
    outcome = driver.fit("synchronous", "batch")
    assert outcome.is_exact and outcome.hosts[-1] == ALL


def test_a_fit_waits_for_an_executor_that_starts_again(driver, cluster):
    cluster.kill_executor("w2")
    driver.wait_for_executors(2)
    outcome = driver.fit("synchronous", "batch")
    assert outcome.is_exact and outcome.hosts[-1] == ALL


def test_too_few_slots_are_an_error_with_both_numbers(driver):
    outcome = driver.fit("synchronous", "batch", workers=5, within=25 + 30)
    assert outcome.error == "NotEnoughSlotsError"
    assert "5" in outcome.message and "3" in outcome.message
    assert not outcome.epochs
