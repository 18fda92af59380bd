"""What a classifier's output means, by its loss, its activation and its Params."""

import keras
import pytest

from kspark.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasRegressor,
)
from kspark.ml.scoring import classifier_facts


def losses(**arguments):
    return keras.losses.BinaryCrossentropy(**arguments)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "kind", "classes", "logits"),
    [
        (1, "sigmoid", "binary_crossentropy", "binary", 2, False),
        (1, None, losses(from_logits=True), "binary", 2, True),
        (3, "softmax", "categorical_crossentropy", "multiclass", 3, False),
        (3, "softmax", "sparse_categorical_crossentropy", "multiclass", 3, False),
        (
            3,
            None,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "multiclass",
            3,
            True,
        ),
        (3, "sigmoid", "binary_crossentropy", "multilabel", 3, False),
        (3, None, losses(from_logits=True), "multilabel", 3, True),
        (2, "softmax", "mse", "multiclass", 2, False),
        (1, "tanh", "hinge", "binary", 2, True),
        (1, None, keras.losses.SquaredHinge(), "binary", 2, True),
        (1, "sigmoid", "hinge", "binary", 2, False),
        (3, None, "categorical_hinge", "multiclass", 3, True),
        (3, "softmax", "categorical_hinge", "multiclass", 3, False),
        (2, "sigmoid", lambda y, p: keras.ops.mean(y - p, -1), "multilabel", 2, False),
    ],
)
def test_loss_and_output_decide_the_kind_of_classifier(
    make, units, activation, loss, kind, classes, logits
):
    facts = classifier_facts(make(units, activation, loss))
    assert (facts.kind, facts.num_classes, facts.logits) == (kind, classes, logits)


class Stepping(keras.Sequential):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


@pytest.mark.parametrize(("kind", "own"), [(keras.Sequential, False), (Stepping, True)])
def test_a_custom_train_step_is_detected(kind, own):
    model = kind([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    assert classifier_facts(model).own_step is own


def test_explicit_settings_override_the_detected_kind(make):
    facts = classifier_facts(make(3, None, "binary_crossentropy"), "multiclass", True)
    assert (facts.kind, facts.logits) == ("multiclass", True)
    model = KerasClassificationModel(make(3, None, "mse"), classification="multilabel")
    assert model._facts().kind == "multilabel"
    assert model.numClasses == 3


@pytest.mark.parametrize(("units", "kind"), [(1, "multiclass"), (2, "binary")])
def test_an_impossible_classification_is_refused(make, units, kind):
    with pytest.raises(ValueError, match="`classification` must be"):
        KerasClassifier(make(units), classification=kind)


def test_the_activation_decides_the_kind_of_a_model_without_a_loss():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, "sigmoid")(inputs))
    assert classifier_facts(model).kind == "multilabel"


def sequence_model():
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("stage", [KerasClassifier, KerasRegressor])
def test_unsupported_output_shapes_are_refused(stage):
    with pytest.raises(ValueError, match="one output, a number or a vector of fixed length"):
        stage(sequence_model())
    assert KerasEstimator(sequence_model()).getModel() is not None


def test_thresholds_must_be_one_per_class(make):
    model = KerasClassificationModel(make(3), thresholds=[0.5, 0.5])
    with pytest.raises(ValueError, match="`thresholds` must be 3 numbers, one per class"):
        model._scores()
