"""Outputs that are text are found, whatever their layer says, and outputs of no rows are made."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica.outputs import outputs_without_rows, text_outputs

layers = keras.layers


class Largest(layers.Layer):
    def call(self, x):
        return keras.ops.argmax(x, axis=-1)


def names_of_classes(**arguments):
    words = {"vocabulary": ["cat", "dog"], "num_oov_indices": 0, "invert": True, **arguments}
    return layers.StringLookup(name="names", **words)


def test_the_inverse_of_a_lookup_is_text():
    x = keras.Input((4,))
    scores = layers.Dense(2, name="scores")(x)
    classes = Largest()(scores)
    model = keras.Model(x, [scores, names_of_classes()(classes)])
    assert text_outputs(model) == {"names"}
    outer = keras.Input((4,))
    assert text_outputs(keras.Model(outer, keras.Model(x, names_of_classes()(classes))(outer)))


@pytest.mark.parametrize("output_mode", ["int", "one_hot"])
def test_a_lookup_of_text_gives_numbers(output_mode):
    words = keras.Input((), dtype="string")
    numbers = layers.StringLookup(vocabulary=["a"], output_mode=output_mode)(words)
    assert text_outputs(keras.Model(words, numbers)) == set()


def test_a_lookup_inside_of_the_model_changes_nothing():
    x = keras.Input((4,))
    names = names_of_classes()(Largest()(x))
    again = layers.StringLookup(vocabulary=["cat", "dog"], output_mode="one_hot")(names)
    assert text_outputs(keras.Model(x, layers.Dense(1)(again))) == set()


def test_outputs_of_no_rows_have_the_shapes_and_dtypes_of_predictions():
    x = keras.Input((4,))
    scores = layers.Dense(2, name="scores")(x)
    model = keras.Model(x, [scores, names_of_classes()(Largest()(scores))])
    empty, found = outputs_without_rows(model), model.predict(np.zeros((3, 4)), verbose=0)
    assert [one.shape for one in empty] == [(0, 2), (0,)]
    assert empty[0].dtype == found[0].dtype and empty[1].dtype == object
    steps = keras.Input((None, 3))
    (unknown,) = outputs_without_rows(keras.Model(steps, layers.Dense(5)(steps)))
    assert unknown.shape == (0, 0, 5)
