"""Steps that fail on the first row are refused with what they got, without Spark."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.adapters import Columns
from kspark.replica.steps import Step
from kspark.spark_model.preprocessing import RawRows


def failing(batch):
    return batch["image"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            lambda batch: batch["image"],
            r"a dictionary of arrays with the keys \['x'\]. Received: a lambda, which raised "
            "KeyError: 'image'. It was called with two copies of the first row$",
        ),
        (failing, ".* Received: the function '.*failing', which raised KeyError"),
        (
            keras.Sequential([keras.Input((9,))], name="nine"),
            "the array 'x'. Received: Seq.* 'nine'",
        ),
    ],
)
def test_a_step_that_fails_is_shown_with_what_it_gets(step, words):
    rows = RawRows(("x",), Columns(), [np.zeros((1, 4), "float32")])
    with pytest.raises(ValueError, match=f"(?s)^`preprocess` must take {words}") as error:
        rows.first_inputs(Step.of("preprocess", step))
    assert "\x1b" not in str(error.value)
