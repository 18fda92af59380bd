"""Check whether gradients and metric states of several replicas of a model can be merged.

Merged gradients are exact only if the loss is a mean over its examples, merged metric states
only if each state is a sum over its batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kspark.errors import Described, invalid, invalid_type
from kspark.replica import custom_objects as custom
from kspark.replica.compiled_variables import compiled_variables
from kspark.replica.pickling import leaves
from kspark.replica.variables import assign_all, values_of
from kspark.shards import TEXT

if TYPE_CHECKING:
    import keras

    from kspark.shards import InputSpec, Window


class Evaluated(Protocol):
    """The methods of a replica that the checks call."""

    model: keras.Model

    def loss(self, window: Window) -> float:
        """Compute the loss of a window as a single batch."""
        ...

    def evaluate(self, window: Window, batch_size: int) -> None:
        """Add the rows of a window to the metrics."""
        ...

    def metric_state(self) -> list[np.ndarray]:
        """Return the state of all metrics."""
        ...

    def set_metric_state(self, state: list[np.ndarray]) -> None:
        """Set the state of all metrics."""
        ...

    def reset_metrics(self) -> None:
        """Reset the state of all metrics."""
        ...

    def get_fixed(self) -> list[np.ndarray]:
        """Return the values of counters and random number generators."""
        ...

    def set_fixed(self, values: list[np.ndarray]) -> None:
        """Set the values of counters and random number generators."""
        ...


MEANS = ("sum_over_batch_size", "mean", "auto")
"""Reductions whose value over two batches is the mean of both values, weighted by examples."""


def check_gradient_merging(model: keras.Model) -> None:
    """Refuse a model whose gradient over a batch is not the mean of the gradients over its parts.

    This checks the model without any data. `Replica.check_gradient_merging` compares
    values of the loss.

    Args:
        model: A compiled `keras.Model`.

    Raises:
        ValueError: If the model overrides `train_step`, or a loss has another reduction than
            the mean over the batch.
    """
    import keras

    if type(model).train_step is not keras.Model.train_step:
        raise not_merged(
            f"{type(model).__name__} overrides `train_step`, which applies its gradient itself"
        )
    for loss in leaves(model.loss):
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in MEANS:
            name = getattr(loss, "name", loss)
            raise not_merged(f"the loss {name!r} has reduction={reduction!r} instead of a mean")


def not_merged(reason: str) -> ValueError:
    """Return the error for a model whose gradients cannot be merged."""
    return ValueError(
        'mode="synchronous" with frequency="batch" merges gradients into the gradient of one '
        f"large batch, which is not exact for this model: {reason}. "
        'Use frequency="epoch", or a number of batches.'
    )


def check_loss_is_mean(replica: Evaluated, window: Window, batch_size: int) -> None:
    """Check that the loss of two batches together is the mean of their losses.

    Raises:
        ValueError: If they differ.
    """
    first, second, both = two_batches(window, batch_size)
    sizes = [first.num_examples, second.num_examples]
    with kept_fixed(replica), kept_metrics(replica):
        whole, again = replica.loss(both), replica.loss(both)
        mean = np.average([replica.loss(first), replica.loss(second)], weights=sizes)
    if not np.isclose(whole, again, rtol=1e-5):
        return  # The loss is random even without training, so that a difference proves nothing.
    if np.isfinite(whole) and not np.isclose(whole, mean, rtol=1e-3, atol=1e-6):
        raise not_merged(
            f"the loss of {sizes[0]} + {sizes[1]} examples is {whole:.6g}, but the mean of both "
            f"losses is {mean:.6g}, as with masked sequences or a sum over the batch"
        )


def check_metrics_are_sums(replica: Evaluated, window: Window, batch_size: int) -> None:
    """Check that the metric state after two batches is the sum of the states after each.

    Raises:
        ValueError: If a metric's state differs or is not zero after a reset. The message
            names the metric.
    """
    first, second, both = two_batches(window, batch_size)
    size = first.num_examples  # Evaluating `both` then uses the same two batches.
    with kept_metrics(replica):
        with kept_fixed(replica):
            parts = [states_after(replica, w, size) for w in (first, second)]
        # Start from the same random state as the two parts, which were evaluated in sequence.
        wholes = []
        for _ in range(2):
            with kept_fixed(replica):
                wholes.append(states_after(replica, both, size))
        replica.reset_metrics()
        begin = replica.metric_state()
    if not all(map(close, *wholes)):
        return  # Evaluation itself is random, so that a difference proves nothing.
    rows = zip(metric_names(replica.model.metrics), begin, *parts, wholes[0], strict=True)
    for name, zero, one, other, whole in rows:
        if np.any(zero) or not close(one + other, whole):
            raise ValueError(
                f"The metric {name!r} cannot be evaluated on Spark: its state over two batches is "
                "not the sum of the states over each, so the states of several workers cannot be "
                "merged. Make its `update_state` add to variables that are zero after a reset."
            )


def close(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two states are equal up to rounding."""
    return np.allclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True)


@contextmanager
def kept_fixed(replica: Evaluated) -> Iterator[None]:
    """Restore counters, generators and the loss's own variables at the end of the block."""
    fixed, own = replica.get_fixed(), compiled_variables(replica.model)
    values = values_of(own)
    try:
        yield
    finally:
        replica.set_fixed(fixed)
        assign_all(own, values, "values")


@contextmanager
def kept_metrics(replica: Evaluated) -> Iterator[None]:
    """Restore the state of the metrics at the end of the block.

    Computing a loss adds to the metrics, too: Keras tracks the losses of several outputs there.
    """
    kept = replica.metric_state()
    try:
        yield
    finally:
        replica.reset_metrics()
        if len(kept) == len(replica.metric_state()):  # Variables may have been created.
            replica.set_metric_state(kept)


def states_after(replica: Evaluated, window: Window, batch_size: int) -> list[np.ndarray]:
    """Return the metric state after evaluating one window only."""
    replica.reset_metrics()
    replica.evaluate(window, batch_size)
    return replica.metric_state()


def metric_names(metrics: Iterable[Any]) -> list[str]:
    """Return the name of each metric variable's metric."""
    names: list[str] = []
    for metric in metrics:
        inner = metric_names(getattr(metric, "metrics", ()))
        own = len(metric.variables) - len(inner)
        names += [metric.name] * own + inner
    return names


def has_custom_metric(metrics: Iterable[Any]) -> bool:
    """Whether a metric, or a metric inside it, is of a class outside Keras."""
    return any(
        not type(metric).__module__.startswith("keras.")
        or has_custom_metric(getattr(metric, "metrics", ()))
        for metric in metrics
    )


def two_batches(window: Window, batch_size: int) -> tuple[Window, Window, Window]:
    """Return two batches of a window, and both together. A single row is used twice."""
    order = np.arange(window.num_examples) if window.order is None else window.order
    rows = order[: 2 * batch_size]
    if len(rows) == 1:
        rows = np.repeat(rows, 2)
    half = -(-len(rows) // 2)
    return rows_of(window, rows[:half]), rows_of(window, rows[half:]), rows_of(window, rows)


def rows_of(window: Window, rows: np.ndarray) -> Window:
    """Return a window of the given rows."""
    return replace(
        window,
        x=[a[rows] for a in window.x],
        y=[a[rows] for a in window.y],
        sample_weight=[a[rows] for a in window.sample_weight],
        order=None,
        key=None,
    )


def check_model(model: Any) -> None:
    """Refuse a model that cannot become a replica.

    Raises:
        ValueError: If the model is not compiled, not built or stateful.
        TypeError: If it is not a Keras model.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise invalid_type("model", "a compiled `keras.Model`", model)
    if not model.compiled or getattr(model, "optimizer", None) is None:
        raise invalid(
            "model",
            "compiled: call `model.compile(...)` first",
            Described(f"the model {model.name!r}"),
        )
    if not model.built:
        rule = "built: give it a `keras.Input`, or call it on one example"
        raise invalid("model", rule, Described(f"the model {model.name!r}"))
    for layer in custom.reachable(model):
        if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional) and layer.stateful:
            rule = "free of stateful layers, which carry state from one batch to the next"
            raise invalid("model", rule, Described(f"{layer.name} with stateful=True"))


def check_text_inputs(inputs: InputSpec, backend: str) -> None:
    """Refuse inputs of text on a backend whose tensors have numbers only.

    Args:
        inputs: `InputSpec` of a model.
        backend: String, the Keras backend.

    Raises:
        ValueError: If an input is text, and the backend is not TensorFlow.
    """
    texts = [array.name for array in inputs.inputs if array.dtype == TEXT]
    if texts and backend != "tensorflow":
        rule = (
            f"a model of numbers with the Keras backend {backend!r}, which has no tensors of text: "
            "pass the layers that take text, such as `TextVectorization`, as `preprocess`, or use "
            "the backend 'tensorflow'"
        )
        raise invalid("model", rule, Described(f"text in the inputs {texts}"))
