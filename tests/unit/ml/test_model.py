"""Fitted stages that were made without a fit."""

import pytest

from kspark.ml import (
    KerasModel,
)


def test_a_model_without_a_fit_has_no_summary(make):
    model = KerasModel(make())
    assert (model.hasSummary, model.history) == (False, {})
    with pytest.raises(RuntimeError, match="No training summary available for this KerasModel"):
        model.summary  # noqa: B018
