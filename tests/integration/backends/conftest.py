"""Run these tests on one of Keras' backends: `pytest tests/integration/backends --backend jax`."""

import os
import sys


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        choices=["tensorflow", "jax", "torch"],
        help="Keras' backend. Defaults to the one that Keras takes by itself.",
    )


def pytest_configure(config):
    backend = config.getoption("backend", None)
    if backend is not None:
        assert "keras" not in sys.modules, "Keras reads its backend when it is first imported."
        os.environ["KERAS_BACKEND"] = backend
