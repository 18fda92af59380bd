"""One-shot averaging: the centre is the mean of replicas that nothing moves."""

from __future__ import annotations

import numpy as np

from kspark.optimizers import MergeContext, OneShot


def test_the_centre_is_the_mean_of_the_replicas():
    centre, replicas = np.array([1.0, 2.0]), [np.array([3.0, 0.0]), np.array([5.0, 4.0])]
    gap = 0.25 * (replicas[0] - centre) + 0.75 * (replicas[1] - centre)
    OneShot().apply(centre, gap, MergeContext("synchronous"))
    np.testing.assert_allclose(centre, [4.5, 3.0])


def test_a_replica_keeps_its_weights():
    local, gap = np.array([3.0, 0.0]), np.array([2.0, -2.0])
    OneShot().replica_update(local, gap, np.zeros(2), {}, MergeContext("synchronous", share=0.5))
    assert local.tolist() == [3.0, 0.0]
