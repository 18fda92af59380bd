"""All that a script shows on a terminal of 80 columns, until it is interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SECONDS = 300

SCRIPT = """\
from kspark import SparkModel
from kspark.session import local_session

import keras
import numpy as np

spark = local_session(2)
x, y = np.random.rand(400, 8).astype("float32"), np.arange(400) % 2
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, "softmax")], name="small")
model.compile("sgd", "sparse_categorical_crossentropy")
spark_model = SparkModel(model, num_workers=2)
spark_model.fit(x, y, epochs=2)
print(spark_model)
print(repr(spark_model.last_fit))

class Slow(keras.layers.Layer):
    def call(self, x):
        import time

        import tensorflow as tf

        pause = tf.py_function(lambda: time.sleep(0.03) or 0.0, [], "float32")
        return x + tf.ensure_shape(pause, ())


slow = keras.Sequential([keras.Input((8,)), Slow(), keras.layers.Dense(2, "softmax")])
slow.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
SparkModel(slow, num_workers=2).fit(np.tile(x, (10, 1)), np.tile(y, 10), batch_size=20)
spark_model.evaluate(x, y)
spark_model.fit(x, y, epochs=100000)
"""

WAITS = r"(: \d+/\d+ [a-z ]+)? \.\.\.( \d+s)?"
BAR = r" +\[[=.]+\] +[\d,]+/[\d,]+( - .*)?"
MOVING = re.compile(
    rf"(Preparing the rows|Starting the workers|Reading the rows|Evaluate|Finishing){WAITS}"
    rf"|Epoch \d+/\d+({WAITS}|{BAR})|Evaluate{BAR}"
)
STAYING = re.compile(r"(Epoch \d+/\d+|Evaluate) - .* examples/s.*")
WITHIN = re.compile(r"Epoch 1/1 \[[=.]+\] +([\d,]+)/4,000 .*loss: +\d")


class Terminal:
    """A script that runs on a terminal of 80 columns.

    Args:
        script: Path of the script.
        environment: Dictionary of environment variables.
    """

    def __init__(self, script: Path, environment: dict[str, str]) -> None:
        self.screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=inside, stdout=inside, stderr=inside,
            env=environment, cwd=script.parent, start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        self.shown = ""

    def read(self, until: str | None = None) -> None:
        """Read until a text is on the screen, or the script has ended."""
        deadline = time.monotonic() + SECONDS
        while until is None or until not in self.shown:
            ready, _, _ = select.select([self.screen], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.shown
            try:
                text = os.read(self.screen, 65536)
            except OSError:  # Linux: the last process has closed the terminal.
                text = b""
            if not text:
                assert until is None, self.shown
                return
            self.shown += text.decode()

    def interrupt(self) -> None:
        """Do what Ctrl-C does: interrupt all processes of the terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        os.close(self.screen)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def terminal(tmp_path: Path, variables: dict[str, str]) -> Iterator[Terminal]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # Java tells on the screen that it has options from the environment.
    unset = ("JDK_JAVA_OPTIONS", "TF_CPP_MIN_LOG_LEVEL")
    started = Terminal(script, {k: v for k, v in variables.items() if k not in unset})
    try:
        yield started
    finally:
        started.close()


def test_a_script_shows_its_own_lines_and_those_of_fit_also_when_it_is_interrupted(
    terminal: Terminal,
) -> None:
    terminal.read(until="Epoch 3/100000 ...")
    terminal.interrupt()
    terminal.read()
    shown, trace = terminal.shown.split("Traceback (most recent call last):")

    parts = re.split(r"[\r\n]+", shown.replace("^C", ""))
    lines = [part.rstrip(" ") for part in parts if part.strip(" ")]
    moving = [line for line in lines if MOVING.fullmatch(line)]
    others = [line for line in lines if not MOVING.fullmatch(line) and not STAYING.fullmatch(line)]
    assert others == [
        "SparkModel(model='small', mode='synchronous', frequency='epoch', workers=2, "
        "parameters=18)",
        "FitReport(mode='synchronous', frequency='epoch', server_optimizer='average', workers=2, "
        "epochs=2)",
    ]
    assert [line for line in lines if line.startswith("Epoch 2/2 - ")]
    assert max(map(len, moving)) < 80
    within = [int(m[1].replace(",", "")) for line in lines if (m := WITHIN.match(line))]
    assert within == sorted(within)
    assert len({count for count in within if 0 < count < 4_000}) >= 2, lines
    assert [line for line in lines if line.startswith("Evaluate - ") and "loss: " in line]

    frames = [line for line in trace.splitlines() if line.startswith("  File ")]
    assert len(frames) == 2
    assert trace.splitlines()[-1] == "KeyboardInterrupt: `fit` was interrupted."
    assert terminal.process.wait(SECONDS) != 0
