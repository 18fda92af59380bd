"""What settings of Spark tell about executors."""

from __future__ import annotations

import pytest

from kspark.cluster.slots import MAX_LOCALITY_SECONDS, executors_may_go, locality_seconds


class Settings:
    """Stands for a session with some settings."""

    def __init__(self, **settings):
        self.conf, self.settings = self, {k.replace("_", "."): v for k, v in settings.items()}

    def get(self, name, default):
        return self.settings.get(name, default)


@pytest.mark.parametrize(
    ("settings", "may_go"),
    [
        ({}, False),
        ({"spark_dynamicAllocation_enabled": "true"}, True),
        ({"spark_decommission_enabled": "TRUE"}, True),
        ({"spark_decommission_enabled": "false"}, False),
    ],
)
def test_settings_tell_whether_executors_may_go(settings, may_go):
    assert executors_may_go(Settings(**settings)) == may_go


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 10.0),
        ({"spark_locality_wait": "0"}, 1.0),
        ({"spark_locality_wait": "500ms"}, 2.5),
        ({"spark_locality_wait": "1s", "spark_locality_wait_process": "0s"}, 3.0),
        ({"spark_locality_wait": "5 min"}, MAX_LOCALITY_SECONDS),
        ({"spark_locality_wait": "soon"}, 1.0),
    ],
)
def test_seconds_after_which_spark_gives_up_preferences(settings, seconds):
    assert locality_seconds(Settings(**settings)) == pytest.approx(seconds)
