"""Checks of labels against losses and outputs, from the facts of shards alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica.labels import check_facts, check_labels, check_text, check_weights
from kspark.shards import LabelStats, ShardHandle, StoredArray


def model(loss, units=3):
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, name="out")])
    made.compile(loss=loss)
    return made


def facts(labels):
    stored = StoredArray("y0", labels.dtype.name, labels.shape[1:], "y0.bin", labels.nbytes)
    return (stored,), (LabelStats.of(labels),)


def handle(index, labels):
    stored, stats = facts(labels)
    return ShardHandle(index, len(labels), "", "", 0, y=stored, stats=stats)


SPARSE = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("loss", "labels", "words"),
    [
        (SPARSE, np.array([0, 3]), "`y` must be class numbers from 0 to 2.*from 0 to 3"),
        (SPARSE, np.array([0.5, 1]), "class numbers from 0 to 2"),
        (SPARSE, np.eye(3), "not one-hot"),
        (SPARSE, np.array([0, np.nan]), "`y` must be finite.*Received: labels with NaN"),
        (SPARSE, np.array([-1, -1]), "Received: labels that are all -1"),
        ("categorical_crossentropy", np.array([0, 1]), "one-hot"),
        ("mse", np.zeros((2, 4)), r"of shape \(3,\) per example"),
        (
            "mse",
            np.zeros(3),
            r"`y` must be of shape \(3,\) per example.*Received: labels of shape \(\) per",
        ),
        ("categorical_hinge", np.array([0, 1]), r"of shape \(3,\) per example"),
        ("binary_crossentropy", np.array([0, 1]), r"of shape \(3,\) per example"),
    ],
)
def test_labels_that_do_not_fit_the_loss_are_refused(loss, labels, words):
    with pytest.raises(ValueError, match=words):
        check_facts(model(loss), *facts(labels))
    empty = ShardHandle(0, 0, "", "", 0)
    with pytest.raises(ValueError, match=words):
        check_labels(model(loss), [empty, handle(1, labels)])


def test_labels_that_fit_the_loss_are_accepted():
    check_facts(model(SPARSE), *facts(np.array([0, 2])))
    check_facts(model("mse"), *facts(np.zeros((2, 3))))
    check_facts(model(None), (), ())
    check_labels(model(SPARSE), [ShardHandle(0, 0, "", "", 0)])


@pytest.mark.parametrize(
    ("loss", "units"),
    [
        *((SPARSE, 3), (keras.losses.Circle(), 3), (lambda y, predicted: predicted, 3)),
        *(("mse", 1), ("binary_crossentropy", 1), ("hinge", 1)),
    ],
)
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_number_per_row_is_accepted_where_the_loss_takes_one(loss, units, shape):
    check_facts(model(loss, units), *facts(np.array([0, 1]).reshape(shape)))


def test_missing_labels_are_refused():
    with pytest.raises(ValueError, match=r"`y` must be labels for the outputs \['output'\]"):
        check_facts(model("mse"), (), ())


TEXT = StoredArray("y0", "string", (), "y0.arrow", 9)


@pytest.mark.parametrize("loss", ["mse", SPARSE, keras.losses.Hinge()])
def test_text_labels_are_refused_for_losses_of_keras(loss):
    with pytest.raises(ValueError, match="`y` must be numbers for the loss .*StringIndexer"):
        check_facts(model(loss), [TEXT], [None])
    with pytest.raises(ValueError, match=r"Received: text in column 'label'"):
        check_text(model(loss), {"output": "text in column 'label'"})


class Reading(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, keras.ops.zeros((2, 1)), y_pred, sample_weight)


def test_labels_of_custom_losses_are_not_checked():
    check_facts(model(lambda y, predicted: predicted), [TEXT], [None])
    reading = Reading([keras.Input((4,)), keras.layers.Dense(1)])
    reading.compile(loss="mse")
    check_facts(reading, [TEXT], [None])
    wide = Reading([keras.Input((4,)), keras.layers.Dense(3)])
    wide.compile(loss="mse")
    check_facts(wide, *facts(np.zeros(3)))
    check_text(model("mse"), {})


def test_labels_of_all_shards_are_checked_together():
    with pytest.raises(ValueError, match="whole numbers from -1 to 1"):
        check_labels(model(SPARSE), [handle(0, np.array([0, 1])), handle(1, np.array([-1]))])


@pytest.mark.parametrize(
    ("output", "shape", "fits"),
    [
        ((3,), (), True),
        ((3,), (1,), True),
        ((3,), (3,), False),
        ((5, 3), (5,), True),
        ((5, 3), (5, 1), True),
        ((5, 3), (1,), True),
        ((5, 3), (4,), False),
        ((5, 3), (), False),
        ((1, 3), (), True),
    ],
)
def test_weights_are_accepted_where_keras_multiplies_each_value_by_its_own(output, shape, fits):
    x = keras.Input((15,))
    hidden = keras.layers.Dense(int(np.prod(output)))(x)
    model = keras.Model(x, keras.layers.Reshape(output)(hidden))
    model.compile("sgd", "mse")
    data, labels, weights = np.ones((2, 15)), np.ones((2, *output)), np.ones((2, *shape))
    stored = [StoredArray("sample_weight0", "float32", shape, "", 0)]
    if fits:
        check_weights(model, stored)
        model.evaluate(data, labels, sample_weight=weights, verbose=0)
    else:
        with pytest.raises(ValueError, match="`sample_weight` must be one weight per example"):
            check_weights(model, stored)
        with pytest.raises(Exception, match="(?i)shape|dimension|incompatible"):
            model.evaluate(data, labels, sample_weight=weights, verbose=0)
