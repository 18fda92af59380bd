"""The speed and the time that is left."""

from __future__ import annotations

from kspark.job.pace import Pace


def test_a_speed_is_known_after_a_second_of_training():
    pace = Pace(2)
    pace.begin_epoch(0.0)
    pace.note(5.0, 64)  # The first batch, with the compilation of the model.
    pace.note(5.4, 128)
    assert (pace.speed, pace.seconds_left(128, 2064)) == (None, None)
    pace.note(7.0, 1064)
    assert pace.speed == 500.0
    assert pace.seconds_left(1064, 2064) == 2.0 + 2064 / 500
