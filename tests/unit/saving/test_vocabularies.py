"""Vocabularies that were set or adapted later are in files and in copies of a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import saving
from kspark.replica.model_spec import ModelSpec
from kspark.saving.uncompiled import load_uncompiled

LETTERS = ["a", "b"]


def model_of(layer, dtype="string"):
    entry = keras.Input((1,), dtype=dtype)
    model = keras.Model(entry, layer(entry))
    model.compile("sgd", "mse")
    return model


def strings(**more):
    return keras.layers.StringLookup(vocabulary=LETTERS, output_mode="multi_hot", **more)


def string_lookup():
    layer = strings()
    model = model_of(layer)
    layer.set_vocabulary(["c", "b"])
    return model, ["a", "b", "c"]


def several_unknown():
    layer = strings(num_oov_indices=2)
    model = model_of(layer)
    layer.set_vocabulary(["c", "b"])
    return model, ["a", "b", "c"]


def masked():
    layer = keras.layers.StringLookup(vocabulary=LETTERS, mask_token="")
    model = model_of(layer)
    layer.set_vocabulary(["", "[UNK]", "c", "b"])
    return model, ["a", "b", "c", ""]


def integer_lookup():
    layer = keras.layers.IntegerLookup(vocabulary=[3, 5], output_mode="multi_hot")
    model = model_of(layer, "int64")
    layer.set_vocabulary([7, 5])
    return model, [3, 5, 7]


def text():
    layer = keras.layers.TextVectorization(vocabulary=LETTERS, output_sequence_length=3)
    model = model_of(layer)
    layer.set_vocabulary(["c", "b"])
    return model, ["a b", "b c c"]


def tf_idf():
    layer = keras.layers.TextVectorization(
        vocabulary=LETTERS, idf_weights=[1.0, 2.0], output_mode="tf_idf"
    )
    model = model_of(layer)
    layer.set_vocabulary(["c", "b"], idf_weights=[0.5, 3.0])
    return model, ["a b", "b c c"]


def adapted_text():
    layer = keras.layers.TextVectorization(output_mode="multi_hot")
    layer.adapt(["a b"])
    model = model_of(layer)
    layer.adapt(["c d"])
    return model, ["a b", "b c c"]


def adapted_bins():
    layer = keras.layers.Discretization(num_bins=2, output_mode="int")
    layer.adapt(np.arange(10.0))
    model = model_of(layer, "float32")
    layer.adapt(np.arange(10.0, 20.0))
    return model, [3.0, 12.0, 17.0]


MODELS = [
    string_lookup,
    several_unknown,
    masked,
    integer_lookup,
    text,
    tf_idf,
    adapted_text,
    adapted_bins,
]


def outputs(model, rows):
    return keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor([[row] for row in rows])))


@pytest.mark.parametrize("make", MODELS)
def test_a_saved_model_has_the_current_vocabulary(make, tmp_path):
    model, rows = make()
    path = str(tmp_path / "model.keras")
    saving.save_model(model, {}, path)
    expected = outputs(model, rows)
    for loaded in (
        saving.load_model(path).model,
        load_uncompiled(path, custom_objects={}).model,
        keras.saving.load_model(path),
    ):
        np.testing.assert_array_equal(outputs(loaded, rows), expected)


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_has_the_current_vocabulary(make):
    model, rows = make()
    expected = outputs(model, rows)
    np.testing.assert_array_equal(outputs(ModelSpec.of(model).make(), rows), expected)
    np.testing.assert_array_equal(outputs(model, rows), expected)


def test_a_vocabulary_that_changes_again_is_recorded_again():
    model, rows = string_lookup()
    ModelSpec.of(model)
    model.layers[1].set_vocabulary(["a", "c"])
    expected = outputs(model, rows)
    np.testing.assert_array_equal(outputs(ModelSpec.of(model).make(), rows), expected)
