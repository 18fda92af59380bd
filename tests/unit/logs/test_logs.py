"""Which lines `import tensorflow` shows once kspark is imported, with stand-ins for TensorFlow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import kspark
from kspark import logs

MESSAGES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795976070.823818    9513 cudart_stub.cc:31] Could not find cuda drivers.
E0000 00:00:1795976084.244654 9632 cuda_platform.cc:52] failed call to cuInit: INTERNAL: 303
2024-05-01 12:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] Optimized.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""
OTHERS = """\
W is the first letter of a line of the user's
F0000 00:00:1795976070.823818    9513 platform.cc:31] The CPU lacks AVX.
2024-05-01 12:00:00.123456: F tensorflow/core/platform/cpu_feature_guard.cc:210] Fatal.
"""


@pytest.fixture
def run(tmp_path):
    """Runs a program in a process where `tensorflow` is a module with the given code."""

    def run(program, tensorflow, **environment):
        (tmp_path / "tensorflow.py").write_text(tensorflow)
        path = os.pathsep.join([str(tmp_path), str(Path(kspark.__file__).parents[1])])
        clean = {k: v for k, v in os.environ.items() if k not in ("KSPARK_LOG", LEVEL)}
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**clean, "PYTHONPATH": path, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


LEVEL = "TF_CPP_MIN_LOG_LEVEL"
WRITES = f"import os, sys\nos.write(2, {MESSAGES + OTHERS!r}.encode())\n"
SETS_THE_LEVEL = WRITES + f"sys.stdout.write(os.environ.get({LEVEL!r}, 'not set'))\n"


def test_the_messages_of_tensorflows_import_are_dropped_and_other_lines_are_kept(run):
    done = run("import kspark, tensorflow", SETS_THE_LEVEL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3", OTHERS)


def test_importing_kspark_does_not_import_tensorflow(run):
    done = run("import kspark, sys; sys.stdout.write(str('tensorflow' in sys.modules))", WRITES)
    assert (done.stdout, done.stderr) == ("False", "")


@pytest.mark.parametrize(
    ("environment", "level"),
    [({"KSPARK_LOG": "1"}, "not set"), ({LEVEL: "0"}, "0")],
)
def test_one_variable_shows_everything(run, environment, level):
    done = run("import kspark, tensorflow", SETS_THE_LEVEL, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, level, MESSAGES + OTHERS)


@pytest.mark.parametrize("value", ["", "0"])
def test_messages_are_hidden_without_a_value(run, value):
    assert run("import kspark, tensorflow", WRITES, KSPARK_LOG=value).stderr == OTHERS


def test_an_import_that_fails_shows_everything(run):
    done = run("import kspark, tensorflow", WRITES + "raise ImportError('no such library')")
    assert done.returncode == 1
    assert done.stderr.startswith(MESSAGES + OTHERS)
    assert done.stderr.endswith("ImportError: no such library\n")


def test_an_import_that_ends_the_process_shows_where(run):
    done = run("import kspark, tensorflow", WRITES + "os.abort()")
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr
    assert "tensorflow.py" in done.stderr


def test_messages_after_the_import_reach_the_screen(run):
    done = run("import kspark, tensorflow, os; os.write(2, b'I0000 mine')", WRITES)
    assert done.stderr == OTHERS + "I0000 mine"


def test_the_module_keeps_its_own_loader(run):
    program = (
        "import kspark, importlib.util, sys\n"
        "assert importlib.util.find_spec('tensorflow').origin.endswith('tensorflow.py')\n"
        "import tensorflow\n"
        "loaders = tensorflow.__loader__, tensorflow.__spec__.loader\n"
        "sys.stdout.write(str([type(loader).__name__ for loader in loaders]))\n"
    )
    done = run(program, "")
    assert (done.stdout, done.stderr) == ("['SourceFileLoader', 'SourceFileLoader']", "")


def test_a_process_without_stderr_imports_tensorflow(run):
    program = "import kspark, os; os.close(2); import tensorflow; print(tensorflow.answer)"
    assert run(program, "answer = 42").stdout == "42\n"


def test_nothing_is_filtered_where_no_file_can_be_made(monkeypatch, capfd):
    def fail():
        raise FileNotFoundError("no folder for temporary files")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with logs.filtered_stderr():
        os.write(2, b"I0000 00:00:1.0 1 any.cc:1] a message\n")
    assert "a message" in capfd.readouterr().err
