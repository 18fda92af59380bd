"""Outputs of a model as columns; every number here is worked by hand."""

from math import log

import numpy as np
import pyarrow as pa
import pytest

from kspark.worker.scores import Activations, ClassScores, Probabilities, Values, arrow_array

THIRD = 1 / 3


def vectors(column):
    assert column.type.field("type").type == pa.int8()
    return [v["values"] for v in column.to_pylist()]


def scores(kind, outputs, **arguments):
    raw, probability, prediction = ClassScores(kind, **arguments).columns([np.array(outputs, "f4")])
    return vectors(raw), vectors(probability), prediction.to_pylist()


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_probability_per_row_becomes_two():
    raw, probability, prediction = scores("binary", [[0.75], [0.25], [0.5]])
    close(probability, [[0.25, 0.75], [0.75, 0.25], [0.5, 0.5]])
    close(raw, [[-log(3), log(3)], [log(3), -log(3)], [0, 0]])
    assert prediction == [1.0, 0.0, 0.0]


def test_one_logit_per_row_becomes_two_probabilities():
    raw, probability, prediction = scores("binary", [log(3), -log(3)], logits=True)
    close(probability, [[0.25, 0.75], [0.75, 0.25]])
    close(raw, [[-log(3), log(3)], [log(3), -log(3)]])
    assert prediction == [1.0, 0.0]


def test_one_probability_per_class():
    raw, probability, prediction = scores("multiclass", [[0.5, 0.25, 0.25], [0, 0, 1]])
    close(probability, [[0.5, 0.25, 0.25], [0, 0, 1]])
    close(raw, [[log(0.5), log(0.25), log(0.25)], [log(1e-15), log(1e-15), 0]])
    assert prediction == [0.0, 2.0]


def test_one_logit_per_class():
    raw, probability, _ = scores("multiclass", [[log(2), 0, 0], [1000, 1000, 1000]], logits=True)
    close(probability, [[0.5, 0.25, 0.25], [THIRD, THIRD, THIRD]])
    close(raw, [[log(2), 0, 0], [1000, 1000, 1000]])


def test_labels_are_chosen_each_by_itself():
    raw, probability, prediction = scores("multilabel", [[0.75, 0.1, 0.9], [0.5, 0.2, 0.3]])
    close(probability, [[0.75, 0.1, 0.9], [0.5, 0.2, 0.3]])
    close(raw[0][:2], [log(3), -log(9)])
    assert prediction == [[0.0, 2.0], []]


def test_logits_of_labels_become_probabilities():
    _, probability, prediction = scores("multilabel", [[log(3), -800.0]], logits=True)
    close(probability, [[0.75, 0.0]])
    assert prediction == [[0.0]]


def test_thresholds_divide_probabilities():
    outputs = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]
    assert scores("multiclass", outputs, thresholds=(0.9, 0.3, 0.5))[2] == [1.0, 1.0]
    assert scores("multiclass", outputs, thresholds=(0.5, 0.5, 0.0))[2] == [2.0, 2.0]
    assert scores("binary", [[0.4], [0.2]], thresholds=(0.7, 0.3))[2] == [1.0, 0.0]


def test_a_threshold_of_zero_chooses_what_has_any_probability():
    # Spark compares p / t: infinite here, but no number where p is 0, too.
    outputs = [[0.0, 0.3, 0.7], [1e-9, 0.3, 0.7], [0.0, 0.0, 0.0]]
    assert scores("multiclass", outputs, thresholds=(0.0, 0.1, 0.9))[2] == [1.0, 0.0, 1.0]
    assert scores("multiclass", outputs[:1], thresholds=(0.1, 0.0, 0.9))[2] == [1.0]
    assert scores("binary", [[1.0], [0.75]], thresholds=(0.0, 1.0))[2] == [1.0, 0.0]


def test_thresholds_of_labels_are_limits():
    outputs = [[0.6, 0.3], [0.5, 0.2]]
    assert scores("multilabel", outputs, thresholds=(0.55, 0.25))[2] == [[0.0, 1.0], []]


def test_certainty_has_a_finite_logit():
    raw, _, _ = scores("binary", [[1.0], [0.0]])
    assert np.isfinite(raw).all()
    assert raw[0][1] == pytest.approx(-raw[1][1], rel=1e-4)
    assert raw[0][1] > 30


@pytest.mark.parametrize("wanted", ["raw", "probability", "prediction"])
def test_only_wanted_columns_are_made(wanted):
    chosen = {name: name == wanted for name in ("raw", "probability", "prediction")}
    (column,) = ClassScores("binary", **chosen).columns([np.array([[0.25]])])
    expected = {"raw": [-log(1 / 3), log(1 / 3)], "probability": [0.75, 0.25]}
    if wanted == "prediction":
        assert column.to_pylist() == [0.0]
    else:
        close(vectors(column)[0], expected[wanted])


def test_values_keep_their_shapes():
    one, pair, table = Values().columns([np.ones((2, 1)), np.ones((2, 2)), np.ones((2, 1, 2))])
    assert one.to_pylist() == [1.0, 1.0]
    assert pair.to_pylist() == [[1.0, 1.0]] * 2
    assert table.to_pylist() == [[[1.0, 1.0]]] * 2


def test_integers_become_doubles():
    assert arrow_array(np.array([[1], [2]])).type == pa.float64()


def test_activations_are_flat_vectors():
    (column,) = Activations().columns([np.arange(12, dtype="f4").reshape(2, 3, 2)])
    assert vectors(column) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_probabilities_are_arrays_even_of_one():
    (column,) = Probabilities().columns([np.array([[0.25], [0.75]])])
    assert column.to_pylist() == [[0.25], [0.75]]


def test_text_becomes_strings():
    one = np.array([b"cat", "é".encode()], dtype=object)
    single, pairs = Values().columns([one, np.array([[b"a", b"b"], [b"c", b"d"]], dtype=object)])
    assert single.to_pylist() == ["cat", "é"]
    assert pairs.to_pylist() == [["a", "b"], ["c", "d"]]
