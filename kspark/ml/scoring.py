"""Find the meaning of a classifier's outputs, from its Params, its loss and its output layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kspark.errors import Described, invalid
from kspark.replica.labels import BINARY as BINARY_LOSSES
from kspark.replica.labels import loss_name, loss_of, output_shapes, reads_labels
from kspark.replica.outputs import text_outputs
from kspark.replica.signature import output_names
from kspark.worker.scores import BINARY, MULTICLASS, MULTILABEL

MARGINS = ("hinge", "squared_hinge", "categorical_hinge")
"""Losses whose outputs are margins, on which 0 divides the classes, as on logits."""


@dataclass(frozen=True)
class ClassifierFacts:
    """The meaning of a classifier's only output.

    Attributes:
        kind: String, `"binary"`, `"multiclass"` or `"multilabel"`.
        num_classes: Integer, number of classes or labels.
        logits: Boolean, whether the outputs are logits, or margins of a hinge loss.
        loss: String, name of Keras' loss, or `""`.
        own_step: Boolean, whether the model's own train step reads the labels.
    """

    kind: str
    num_classes: int
    logits: bool
    loss: str
    own_step: bool = False


def classifier_facts(
    model: keras.Model, kind: str = "auto", logits: bool | None = None
) -> ClassifierFacts:
    """Find the meaning of a model's output.

    Args:
        model: `keras.Model`.
        kind: String, set by the user, or `"auto"` to infer it. Defaults to `"auto"`.
        logits: Boolean, set by the user, or `None` to infer it. Defaults to `None`.

    Raises:
        ValueError: If the model has several outputs, or `kind` does not fit its output.
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
    """Return the number of values per row in a model's only output.

    Raises:
        ValueError: If there are several outputs, or the output is text, or is not a vector of
            known length.
    """
    names, _ = output_names(model)
    shapes = [output_shapes(model, names).get(n) for n in names]
    rule = "a model with one output, a number or a vector of fixed length per row"
    shape = shapes[0]
    if len(shapes) != 1 or shape is None or len(shape) > 1 or None in shape:
        raise invalid(
            "model", f"{rule} (or use `KerasEstimator`)", dict(zip(names, shapes, strict=True))
        )
    if text_outputs(model):
        raise invalid(
            "model",
            "a model of numbers (or use `KerasModel` for text)",
            Described(f"the model {model.name!r}"),
        )
    return int(shape[0]) if shape else 1


def compiled_loss(model: keras.Model) -> Any:
    """Return the loss of a model with one output, or `None` if it is not compiled."""
    return loss_of(model, output_names(model)[0][0]) if model.compiled else None


def takes_logits(loss: Any) -> bool:
    """Whether a loss is configured with `from_logits=True`."""
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    inner = config.get("fn_kwargs", {})
    return bool(config.get("from_logits", inner.get("from_logits", False)))


def gives_margins(loss: str, model: keras.Model) -> bool:
    """Whether a model has a hinge loss, and outputs that are not probabilities."""
    return loss in MARGINS and last_activation(model) not in ("sigmoid", "softmax")


def last_activation(model: keras.Model) -> str:
    """Return the name of the last layer's activation, or `""`."""
    layers: Sequence[Any] = getattr(model, "layers", [])
    activation = getattr(layers[-1], "activation", None) if layers else None
    return str(getattr(activation, "__name__", ""))


def check_thresholds(thresholds: Sequence[float] | None, facts: ClassifierFacts) -> None:
    """Refuse thresholds that are not one per class."""
    if thresholds is not None and len(thresholds) != facts.num_classes:
        raise invalid("thresholds", f"{facts.num_classes} numbers, one per class", thresholds)
