"""Convert a model's outputs to the columns of a DataFrame, in the task that predicts.

All functions use NumPy on whole batches, and do not loop over rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from kspark.adapters.slices import vector_array

BINARY = "binary"
MULTICLASS = "multiclass"
MULTILABEL = "multilabel"

LEAST = 1e-15
"""Lower bound of probabilities in a logarithm. The upper bound is 1 minus this."""


class Scores(Protocol):
    """Converts outputs to the new columns of a DataFrame."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """Return one Arrow column per new column, for the rows of the outputs."""
        ...


@dataclass(frozen=True)
class Values:
    """Every output unchanged: a double or text, or (nested) arrays of them."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`."""
        return [arrow_array(values) for values in outputs]


@dataclass(frozen=True)
class Activations:
    """A single output as flat vectors of Spark ML."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`."""
        return [vector_array(as_matrix(outputs[0]))]


@dataclass(frozen=True)
class Probabilities:
    """A single output as arrays of doubles, also with one number per row."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`."""
        matrix = as_matrix(outputs[0])
        return [nested(matrix.reshape(-1), matrix.shape[1:])]


@dataclass(frozen=True)
class ClassScores:
    """The columns of Spark's classifiers: raw prediction, probability, prediction.

    Attributes:
        kind: String, `"binary"` (one number per row, for class 1), `"multiclass"` (one number per
            class, exactly one class is correct) or `"multilabel"` (one number per label, any
            number of labels is correct).
        logits: Boolean, whether the model's outputs are logits or margins, and not probabilities.
            Defaults to `False`.
        thresholds: Tuple of one number per class or label. The predicted class has the largest
            ratio of probability to threshold. A label is predicted if its probability exceeds its
            threshold. Defaults to `None`: the most probable class, or 0.5 for labels.
        raw: Boolean, whether to add the column of raw predictions. Defaults to `True`.
        probability: Boolean, whether to add the column of probabilities. Defaults to `True`.
        prediction: Boolean, whether to add the column of predictions. Defaults to `True`.
    """

    kind: str
    logits: bool = False
    thresholds: tuple[float, ...] | None = None
    raw: bool = True
    probability: bool = True
    prediction: bool = True

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """Return the selected columns in the order raw prediction, probability, prediction."""
        matrix = as_matrix(outputs[0])
        probability = self.probabilities(matrix)
        found = []
        if self.raw:
            found.append(vector_array(self.margins(matrix, probability)))
        if self.probability:
            found.append(vector_array(probability))
        if self.prediction:
            found.append(self.predictions(probability))
        return found

    def probabilities(self, matrix: np.ndarray) -> np.ndarray:
        """Return the probabilities, one column per class or label."""
        if not self.logits:
            scores = matrix
        elif self.kind == MULTICLASS:
            scores = softmax(matrix)
        else:
            scores = sigmoid(matrix)
        return np.concatenate([1.0 - scores, scores], axis=1) if self.kind == BINARY else scores

    def margins(self, matrix: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Return the logits, or the logarithms of a multi-class model's probabilities."""
        if self.kind == MULTICLASS:
            return matrix if self.logits else np.log(np.maximum(probability, LEAST))
        logits = matrix if self.logits else logit(matrix)
        return np.concatenate([-logits, logits], axis=1) if self.kind == BINARY else logits

    def predictions(self, probability: np.ndarray) -> pa.Array:
        """Return the predicted class as a double, or the labels as an array of doubles."""
        if self.kind == MULTILABEL:
            limits = 0.5 if self.thresholds is None else np.asarray(self.thresholds)
            return chosen_labels(probability > limits)
        if self.thresholds is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = probability / np.asarray(self.thresholds)
            # As in Spark, a threshold of 0 selects its class, unless the probability is also 0.
            probability = np.where(np.isnan(ratio), -np.inf, ratio)
        return pa.array(probability.argmax(axis=1).astype(np.float64))


def as_matrix(values: np.ndarray) -> np.ndarray:
    """Return one row of float64 per example, for examples of any shape."""
    return values.reshape(len(values), -1).astype(np.float64)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each logit."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of rows of logits. Each row sums to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def logit(probability: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities, which are finite for 0 and 1."""
    inner = np.clip(probability, LEAST, 1.0 - LEAST)
    return np.log(inner) - np.log1p(-inner)


def chosen_labels(chosen: np.ndarray) -> pa.ListArray:
    """Return, per row, the numbers of the columns that are true."""
    ends = np.concatenate([[0], chosen.sum(axis=1).cumsum()]).astype(np.int32)
    labels = np.nonzero(chosen)[1].astype(np.float64)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(labels))


def arrow_array(values: np.ndarray) -> pa.Array:
    """Return one value per row: a double or text if it is single, else (nested) lists."""
    is_text = values.dtype.kind in "OSU"
    values = np.ascontiguousarray(values, None if is_text else np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    flat = values.reshape(-1)
    return nested(text_array(flat) if is_text else flat, values.shape[1:])


def text_array(values: np.ndarray) -> pa.Array:
    """Convert a vector of text, which TensorFlow returns as UTF-8 bytes, to an Arrow array."""
    texts = (v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values.tolist())
    return pa.array(texts, pa.string())


def nested(flat: np.ndarray | pa.Array, shape: tuple[int, ...]) -> pa.Array:
    """Divide consecutive values into values of a shape: (nested) lists, or single values."""
    array = flat if isinstance(flat, pa.Array) else pa.array(flat)
    for length in reversed(shape):
        offsets = np.arange(0, len(array) + 1, length, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
