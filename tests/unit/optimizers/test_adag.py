from __future__ import annotations

import numpy as np
import pytest

from kspark.optimizers import ADAG


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
def test_a_delta_is_divided_by_its_local_steps(applied, mode):
    rule = ADAG()
    weights = applied(rule, [8, -4, 0], mode=mode, num_steps=4, share=0.1, staleness=3)
    np.testing.assert_array_equal(weights, [2, -1, 0])


def test_a_single_step_is_applied_whole(applied):
    np.testing.assert_array_equal(applied(ADAG(), [8, -4, 0], num_steps=1), [8, -4, 0])


def test_the_learning_rate_scales_the_delta(applied):
    np.testing.assert_array_equal(applied(ADAG(3.0), [8, -4, 0], num_steps=4), [6, -3, 0])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number > 0"):
        ADAG(-1)
