"""Fixtures of the tests on a local Spark."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def grammar():
    """The module `model_grammar`, as a module of a user's project that workers do not have."""
    spec = importlib.util.spec_from_file_location(
        "model_grammar", Path(__file__).with_name("model_grammar.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_grammar"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["model_grammar"]
