"""The columns of predictions."""

from __future__ import annotations

import keras
import pytest

from kspark.job import output_fields

layers = keras.layers
X = keras.Input((3,))


def columns(model):
    return {f.name: f.dataType.simpleString() for f in output_fields(model, "p")}


def test_one_output_has_the_name_of_the_column():
    assert columns(keras.Model(X, layers.Dense(1)(X))) == {"p": "double"}
    assert columns(keras.Model(X, layers.Dense(2)(X))) == {"p": "array<double>"}


def test_outputs_of_a_shared_layer_have_columns_of_their_own():
    shared, other = layers.Dense(2, name="dense"), keras.Input((3,))
    model = keras.Model([X, other], [shared(X), shared(other), layers.Dense(1, name="dense_1")(X)])
    assert list(columns(model)) == ["p_dense", "p_dense_2", "p_dense_1"]


@pytest.mark.parametrize("as_dictionary", [True, False])
def test_names_that_differ_in_case_get_a_number(as_dictionary):
    outputs = [layers.Dense(1, name="A")(X), layers.Dense(2, name="a")(X)]
    model = keras.Model(X, dict(zip("Aa", outputs, strict=True)) if as_dictionary else outputs)
    assert columns(model) == {"p_A": "double", "p_a_1": "array<double>"}


def test_text_becomes_strings():
    look = layers.StringLookup(vocabulary=["cat"], num_oov_indices=0, invert=True)
    one, pair = keras.Input((), dtype="int32"), keras.Input((2,), dtype="int32")
    assert columns(keras.Model(one, look(one))) == {"p": "string"}
    assert columns(keras.Model(pair, look(pair))) == {"p": "array<string>"}


def test_outputs_of_unknown_shape_are_refused():
    class Own(keras.Model):
        def call(self, x, other):
            return x

    with pytest.raises(ValueError, match="`model` must be"):
        output_fields(Own(), "p")
