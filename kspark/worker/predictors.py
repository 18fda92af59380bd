"""The replicas with which a Python worker predicts, by the model of the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kspark.replica import ReplicaSpec
from kspark.replica.building import build, renewed
from kspark.worker.memory import check_memory, hold
from kspark.worker.tasks import task_number

if TYPE_CHECKING:
    import numpy as np

    from kspark.replica import Replica
    from kspark.shards import Window

MAX_PREDICTORS = 4
"""The most replicas that a process keeps. A query may run several models in every task."""


@dataclass
class Predictor:
    """A replica that is kept for predictions.

    Attributes:
        replica: `Replica`.
        digest: String, the digest of its model.
        names: Tuple of strings, the `names` of the model for which it was built.
        renewable: Boolean, whether it may predict for another model with the same digest.
        task: Integer, the task that used it last.
    """

    replica: Replica
    digest: str
    names: tuple[str, ...]
    renewable: bool
    task: int


_predictors: dict[str, Predictor] = {}
"""By model, the one that was used last at the end."""


def predictor_for(spec: ReplicaSpec, key: str, threads: int) -> Replica:
    """Return this process' replica of a model for predictions.

    The first call for a model takes over the replica of another model of the same architecture,
    unless the same task uses that one, or else builds a replica.

    Args:
        spec: `ReplicaSpec`.
        key: String that identifies the model.
        threads: Integer, threads that a replica may use.
    """
    task = task_number()
    kept = _predictors.pop(key, None) or taken_over(spec, task)
    if kept is None:
        while len(_predictors) >= MAX_PREDICTORS:
            del _predictors[next(iter(_predictors))]
        kept = built(spec, threads)
    kept.task = task
    _predictors[key] = kept
    return kept.replica


def built(spec: ReplicaSpec, threads: int) -> Predictor:
    """Build a predictor."""
    check_memory(threads)
    replica = build(spec, threads)
    hold(replica, spec.weights.nbytes)
    return Predictor(replica, spec.digest, spec.names, spec.values is not None, task_number())


def taken_over(spec: ReplicaSpec, task: int) -> Predictor | None:
    """Return the predictor that was not used for longest, renewed for a spec, if there is one.

    Args:
        spec: `ReplicaSpec`.
        task: Integer, the current task. It may go on to use its predictors in turn.
    """
    for key, kept in _predictors.items():
        fits = kept.renewable and kept.digest == spec.digest and kept.task != task
        if fits and renewed(kept.replica, spec):
            return _predictors.pop(key)
    return None


def predict_windows(
    spec: ReplicaSpec, key: str, threads: int, windows: Sequence[Window], batch_size: int
) -> list[list[np.ndarray]]:
    """Predict windows. Returns a list per window with one array per output.

    Args:
        spec: `ReplicaSpec`.
        key: String that identifies the model.
        threads: Integer, threads that a replica may use.
        windows: Sequence of `Window`.
        batch_size: Integer, examples per batch.
    """
    replica = predictor_for(spec, key, threads)
    try:
        return [replica.predict(window, batch_size) for window in windows]
    except Exception:
        if _predictors[key].names == spec.names:
            raise
        # The error would have the names of another model's layers.
        del _predictors[key]
        _predictors[key] = built(spec, threads)
        return [_predictors[key].replica.predict(window, batch_size) for window in windows]
