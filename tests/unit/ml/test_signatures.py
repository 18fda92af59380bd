"""Constructors list the Params of a stage: names, types, defaults and descriptions."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest

from kspark.ml import (
    ElephasEstimator,
    ElephasTransformer,
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
)
from kspark.ml.signatures import type_text

FIXTURES = Path(__file__).parents[2] / "fixtures"
STAGES = [
    ElephasEstimator,
    ElephasTransformer,
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
]
OTHERS = {"model", "customObjects", "weights", "model_type", "history"}
"""Arguments of constructors that are not Params."""


def arguments(stage):
    found = inspect.signature(stage).parameters
    return {name: found[name] for name in found if name not in OTHERS}


@pytest.mark.parametrize("stage", STAGES)
def test_a_constructor_lists_every_param_with_its_default(stage):
    made = stage()
    defaults = {p.name: made.value_of(p.name) for p in made.params}
    if stage is ElephasTransformer:
        defaults["outputCol"] = None  # It has the uid of the stage.
    found = arguments(stage)
    assert {name: p.default for name, p in found.items()} == defaults
    assert {p.kind for p in found.values()} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("stage", STAGES)
def test_a_constructor_takes_what_it_lists(stage):
    given = {name: p.default for name, p in arguments(stage).items()}
    made = stage(**given)
    assert {name: made.value_of(name) for name in given if given[name] is not None} == {
        name: value for name, value in given.items() if value is not None
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_docstring_describes_every_param(stage):
    text = " ".join(inspect.getdoc(stage).split())
    for param in stage().params:
        kind, default = type_text(param.kind), arguments(stage)[param.name].default
        shown = f'"{default}"' if isinstance(default, str) else repr(default)
        assert f"{param.name}: {kind}, {param.doc} Defaults to `{shown}`." in text
    assert "**params" not in text


def test_types_are_those_of_the_settings_and_of_the_params():
    found = {name: p.annotation for name, p in arguments(KerasClassifier).items()}
    assert (found["epochs"], found["frequency"], found["numWorkers"]) == (
        int,
        str | int,
        int | None,
    )
    assert (found["validationSplit"], found["shuffle"], found["compression"]) == (float, bool, Any)
    assert (found["scaleLr"], found["fromLogits"]) == (str | None, bool | None)


def test_setters_have_the_type_of_their_param():
    assert inspect.signature(KerasClassifier.setEpochs).parameters["value"].annotation is int
    assert inspect.signature(ElephasEstimator.set_epochs).parameters["epochs"].annotation is int


def test_a_subclass_has_the_signature_of_its_own_constructor():
    class Tuned(KerasClassifier):
        """A classifier.

        Args:
            width: Integer.
            **params: Params by name.
        """

        def __init__(self, width=3, **params):
            super().__init__(**params)

    class Fixed(KerasModel):
        def __init__(self, width):
            super().__init__()

    names = list(inspect.signature(Tuned).parameters)
    assert names[0] == "width"
    assert names[1:] == list(arguments(KerasClassifier))
    assert "epochs: int, passes over the data. Defaults to `1`." in Tuned.__doc__
    assert list(inspect.signature(Fixed).parameters) == ["width"]
    assert Fixed.__doc__ is None


def test_types_for_type_checkers_are_those_of_the_params():
    generator = runpy.run_path(str(FIXTURES / "generate_accessors.py"))
    assert generator["FILE"].read_text(encoding="utf-8") == generator["stub"]()
