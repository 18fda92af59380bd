"""Check on the driver, before training, that labels fit the loss and the outputs.

For a label out of range, TensorFlow returns a NaN loss on some devices and raises an
error full of op names on others. The label statistics of the spooled shards suffice
to raise an error that names the fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kspark.errors import Described, invalid
from kspark.replica.signature import (
    arranged,
    names_in_keras,
    output_names,
    output_tensors,
    target_names,
)
from kspark.shards import LabelStats, ShardHandle, StoredArray, merge_label_stats

SPARSE = "sparse_categorical_crossentropy"
ONE_HOT = ("categorical_crossentropy", "kl_divergence", "categorical_focal_crossentropy")
BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
NUMBERS = ("circle", "categorical_generalized_cross_entropy")
"""Losses besides `SPARSE` whose labels are one class number per example."""

PER_VALUE = (
    *(SPARSE, *ONE_HOT, *BINARY),
    *("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error"),
    *("mean_squared_logarithmic_error", "huber", "log_cosh", "poisson", "cosine_similarity"),
    *("hinge", "squared_hinge", "categorical_hinge"),
)
"""Losses with one value per example and position, which is the mean over the last axis."""

STEPS = ("train_step", "test_step", "compute_loss")
"""Methods of `keras.Model` that take the labels before the loss does."""


def check_labels(model: keras.Model, handles: Sequence[ShardHandle]) -> None:
    """Check every target's labels and sample weights against its loss and its output.

    Args:
        model: A compiled `keras.Model`.
        handles: Sequence of `ShardHandle`, one per shard; empty shards are ignored.

    Raises:
        ValueError: If labels are missing, not finite, out of range or of the wrong shape, or
            weights are of the wrong shape.
    """
    filled = [h for h in handles if h.num_examples]
    if filled:
        check_facts(model, filled[0].y, merge_label_stats(filled))
        check_weights(model, filled[0].sample_weight)


def check_facts(
    model: keras.Model, stored: Sequence[StoredArray], stats: Sequence[LabelStats | None]
) -> None:
    """Check labels as `check_labels` does, by their statistics, also of rows without a spool.

    Args:
        model: A compiled `keras.Model`.
        stored: Sequence of `StoredArray`, one per target, with the labels' shape and dtype.
        stats: Sequence of `LabelStats`, one per target; `None` for text.

    Raises:
        ValueError: As `check_labels`.
    """
    names, _ = target_names(model)
    if not names:
        return
    if len(stored) != len(names):
        found = Described(f"labels for {len(stored)}")
        raise invalid("y", f"labels for the outputs {names}", found)
    shapes = output_shapes(model, names)
    own_step = reads_labels(model)
    for name, array, fact in zip(names, stored, stats, strict=True):
        if fact is not None:
            loss, output = loss_of(model, name), shapes.get(name)
            check_target(name, loss, array, fact, output)
            if output is not None and not own_step:
                check_shape(name, loss_name(loss), array.shape, output)
        elif array.is_text:
            check_text(model, {name: "text"})


def check_weights(model: keras.Model, stored: Sequence[StoredArray]) -> None:
    """Check that sample weights have one value per example, or per value of the loss.

    Args:
        model: A compiled `keras.Model`.
        stored: Sequence of `StoredArray`: none, one for all targets, or one per target.

    Raises:
        ValueError: If the shape of weights does not fit a loss of Keras. Keras would fail, or
            weight values by the weights of other examples.
    """
    names, _ = target_names(model)
    if not stored or reads_labels(model):
        return
    shapes = output_shapes(model, names)
    per_target = stored if len(stored) == len(names) else [stored[0]] * len(names)
    for name, weights in zip(names, per_target, strict=True):
        kind = loss_name(loss_of(model, name))
        output = shapes.get(name)
        if kind not in PER_VALUE or not output:
            continue
        if not fits_values(weights.shape, output[:-1]):
            shaped = f", or weights of shape {output[:-1]} per example" if output[:-1] else ""
            rule = f"one weight per example{shaped}, for {name!r}"
            found = Described(f"weights of shape {weights.shape} per example")
            raise invalid("sample_weight", rule, found)


def fits_values(weights: tuple[int, ...], values: tuple[Any, ...]) -> bool:
    """Whether Keras multiplies the values of a loss by weights of a shape, both per example."""
    if len(weights) == len(values) + 1 and weights[-1] == 1:
        weights = weights[:-1]
    if len(values) == len(weights) + 1 and values[-1] == 1:
        values = values[:-1]
    pairs = zip(weights, values, strict=False)
    return len(weights) == len(values) and all(w == 1 or v in (None, w) for w, v in pairs)


def check_text(model: keras.Model, found: Mapping[str, str]) -> None:
    """Refuse text as labels of a Keras loss.

    A loss or a step of the user's own may convert text itself.

    Args:
        model: A compiled `keras.Model`.
        found: Mapping from target to a description of where its text was found.

    Raises:
        ValueError: If a target with a Keras loss contains text.
    """
    if reads_labels(model):
        return
    names, _ = target_names(model)
    for name, where in found.items():
        kind = loss_name(loss_of(model, name))
        if kind:
            rule = (
                f"numbers for the loss {kind!r} of {name!r}: convert text to numbers first, a "
                "column with StringIndexer, an array with np.unique(y, return_inverse=True)"
            )
            raise invalid("y", rule, Described(where))


def reads_labels(model: keras.Model) -> bool:
    """Whether the model overrides a method that takes labels, which may change their form."""
    return any(getattr(type(model), n) is not getattr(keras.Model, n) for n in STEPS)


def check_target(
    name: str, loss: Any, labels: StoredArray, stats: LabelStats, output: tuple[Any, ...] | None
) -> None:
    """Check that one target's labels are in the range that its loss and its output require."""
    if not stats.finite:
        raise invalid("y", f"finite, for {name!r}", Described("labels with NaN or infinity"))
    kind = loss_name(loss)
    if kind == SPARSE:
        check_classes(name, loss, labels, stats, output)
    elif kind in BINARY and outside(stats, 0.0, 1.0):
        raise invalid("y", f"from 0 to 1 for the loss {kind!r} of {name!r}", spread(stats))


def check_classes(
    name: str, loss: Any, labels: StoredArray, stats: LabelStats, output: tuple[Any, ...] | None
) -> None:
    """Check that class numbers are whole and less than the number of classes."""
    if getattr(loss, "ignore_class", None) is not None:
        return
    classes = output[-1] if output else None
    rule = f"class numbers from 0 to {'the number of classes' if classes is None else classes - 1}"
    if not stats.integral or outside(stats, 0.0, float("inf") if classes is None else classes - 1):
        raise invalid("y", f"{rule} for the loss {SPARSE!r} of {name!r}", spread(stats))
    if output and labels.shape not in ((*output[:-1],), (*output[:-1], 1)) and fixed(output[:-1]):
        rule = f"of shape {output[:-1]} per example (class numbers, not one-hot) for {name!r}"
        raise invalid("y", rule, per_example(labels.shape))


def check_shape(name: str, kind: str, labels: tuple[int, ...], output: tuple[Any, ...]) -> None:
    """Check that labels have the output's shape, with or without a last axis of length 1.

    One number for several outputs is refused too: Keras would broadcast it to all of
    them. If the output is as long as the batch, Keras would even compare each output
    with the label of another example.
    """
    if kind in (SPARSE, *NUMBERS):
        return
    expected = [output, output[:-1]] if output and output[-1] == 1 else [output]
    if any(matches(labels, shape) for shape in expected):
        return
    if kind in ONE_HOT:
        rule = f"one-hot, of shape {output} per example, for the loss {kind!r} of {name!r}"
        raise invalid("y", f"{rule} (or use {SPARSE!r} for class numbers)", per_example(labels))
    if kind and all(fixed(s) for s in expected) and len(labels) in (0, len(output)):
        raise invalid("y", f"of shape {output} per example for {name!r}", per_example(labels))


def matches(shape: tuple[int, ...], pattern: tuple[Any, ...]) -> bool:
    """Whether a shape matches a pattern in which `None` stands for any length."""
    return len(shape) == len(pattern) and all(
        p is None or s == p for s, p in zip(shape, pattern, strict=True)
    )


def fixed(shape: tuple[Any, ...]) -> bool:
    """Whether all lengths of a shape are known."""
    return all(n is not None for n in shape)


def outside(stats: LabelStats, low: float, high: float) -> bool:
    """Whether any label is below `low` or above `high`."""
    least, most = stats.minimum, stats.maximum
    return (least is not None and least < low) or (most is not None and most > high)


def per_example(shape: tuple[int, ...]) -> Described:
    """Describe the shape of the labels in words."""
    return Described(f"labels of shape {tuple(shape)} per example")


def spread(stats: LabelStats) -> Described:
    """Describe the labels' range in words."""
    kind = "whole numbers" if stats.integral else "numbers"
    if stats.minimum == stats.maximum:
        return Described(f"labels that are all {stats.minimum:g}")
    return Described(f"labels that are {kind} from {stats.minimum:g} to {stats.maximum:g}")


def loss_of(model: keras.Model, name: str) -> Any:
    """Return the loss that a target was compiled with."""
    loss = model.loss
    if not isinstance(loss, Mapping | list | tuple):
        return loss
    position = output_names(model)[0].index(name)
    compiled, _ = names_in_keras(model)
    if isinstance(loss, Mapping):
        return loss.get(compiled[position])
    return loss[position] if len(loss) == len(compiled) else None


def loss_name(loss: Any) -> str:
    """Return the snake-case name of a Keras loss, or `""` for a loss of the user's own."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return ""
    module = str(getattr(loss, "__module__", None) or type(loss).__module__)
    if not (module.startswith("keras.") or type(loss).__module__.startswith("keras.")):
        return ""
    own = getattr(loss, "__name__", None)
    return str(own if own else snake_case(type(loss).__name__))


def snake_case(name: str) -> str:
    """Convert `SparseCategoricalCrossentropy` to `sparse_categorical_crossentropy`."""
    spelled = {"KLDivergence": "kl_divergence"}
    plain = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    return spelled.get(name, plain)


def output_shapes(model: keras.Model, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the shape per example of each target's output, if it is known."""
    try:
        known, _ = output_names(model)
        _, tensors, _ = arranged(output_tensors(model))
    except (ValueError, NotImplementedError, TypeError):  # A subclassed model may not know them.
        return {}
    shapes = {n: tuple(t.shape[1:]) for n, t in zip(known, tensors, strict=True)}
    return {n: shapes[n] for n in names if n in shapes}
