"""Whether a model's gradients and metric states may be merged: both are sums only if they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kspark.errors import invalid, invalid_type
from kspark.replica import custom_objects as custom

if TYPE_CHECKING:
    import keras

    from kspark.shards import Window


class Evaluated(Protocol):
    """What the checks need of a replica: its losses, and its metrics' state after a window."""

    model: keras.Model

    def loss(self, window: Window) -> float:
        """Loss of one window as a single batch."""
        ...

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Add the rows of a window to the metrics."""
        ...

    def metric_state(self) -> list[np.ndarray]:
        """State of all metrics."""
        ...

    def set_metric_state(self, state: list[np.ndarray]) -> None:
        """Set the state of all metrics."""
        ...

    def reset_metrics(self) -> None:
        """Set all metrics to where they begin."""
        ...

    def get_fixed(self) -> list[np.ndarray]:
        """Values of counters and random number generators."""
        ...

    def set_fixed(self, values: list[np.ndarray]) -> None:
        """Set counters and random number generators."""
        ...


MEANS = ("sum_over_batch_size", "mean", "auto")
"""Reductions whose value over two batches is the example-weighted mean of both values."""


def check_gradient_merging(model: keras.Model) -> None:
    """Refuse a model whose gradient over a large batch is no mean of gradients over its parts.

    This looks at the model alone, before any data. `Replica.check_gradient_merging`
    looks at the loss itself.

    Args:
        model: A compiled `keras.Model`.

    Raises:
        ValueError: If it has its own `train_step`, or a loss with another reduction
            than the mean over the batch.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise not_merged(f"the Keras backend {keras.backend.backend()!r} does not show gradients")
    if type(model).train_step is not keras.Model.train_step:
        raise not_merged(
            f"{type(model).__name__} overrides `train_step`, which applies its gradient itself"
        )
    for loss in leaves(model.loss):
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in MEANS:
            name = getattr(loss, "name", loss)
            raise not_merged(f"the loss {name!r} has reduction={reduction!r} instead of a mean")


def leaves(value: Any) -> list[Any]:
    """The items of nested lists and mappings."""
    if isinstance(value, Mapping):
        return leaves(list(value.values()))
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def not_merged(reason: str) -> ValueError:
    """The refusal of gradient merging."""
    return ValueError(
        'mode="synchronous" with frequency="batch" merges gradients into those of one large '
        f"batch, which cannot be exact here: {reason}. "
        'Use frequency="epoch", or a number of batches.'
    )


def check_loss_is_mean(replica: Evaluated, window: Window, batch_size: int) -> None:
    """Compare the loss of two batches together with the mean of their losses.

    Raises:
        ValueError: If they differ.
    """
    first, second, both = two_batches(window, batch_size)
    sizes = [first.num_examples, second.num_examples]
    with kept_fixed(replica):
        whole, again = replica.loss(both), replica.loss(both)
        mean = np.average([replica.loss(first), replica.loss(second)], weights=sizes)
    if not np.isclose(whole, again, rtol=1e-5):
        return  # The loss is random even without training: nothing can be told from it.
    if np.isfinite(whole) and not np.isclose(whole, mean, rtol=1e-3, atol=1e-6):
        raise not_merged(
            f"the loss of {sizes[0]} + {sizes[1]} examples is {whole:.6g}, but the mean of both "
            f"losses is {mean:.6g}, as with masked sequences or a sum over the batch"
        )


def check_metrics_are_sums(replica: Evaluated, window: Window, batch_size: int) -> None:
    """Compare the metric state after two batches with the sum of their states.

    Raises:
        ValueError: If a metric's state differs, or does not begin at zero; it is named.
    """
    kept = replica.metric_state()
    first, second, both = two_batches(window, batch_size)
    size = first.num_examples  # so that both together are the same two batches again
    try:
        with kept_fixed(replica):
            parts = [states_after(replica, w, size) for w in (first, second)]
        # From the same random state as the parts, which drew one after the other.
        wholes = []
        for _ in range(2):
            with kept_fixed(replica):
                wholes.append(states_after(replica, both, size))
        replica.reset_metrics()
        begin = replica.metric_state()
    finally:
        replica.reset_metrics()
        if len(kept) == len(replica.metric_state()):
            replica.set_metric_state(kept)
    if not all(map(close, *wholes)):
        return  # Evaluation itself is random: nothing can be told from it.
    rows = zip(metric_names(replica.model.metrics), begin, *parts, wholes[0], strict=True)
    for name, zero, one, other, whole in rows:
        if np.any(zero) or not close(one + other, whole):
            raise ValueError(
                f"The metric {name!r} cannot be evaluated on Spark: its state over two batches is "
                "not the sum of the states over each, so the states of several workers cannot be "
                "merged. Make its `update_state` add to variables that begin at zero."
            )


def close(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two states are the same but for rounding."""
    return np.allclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True)


@contextmanager
def kept_fixed(replica: Evaluated) -> Iterator[None]:
    """Give counters and random number generators back as they were."""
    fixed = replica.get_fixed()
    try:
        yield
    finally:
        replica.set_fixed(fixed)


def states_after(replica: Evaluated, window: Window, batch_size: int) -> list[np.ndarray]:
    """Metric state after one window alone."""
    replica.reset_metrics()
    replica.evaluate(window, batch_size)
    return replica.metric_state()


def metric_names(metrics: Iterable[Any]) -> list[str]:
    """For every metric variable the name of the metric that it belongs to."""
    names: list[str] = []
    for metric in metrics:
        inner = metric_names(getattr(metric, "metrics", ()))
        own = len(metric.variables) - len(inner)
        names += [metric.name] * own + inner
    return names


def has_custom_metric(metrics: Iterable[Any]) -> bool:
    """Whether a metric, or one inside of it, is of a class that is not Keras' own."""
    return any(
        not type(metric).__module__.startswith("keras.")
        or has_custom_metric(getattr(metric, "metrics", ()))
        for metric in metrics
    )


def two_batches(window: Window, batch_size: int) -> tuple[Window, Window, Window]:
    """Two batches of a window, and both together. A single row is taken twice."""
    order = np.arange(window.num_examples) if window.order is None else window.order
    rows = order[: 2 * batch_size]
    if len(rows) == 1:
        rows = np.repeat(rows, 2)
    half = -(-len(rows) // 2)
    return rows_of(window, rows[:half]), rows_of(window, rows[half:]), rows_of(window, rows)


def rows_of(window: Window, rows: np.ndarray) -> Window:
    """Some rows as a window of their own."""
    return replace(
        window,
        x=[a[rows] for a in window.x],
        y=[a[rows] for a in window.y],
        sample_weight=[a[rows] for a in window.sample_weight],
        order=None,
        key=None,
    )


def check_model(model: Any) -> None:
    """Refuse what cannot become a replica.

    Raises:
        ValueError: If the model is not compiled, not built or stateful.
        TypeError: If it is not a Keras model.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise invalid_type("model", "a compiled `keras.Model`", model)
    if not model.compiled or getattr(model, "optimizer", None) is None:
        raise invalid("model", "compiled: call `model.compile(...)` first", model.name)
    if not model.built:
        rule = "built: give it a `keras.Input`, or call it on one example"
        raise invalid("model", rule, model.name)
    for layer in custom.reachable(model):
        if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional) and layer.stateful:
            rule = "free of stateful layers, which tie a row to the row before it"
            raise invalid("model", rule, f"{layer.name} with stateful=True")
