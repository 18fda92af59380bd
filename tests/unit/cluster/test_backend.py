"""`import kspark` names the backend that is missing, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import kspark
from kspark.cluster import backend
from kspark.errors import BackendError

BLOCKS = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, *more):
    return None if name in {absent} else find(name, *more)

PathFinder.find_spec = staticmethod(find_others)
import kspark
sys.stdout.write("imported " + str("keras" in sys.modules))
"""
"""Imports kspark where some packages are not installed."""


@pytest.fixture
def imported(tmp_path):
    """Imports kspark in a process of its own, and returns what it wrote to stdout and stderr."""

    def run(*absent, **variables):
        clean = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "KERAS_HOME")}
        path = str(Path(kspark.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", BLOCKS.format(absent=absent)],
            env={**clean, "PYTHONPATH": path, "KERAS_HOME": str(tmp_path), **variables},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.stdout, done.stderr

    return run


@pytest.fixture
def of(monkeypatch, tmp_path):
    """Sets what is installed and who names the backend, as if Keras was not imported."""

    def set_up(*installed, variable=None, file=None):
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setattr(backend, "is_installed", lambda name: name in installed)
        monkeypatch.setenv("KERAS_BACKEND", variable or "")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        if file is not None:
            (tmp_path / "keras.json").write_text(file)

    return set_up


def test_without_any_backend_the_error_names_the_three_libraries(imported):
    output, errors = imported(*backend.LIBRARIES)
    assert output == ""
    last = errors.splitlines()[-1]
    assert last.startswith("kspark.errors.BackendError: Keras computes with TensorFlow, JAX or")
    for library in ("tensorflow", "jax", "torch"):
        assert f"`pip install {library}`" in last
    assert "During handling" not in errors
    assert "keras/" not in errors


def test_a_worker_of_spark_learns_its_backend_later(imported):
    output, errors = imported(*backend.LIBRARIES, PYTHON_WORKER_FACTORY_SECRET="secret")
    assert (output, errors) == ("imported False", "")


def test_where_the_backend_is_installed_neither_it_nor_keras_is_imported(imported):
    assert imported() == ("imported False", "")


def test_a_backend_that_the_variable_names_must_be_installed(of):
    of("jax", "torch", variable="tensorflow")
    with pytest.raises(BackendError) as caught:
        backend.check_backend()
    assert str(caught.value) == (
        'The backend of Keras is "tensorflow", from the environment variable KERAS_BACKEND, but '
        "TensorFlow is not installed. Set the environment variable KERAS_BACKEND=jax or "
        "KERAS_BACKEND=torch before Python starts, or run `pip install tensorflow`."
    )


def test_a_backend_that_the_file_or_the_default_of_keras_names_must_be_installed(of, tmp_path):
    of("jax")
    with pytest.raises(BackendError, match='is "tensorflow", from the default of Keras, but'):
        backend.check_backend()
    of("jax", file='{"backend": "torch"}')
    with pytest.raises(BackendError, match=r'is "torch", from the file .*keras.json, but PyTorch'):
        backend.check_backend()
    of("jax", file='{"backend": "jax"}')
    backend.check_backend()


def test_other_backends_of_keras_are_refused(of):
    of("jax", variable="numpy")
    rule = '`KERAS_BACKEND` must be one of "tensorflow", "jax", "torch".'
    with pytest.raises(BackendError, match=rf"^{rule} Received: KERAS_BACKEND='numpy'"):
        backend.check_backend()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"backend": "jax"}', "jax"),
        ('{"floatx": "float32"}', "tensorflow"),
        ("[]", "tensorflow"),
        ("not JSON", "tensorflow"),
        (None, "tensorflow"),
    ],
)
def test_the_backend_is_that_of_the_settings_of_keras(text, expected, of, monkeypatch):
    of(file=text)
    assert backend.keras_backend() == expected
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend.keras_backend() == "torch"
    module = types.SimpleNamespace(config=types.SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", module)
    assert backend.keras_backend() == "jax"


@pytest.mark.parametrize(("writable", "folder"), [(True, "HOME"), (False, "/tmp")])
def test_the_settings_are_where_keras_looks_for_them(writable, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    assert backend.keras_home() == Path(folder.replace("HOME", str(tmp_path)), ".keras")


def test_a_folder_of_the_name_of_a_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "a_folder_without_code").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not backend.is_installed("a_folder_without_code")
    assert not backend.is_installed("no_such_package")
    assert backend.is_installed("keras")
    monkeypatch.setitem(sys.modules, "a_folder_without_code", None)
    assert not backend.is_installed("a_folder_without_code")
