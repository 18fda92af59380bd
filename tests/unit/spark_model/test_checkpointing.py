"""What `fit` refuses about checkpoints before anything starts."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from kspark import SparkModel
from kspark.plan import TrainingPlan
from kspark.spark_model.checkpointing import Checkpointing


def checked(checkpoint=None, resume=False, kept=2, callbacks=(), **settings):
    plan = TrainingPlan.create(**settings)
    return Checkpointing.of(checkpoint, resume, kept, None, plan, callbacks)


def test_a_folder_may_be_a_string_or_a_path():
    assert checked().path is None
    for folder in ("some/folder", Path("some/folder")):
        found = checked(folder, True, 1)
        assert (found.path, found.resume, found.kept) == ("some/folder", True, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"resume": True}, ValueError, "`resume` must be False without `checkpoint`"),
        ({"kept": 3}, ValueError, "`checkpoints_kept` must be 2 without `checkpoint`"),
        ({"checkpoint": "a", "kept": 0}, ValueError, "`checkpoints_kept` must be an integer >= 1"),
        ({"checkpoint": "a", "resume": 1}, TypeError, "`resume` must be True or False"),
        ({"checkpoint": True}, TypeError, "`checkpoint` must be None, or the path or URI"),
        ({"checkpoint": ""}, TypeError, "`checkpoint` must be None, or the path or URI"),
        (
            {"checkpoint": "a", "straggler_timeout": 1.0},
            ValueError,
            "`checkpoint` must be None with `straggler_timeout`",
        ),
        (
            {"checkpoint": "a", "callbacks": [keras.callbacks.SwapEMAWeights()]},
            ValueError,
            "`callbacks` must be free of `SwapEMAWeights`",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        checked(**arguments)


def test_fit_refuses_them_before_it_looks_at_the_data():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`resume` must be False without `checkpoint`"):
        SparkModel(model).fit(object(), resume=True)
