"""Three short cases, which the test command runs, too."""

from hostlab.driver import During


def test_all_modes_are_right_on_three_hosts(driver):
    for mode in ("synchronous", "asynchronous", "hogwild"):
        for frequency in ("epoch", "batch"):
            outcome = driver.fit(mode, frequency, epochs=2, seconds=0.02)
            assert outcome.is_exact and outcome.counts_rows, outcome
            assert outcome.hosts[-1] == ["w1", "w2", "w3"]


def test_a_link_that_is_cut_for_seconds_changes_nothing(driver, cluster):
    cut = During(1, lambda: cluster.cut_for("w2", 5))
    outcome = driver.fit("synchronous", "batch", cut, epochs=3)
    assert outcome.is_exact and outcome.counts_rows


def test_an_executor_killed_in_rounds_changes_no_byte(driver, cluster):
    fit = {"model": "stateless", "epochs": 3, "road": "rounds"}
    undisturbed = driver.fit(**fit, seconds=0.0)
    kill = During(1, lambda: cluster.kill_executor("w2"))
    outcome = driver.fit("synchronous", "epoch", kill, **fit)
    assert undisturbed.ended_well and outcome.digest == undisturbed.digest
