from __future__ import annotations

import numpy as np
import pytest

from kspark.optimizers import Downpour


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
def test_every_delta_is_applied_whole(applied, mode):
    deltas = [1, -2, 0], [3, 1, 0.5]
    weights = applied(Downpour(), *deltas, weights=(1, 1, 1), mode=mode, share=0.1, staleness=4)
    np.testing.assert_array_equal(weights, [5, 0, 1.5])


def test_the_learning_rate_scales_the_delta(applied):
    np.testing.assert_array_equal(applied(Downpour(0.5), [1, -2, 0]), [0.5, -1, 0])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number > 0"):
        Downpour(0)
