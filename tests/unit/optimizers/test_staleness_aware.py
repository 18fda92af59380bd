from __future__ import annotations

import numpy as np
import pytest

from kspark.optimizers import StalenessAware


@pytest.mark.parametrize(("staleness", "part"), [(0, 1.0), (1, 0.5), (3, 0.25)])
def test_a_delta_is_divided_by_one_more_than_its_staleness(applied, staleness, part):
    weights = applied(StalenessAware(), [8, -4, 0], staleness=staleness, share=0.1)
    np.testing.assert_array_equal(weights, [8 * part, -4 * part, 0])


def test_the_learning_rate_scales_the_delta(applied):
    np.testing.assert_array_equal(applied(StalenessAware(0.5), [8, 0, 0], staleness=1), [2, 0, 0])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number > 0"):
        StalenessAware(float("inf"))
