"""Values of Params that are not saved with a stage."""

import json

import keras
import pytest
from pyspark.ml.tuning import ParamGridBuilder

from kspark.ml import ElephasEstimator, KerasEstimator


def make():
    return [keras.callbacks.EarlyStopping()]


@pytest.mark.parametrize("value", [make(), make])
def test_callbacks_in_a_grid_are_used_unchanged_but_cannot_be_saved(value, tmp_path):
    stage = KerasEstimator()
    (first,) = ParamGridBuilder().addGrid(stage.callbacks, [value]).build()
    kept = stage.copy(first).getCallbacks()
    assert kept == value
    assert hash(stage.setCallbacks(make).getCallbacks()) == hash(make)
    text = (
        "`callbacks` must be left out of a grid that is saved.*Received: callbacks=.*(make|Early)"
    )
    with pytest.raises(ValueError, match=text):
        kept.save(str(tmp_path))


def test_a_function_makes_callbacks_for_every_fit():
    maker = KerasEstimator(callbacks=make).setCallbacks(
        KerasEstimator(callbacks=make).getCallbacks()
    )
    first, second = maker.getCallbacks()(), maker.getCallbacks()()
    assert type(first[0]) is keras.callbacks.EarlyStopping
    assert first[0] is not second[0]
    assert maker.getCallbacks().function is make


def test_custom_objects_in_a_grid_cannot_be_saved(tmp_path):
    kept = ElephasEstimator(custom_objects={"make": make}).get_custom_objects()
    assert kept == {"make": make}
    with pytest.raises(ValueError, match="`custom_objects` must be left out of a grid"):
        kept.save(str(tmp_path))
    assert json.dumps(ElephasEstimator().get_custom_objects()) == "{}"
