"""Driver: share memory with replicas on the driver's host, instead of sending over connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from kspark.cluster.addresses import is_local
from kspark.job.fit import Fit
from kspark.live.coordinator import Coordinator
from kspark.live.shared_gradients import MAX_BYTES, SharedGradients, vector_bytes
from kspark.live.shared_memory import SharedWeights
from kspark.live.wire import SharedOffer
from kspark.optimizers import MergeContext, ScaledDelta
from kspark.weights import PackingScheme

logger = logging.getLogger("kspark")


def shared_memory(
    fit: Fit, coordinator: Coordinator, packing: PackingScheme
) -> AbstractContextManager[None]:
    """Return a context manager that offers the replicas shared memory, if their mode can use it.

    * In hogwild mode, the memory has the weights. Only a sum of scaled deltas can be left to the
      replicas: other rules, and constraints, are applied by the aggregator.
    * Exact synchronous replicas find the gradients of the others in it. All of them have to be on
      the driver's host, and gradients must not be compressed.
    """
    rule = fit.aggregator.optimizer
    scales = isinstance(rule, ScaledDelta) and rule.is_a_scale
    if fit.plan.mode == "hogwild" and scales and not fit.aggregator.keeps_constraints:
        return shared_weights(fit, coordinator)
    size = vector_bytes(fit.spec.weights, len(coordinator.shards))
    if fit.plan.merges_gradients and packing.lossless and size <= MAX_BYTES and on_this_host(fit):
        return shared_gradients(fit, coordinator)
    return nullcontext()


def on_this_host(fit: Fit) -> bool:
    """Whether all replicas run on the driver's host."""
    return is_local(fit.spark.sparkContext.master)


@contextmanager
def shared_weights(fit: Fit, coordinator: Coordinator) -> Iterator[None]:
    """Keep the weights in a file that replicas on the driver's host map."""
    shards = sorted(coordinator.shards)
    rule, own = fit.aggregator.optimizer, fit.aggregator.weights
    shared = SharedWeights.create(own, fit.spec.weights, len(shards))
    fit.aggregator.weights = shared.vector
    for slot, shard in enumerate(shards):
        share = coordinator.shards[shard].num_examples / coordinator.total_examples
        scale = rule.scale(MergeContext("hogwild", share)) if isinstance(rule, ScaledDelta) else 1.0
        coordinator.offers[shard] = SharedOffer(
            shared.path, shared.mark.hex(), len(shards), slot, share, scale
        )
    try:
        yield
    finally:
        own[:] = shared.vector
        fit.aggregator.weights = own
        shared.unlink()


@contextmanager
def shared_gradients(fit: Fit, coordinator: Coordinator) -> Iterator[None]:
    """Let the replicas, all on the driver's host, average their gradients in a file they map."""
    shards = sorted(coordinator.shards)
    try:
        shared = SharedGradients.create(fit.spec.weights, len(shards))
    except OSError as error:
        logger.info("Gradients are sent over connections, because memory cannot be shared: %s", error)
        yield
        return
    for slot, shard in enumerate(shards):
        share = coordinator.shards[shard].num_examples / coordinator.total_examples
        coordinator.offers[shard] = SharedOffer(
            shared.path, shared.mark.hex(), len(shards), slot, share
        )
    if coordinator.rendezvous is not None:
        coordinator.rendezvous.meet_apart()
    try:
        yield
    finally:
        shared.unlink()
