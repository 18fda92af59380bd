"""From a model's outputs to the columns that a DataFrame gets, in the task that predicts.

Everything here is NumPy over whole batches; no row is looked at by itself.
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
"""The probability that stands for 0 in a logarithm, and 1 minus which stands for 1."""


class Scores(Protocol):
    """Makes the columns that a DataFrame gets."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """One Arrow column per new column, of the outputs for the same rows."""
        ...


@dataclass(frozen=True)
class Values:
    """Every output as it is: a double, or (nested) arrays of doubles."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`."""
        return [arrow_array(values) for values in outputs]


@dataclass(frozen=True)
class Activations:
    """The one output as flat vectors of Spark ML."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`."""
        return [vector_array(as_matrix(outputs[0]))]


@dataclass(frozen=True)
class Probabilities:
    """The one output as arrays of doubles, also where there is one number per row."""

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`."""
        matrix = as_matrix(outputs[0])
        return [nested(matrix.reshape(-1), matrix.shape[1:])]


@dataclass(frozen=True)
class ClassScores:
    """What Spark's classifiers add: raw prediction, probability, prediction.

    Attributes:
        kind: `"binary"` (one number per row, for class 1), `"multiclass"` (one per
            class, exactly one class is right) or `"multilabel"` (one per label, any
            number of labels is right).
        logits: Boolean, whether the model's output are logits or margins and not probabilities.
        thresholds: Tuple of a number per class or label, or `None`. The predicted
            class has the largest ratio of probability and threshold. A label is
            predicted if its probability exceeds its threshold, 0.5 by default.
        raw: Boolean, whether a column of raw predictions is wanted.
        probability: Boolean, likewise.
        prediction: Boolean, likewise.
    """

    kind: str
    logits: bool = False
    thresholds: tuple[float, ...] | None = None
    raw: bool = True
    probability: bool = True
    prediction: bool = True

    def columns(self, outputs: list[np.ndarray]) -> list[pa.Array]:
        """See `Scores.columns`. The wanted ones of the three, in the order of the attributes."""
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
        """One row of probabilities, one column per class or label."""
        if not self.logits:
            scores = matrix
        elif self.kind == MULTICLASS:
            scores = softmax(matrix)
        else:
            scores = sigmoid(matrix)
        return np.concatenate([1.0 - scores, scores], axis=1) if self.kind == BINARY else scores

    def margins(self, matrix: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Logits; for a multi-class model that gives probabilities, their logarithms."""
        if self.kind == MULTICLASS:
            return matrix if self.logits else np.log(np.maximum(probability, LEAST))
        logits = matrix if self.logits else logit(matrix)
        return np.concatenate([-logits, logits], axis=1) if self.kind == BINARY else logits

    def predictions(self, probability: np.ndarray) -> pa.Array:
        """The class as a double, or the labels as an array of them."""
        if self.kind == MULTILABEL:
            limits = 0.5 if self.thresholds is None else np.asarray(self.thresholds)
            return chosen_labels(probability > limits)
        if self.thresholds is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = probability / np.asarray(self.thresholds)
            # As in Spark: a threshold of 0 chooses its class, unless the probability is 0, too.
            probability = np.where(np.isnan(ratio), -np.inf, ratio)
        return pa.array(probability.argmax(axis=1).astype(np.float64))


def as_matrix(values: np.ndarray) -> np.ndarray:
    """One row of float64 per example, whatever shape the examples have."""
    return values.reshape(len(values), -1).astype(np.float64)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, each by itself."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of rows of logits, each row of which sums to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def logit(probability: np.ndarray) -> np.ndarray:
    """The inverse of `sigmoid`, finite for 0 and 1."""
    inner = np.clip(probability, LEAST, 1.0 - LEAST)
    return np.log(inner) - np.log1p(-inner)


def chosen_labels(chosen: np.ndarray) -> pa.ListArray:
    """Per row the numbers of the columns that are true."""
    ends = np.concatenate([[0], chosen.sum(axis=1).cumsum()]).astype(np.int32)
    labels = np.nonzero(chosen)[1].astype(np.float64)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(labels))


def arrow_array(values: np.ndarray) -> pa.Array:
    """One value per row: a double for scalars and vectors of one, else (nested) lists of them."""
    values = np.ascontiguousarray(values, np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return nested(values.reshape(-1), values.shape[1:])


def nested(flat: np.ndarray, shape: tuple[int, ...]) -> pa.Array:
    """Consecutive numbers as values of a shape: (nested) lists, or the numbers themselves."""
    array = pa.array(flat)
    for length in reversed(shape):
        offsets = np.arange(0, len(array) + 1, length, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
