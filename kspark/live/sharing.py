"""Driver: share memory with replicas on the driver's host, instead of sending over connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from kspark.cluster.addresses import tasks_are_here
from kspark.job.fit import Fit
from kspark.live.coordinator import Coordinator
from kspark.live.coordinator.rendezvous import Rendezvous
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
    if coordinator.rendezvous is None or not fit.plan.merges_gradients or not packing.lossless:
        return nullcontext()
    size = vector_bytes(fit.spec.weights, len(coordinator.shards))
    if size > MAX_BYTES or not tasks_are_here(fit.spark):
        return nullcontext()
    return shared_gradients(fit, coordinator, coordinator.rendezvous)


@contextmanager
def shared_weights(fit: Fit, coordinator: Coordinator) -> Iterator[None]:
    """Keep the weights in a file that replicas on the driver's host map."""
    shards = tuple(sorted(coordinator.shards))
    rule, own = fit.aggregator.optimizer, fit.aggregator.weights
    shared = SharedWeights.create(own, fit.spec.weights, len(shards))
    fit.aggregator.weights = shared.vector
    for slot, shard in enumerate(shards):
        share = coordinator.shards[shard].num_examples / coordinator.total_examples
        scale = rule.scale(MergeContext("hogwild", share)) if isinstance(rule, ScaledDelta) else 1.0
        coordinator.offers[shard] = SharedOffer(
            shared.path, shared.mark.hex(), shards, slot, share, scale
        )
    slots = {shard: slot for slot, shard in enumerate(shards)}
    coordinator.apart = lambda shard, attempt: shared.admit(slots[shard], attempt)
    try:
        yield
    finally:
        own[:] = shared.vector
        fit.aggregator.weights = own
        shared.unlink()


@contextmanager
def shared_gradients(fit: Fit, coordinator: Coordinator, rendezvous: Rendezvous) -> Iterator[None]:
    """Let the replicas, all on the driver's host, average their gradients in a file they map."""
    shards = tuple(sorted(coordinator.shards))
    try:
        shared = SharedGradients.create(fit.spec.weights, len(shards))
    except OSError as error:
        logger.info("Gradients are sent over connections: memory cannot be shared. %s", error)
        yield
        return
    for slot, shard in enumerate(shards):
        coordinator.offers[shard] = SharedOffer(shared.path, shared.mark.hex(), shards, slot)
    rendezvous.meet_apart()
    try:
        yield
    finally:
        shared.unlink()
