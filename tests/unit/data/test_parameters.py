"""Elephas' helpers for weights and models."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import data

LEFT = [np.array([[1.0, 2.0]]), np.array([3.0], np.float32)]
RIGHT = [np.array([[10.0, 20.0]]), np.array([30.0], np.float32)]


def plain(arrays):
    return [array.tolist() for array in arrays]


def test_arithmetic_is_done_array_by_array():
    assert plain(data.add_params(LEFT, RIGHT)) == [[[11.0, 22.0]], [33.0]]
    assert plain(data.subtract_params(LEFT, RIGHT)) == [[[-9.0, -18.0]], [-27.0]]
    assert plain(data.divide_by(LEFT, 2)) == [[[0.5, 1.0]], [1.5]]
    zeros = data.get_neutral(LEFT)
    assert plain(zeros) == [[[0.0, 0.0]], [0.0]]
    assert [array.dtype for array in zeros] == [np.float64, np.float32]
    assert plain(LEFT) == [[[1.0, 2.0]], [3.0]]


@pytest.mark.parametrize("combine", [data.add_params, data.subtract_params])
def test_lists_of_different_lengths_are_refused(combine):
    with pytest.raises(ValueError, match="as many arrays as the 2 of .*Received: .*1 arrays"):
        combine(LEFT, RIGHT[:1])


def twice(x):
    return 2.0 * x


def network(activation):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(("activation", "objects"), [("relu", None), (twice, {"twice": twice})])
def test_a_model_survives_a_round_trip(activation, objects):
    model = network(activation)
    content = data.model_to_dict(model)
    assert list(content) == ["model", "weights"]
    again = data.dict_to_model(content, objects)
    x = np.array([[1.0, -2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_an_invalid_model_dictionary_is_refused(monkeypatch):
    monkeypatch.setattr(twice, "__module__", "elsewhere")
    with pytest.raises(ValueError, match="`custom_objects` must be a dictionary with 'twice'"):
        data.dict_to_model(data.model_to_dict(network(twice)))
    for wrong in ("{}", {"model": "{}"}, 5, None):
        with pytest.raises(TypeError, match="`_dict` must be a dictionary that `model_to_dict`"):
            data.dict_to_model(wrong)


@pytest.mark.parametrize("model", [None, "x"])
def test_a_dictionary_without_a_model_is_refused(model):
    with pytest.raises(ValueError, match="`_dict` must be a dictionary that `model_to_dict` made"):
        data.dict_to_model({"model": model, "weights": []})
