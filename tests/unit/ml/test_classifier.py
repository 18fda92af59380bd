"""A fitted classifier knows what its outputs mean, also without its loss."""

from __future__ import annotations

import json

import keras
import pytest

from kspark.ml import KerasClassificationModel
from kspark.ml.carried import CarriedModel


def metadata_of(stage):
    return json.loads(json.dumps(stage.extra_metadata()))


def loaded_without_loss(make, stage, units, activation):
    """The stage as it is loaded where its loss is not known."""
    compiled = make(units, activation)
    made = keras.Model(compiled.inputs, compiled.outputs[0])
    assert not made.compiled
    loaded = stage._copyValues(KerasClassificationModel())
    loaded.carried = CarriedModel(made)
    loaded.not_compiled = ValueError("its loss was not found")
    loaded.take_metadata(metadata_of(stage))
    return loaded


def logits_loss(name):
    return getattr(keras.losses, name)(from_logits=True)


CASES = {
    "logits of classes": (3, None, logits_loss("SparseCategoricalCrossentropy"), {}),
    "logit of two classes": (1, None, logits_loss("BinaryCrossentropy"), {}),
    "several labels": (3, None, logits_loss("BinaryCrossentropy"), {}),
    "probabilities": (3, "softmax", "categorical_crossentropy", {}),
    "margins": (1, "tanh", "hinge", {}),
    "labels with probabilities": (3, "sigmoid", "binary_crossentropy", {}),
    "chosen kind": (3, None, "mse", {"classification": "multilabel"}),
    "chosen logits": (3, None, "mse", {"fromLogits": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_meaning_of_the_outputs_is_kept_without_the_loss(make, case):
    units, activation, loss, params = CASES[case]
    stage = KerasClassificationModel(make(units, activation, loss), **params)
    loaded = loaded_without_loss(make, stage, units, activation)
    before, after = stage._facts(), loaded._facts()
    assert (after.kind, after.num_classes, after.logits) == (
        *(before.kind, before.num_classes, before.logits),
    )
    assert metadata_of(loaded) == metadata_of(stage)


def test_params_that_are_set_after_loading_take_effect(make):
    stage = KerasClassificationModel(make(3, None, logits_loss("BinaryCrossentropy")))
    loaded = loaded_without_loss(make, stage, 3, None)
    loaded.setParams(classification="multiclass", fromLogits=False)
    assert (loaded._facts().kind, loaded._facts().logits) == ("multiclass", False)


def test_a_model_that_is_compiled_again_has_the_meaning_of_its_new_loss(make):
    stage = KerasClassificationModel(make(3, None, logits_loss("BinaryCrossentropy")))
    loaded = loaded_without_loss(make, stage, 3, None)
    loaded.kerasModel.compile("sgd", "sparse_categorical_crossentropy")
    assert (loaded._facts().kind, loaded._facts().logits) == ("multiclass", False)


def test_a_stage_of_version_0_1_needs_its_loss(make):
    stage = KerasClassificationModel(make(3, None, logits_loss("BinaryCrossentropy")))
    saved = {"summary": None}
    stage.take_metadata(saved)
    stage.not_compiled = ValueError("its loss was not found")
    with pytest.raises(ValueError, match="kspark 0.1 saved needs its loss.*its loss was not found"):
        stage.take_metadata(saved)
