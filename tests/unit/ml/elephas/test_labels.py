"""Settings with which class numbers would not fit the model are refused without Spark."""

from __future__ import annotations

import keras
import pytest

from kspark.ml.elephas.labels import check_encoding
from kspark.mllib import SparkMLlibModel


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "kl_divergence"])
def test_class_numbers_for_a_loss_of_one_hot_labels_need_categorical(make, loss):
    check_encoding(make(3, loss=loss), loss, True, 3)
    rule = f"`categorical` must be True for the loss '{loss}'.*Received: categorical=False"
    with pytest.raises(ValueError, match=rule):
        check_encoding(make(3, loss=loss), loss, False, 3)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "mean_squared_error"])
def test_one_hot_labels_are_as_long_as_the_output(make, loss):
    check_encoding(make(3, loss=loss), loss, True, 3)
    with pytest.raises(ValueError, match="`nb_classes` must be 3, .*Received: nb_classes=10"):
        check_encoding(make(3, loss=loss), loss, True, 10)


def test_a_model_of_one_output_takes_no_one_hot_labels(make):
    check_encoding(make(1, None, "mean_squared_error"), "mean_squared_error", False, 10)
    with pytest.raises(ValueError, match="`categorical` must be False for a model of one output"):
        check_encoding(make(1, None, "mean_squared_error"), "mean_squared_error", True, 10)


def test_losses_of_class_numbers_and_own_losses_take_any_setting(make):
    for loss in ("sparse_categorical_crossentropy", "", "circle"):
        for categorical in (True, False):
            check_encoding(make(3), loss, categorical, 10)


def test_an_mllib_model_names_categorical_for_labels_that_it_should_encode():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    with pytest.raises(ValueError, match="`categorical` must be True for the loss"):
        SparkMLlibModel(model).fit("points", epochs=1)
