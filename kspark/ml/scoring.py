"""What a classifier's outputs mean: told by its Params, else by its loss and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kspark.errors import invalid
from kspark.replica.labels import BINARY as BINARY_LOSSES
from kspark.replica.labels import loss_name, loss_of, output_shapes, reads_labels
from kspark.replica.signature import output_names
from kspark.worker.scores import BINARY, MULTICLASS, MULTILABEL

MARGINS = ("hinge", "squared_hinge", "categorical_hinge")
"""Losses of outputs that are margins: 0 divides the classes, as it does for logits."""


@dataclass(frozen=True)
class ClassifierFacts:
    """What a classifier's one output means.

    Attributes:
        kind: `"binary"`, `"multiclass"` or `"multilabel"`.
        num_classes: Integer, number of classes or labels.
        logits: Boolean, whether the output are logits, or the margins of a hinge loss.
        loss: String, name of Keras' loss, or `""`.
        own_step: Boolean, whether a step of the model's own takes the labels.
    """

    kind: str
    num_classes: int
    logits: bool
    loss: str
    own_step: bool = False


def classifier_facts(
    model: keras.Model, kind: str = "auto", logits: bool | None = None
) -> ClassifierFacts:
    """Find out what a model's output means.

    Args:
        model: `keras.Model`.
        kind: String, what the user says, or `"auto"`.
        logits: Boolean, what the user says, or `None`.

    Raises:
        ValueError: If the model has several outputs, or one that are no classes.
    """
    width = output_width(model)
    loss = compiled_loss(model)
    name = loss_name(loss)
    if kind == "auto":
        kind = MULTICLASS if width > 1 else BINARY
        if width > 1 and (
            name in BINARY_LOSSES or (not name and last_activation(model) == "sigmoid")
        ):
            kind = MULTILABEL
    if (kind == BINARY and width != 1) or (kind == MULTICLASS and width == 1):
        rule = f'"auto" or what goes with an output of {width} numbers per row'
        raise invalid("classification", rule, kind)
    if logits is None:
        logits = takes_logits(loss) or gives_margins(name, model)
    return ClassifierFacts(kind, 2 if kind == BINARY else width, logits, name, reads_labels(model))


def output_width(model: keras.Model) -> int:
    """Numbers per row in a model's only output.

    Raises:
        ValueError: If there are several outputs, or none that is a vector of known length.
    """
    names, _ = output_names(model)
    shapes = [output_shapes(model, names).get(n) for n in names]
    rule = "a model with one output, a number or a vector of fixed length per row"
    shape = shapes[0]
    if len(shapes) != 1 or shape is None or len(shape) > 1 or None in shape:
        raise invalid(
            "model", f"{rule} (or use `KerasEstimator`)", dict(zip(names, shapes, strict=True))
        )
    return int(shape[0]) if shape else 1


def compiled_loss(model: keras.Model) -> Any:
    """The loss that a model of one output was compiled with, or `None`."""
    return loss_of(model, output_names(model)[0][0]) if model.compiled else None


def takes_logits(loss: Any) -> bool:
    """Whether a loss says that it is computed of logits."""
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    inner = config.get("fn_kwargs", {})
    return bool(config.get("from_logits", inner.get("from_logits", False)))


def gives_margins(loss: str, model: keras.Model) -> bool:
    """Whether a loss is of the hinge family, of outputs that are no probabilities."""
    return loss in MARGINS and last_activation(model) not in ("sigmoid", "softmax")


def last_activation(model: keras.Model) -> str:
    """Name of the last layer's activation, or `""`."""
    layers: Sequence[Any] = getattr(model, "layers", [])
    activation = getattr(layers[-1], "activation", None) if layers else None
    return str(getattr(activation, "__name__", ""))


def check_thresholds(thresholds: Sequence[float] | None, facts: ClassifierFacts) -> None:
    """Refuse thresholds of another number than there are classes."""
    if thresholds is not None and len(thresholds) != facts.num_classes:
        raise invalid("thresholds", f"{facts.num_classes} numbers, one per class", thresholds)
