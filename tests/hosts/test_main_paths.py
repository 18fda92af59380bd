"""Three short cases, which the test command runs, too."""


def test_a_synchronous_fit_is_right_on_three_hosts(driver):
    outcome = driver.fit()
    assert outcome.is_exact and outcome.counts_rows
    assert outcome.hosts[-1] == ["w1", "w2", "w3"]
