"""What a fit, an evaluation and a prediction show, on screens of all kinds."""

from __future__ import annotations

import io
import re
import threading
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.job import display, progress
from kspark.job.display import COLUMNS, Bar, Display, Part, checked_verbose
from kspark.job.progress import CallProgress, Phases, Progress


class Screen(io.StringIO):
    """Standard output: a terminal, or a file."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def moments(self):
        """All that a line of the terminal has shown, one text per change."""
        return [
            text.rstrip(" ") for line in self.getvalue().split("\n") for text in line.split("\r")
        ]

    @property
    def lines(self):
        """The lines that are on the terminal in the end."""
        shown = []
        for line in self.getvalue().split("\n"):
            text = ""
            for part in line.split("\r"):
                text = part + text[len(part) :]
            shown.append(text.rstrip(" "))
        return shown


def shown_on(made, monkeypatch, **modules):
    """Make a screen the standard output of kspark. pytest has its own while a test runs."""
    monkeypatch.setattr(display, "sys", SimpleNamespace(stdout=made, modules=modules))
    return made


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request, monkeypatch):
    return shown_on(Screen(request.param), monkeypatch)


@pytest.fixture
def terminal(monkeypatch):
    return shown_on(Screen(True), monkeypatch)


def a_fit(clock, shown, metrics=None, epochs=2):
    """Two epochs of 1,000 examples, of which the first takes 50 seconds to begin."""
    shown.on_train_begin()
    for epoch in range(epochs):
        shown.on_epoch_begin(epoch)
        clock.seconds += 0 if epoch else 50
        for done in (10, 250, 500, 750):
            clock.seconds += 1
            shown.show_epoch(epoch, done, 1000, lambda: metrics or {"loss": 0.5})
        clock.seconds += 1
        shown.num_examples = 1000
        shown.on_epoch_end(epoch, metrics or {"loss": 0.25})


def test_an_epoch_of_unknown_length_shows_its_examples(terminal, clock):
    shown = Progress(1, 2, 0)
    shown.on_train_begin()
    shown.on_epoch_begin(0)
    clock.seconds += 1
    shown.show_epoch(0, 1234, 0, lambda: {"loss": 0.5})
    assert any("Epoch 1/2 - 1,234 examples - loss: 0.5000" in text for text in terminal.moments)


def test_a_line_moves_within_each_epoch_on_a_terminal_only(screen, clock):
    a_fit(clock, Progress(1, 2, 0))
    moments = [text for text in screen.moments if "[" in text]
    if not screen.terminal:
        assert "\r" not in screen.getvalue()
        assert moments == []
    else:
        assert [text.split("] ")[1].split(" - ")[0].strip() for text in moments] == [
            f"{done}/1,000" for done in (10, 250, 500, 750)
        ] * 2
        assert "loss: 0.5000" in moments[1]
    assert [line for line in screen.lines if line] == [
        "Epoch 1/2 - 55.0s - loss: 0.2500 - 18 examples/s - ETA 4s",
        "Epoch 2/2 - 5.0s - loss: 0.2500 - 200 examples/s",
    ]


@pytest.mark.parametrize("verbose", [0, 2])
def test_nothing_moves_with_other_levels(screen, clock, verbose):
    shown = Progress(verbose, 2, 0)
    shown.phase("Reading the rows")
    a_fit(clock, shown)
    assert "\r" not in screen.getvalue()
    assert len(screen.getvalue().splitlines()) == verbose


def test_the_start_does_not_count_for_the_time_left(terminal, clock):
    """Without it, 1,000 examples take four seconds. The second epoch takes five with its end."""
    a_fit(clock, Progress(1, 4, 0), epochs=2)
    found = (re.search(r"ETA +(\d+)s", text) for text in terminal.moments)
    left = [int(match[1]) for match in found if match]
    assert left == [16, 14, 13, 12, *(12, 11, 10, 9, 10)]


def test_time_left_is_unknown_until_something_is_known(terminal, clock):
    """Separate jobs report nothing. Then the second epoch is the first that tells something."""
    shown = Progress(1, 3, 0)
    for epoch in range(2):
        shown.on_epoch_begin(epoch)
        clock.seconds += 30 if epoch else 90
        shown.show_shards(epoch, 1, 2)
        shown.num_examples = 10
        shown.on_epoch_end(epoch, {})
    first, second = (line for line in terminal.lines if line)
    assert "ETA" not in first
    assert second.endswith("ETA 30s")
    assert any("1/2 shards - 90s" in text for text in terminal.moments)


def test_an_epoch_that_starts_again_is_measured_from_there(clock):
    shown = Progress(1, 1, 0)
    shown.display.moves = False
    shown.on_epoch_begin(0)
    for done in (100, 500, 0, 10, 30):
        clock.seconds += 1
        shown.show_epoch(0, done, 1000, dict)
    assert shown._pace.speed == 20


TEXTS = st.text("xyz:0. ", max_size=20)


@given(
    st.text("abc/1 ", max_size=120),
    st.floats(-1, 2),
    st.lists(
        st.builds(Part, *[st.text("xyz:0. ", max_size=20)] * 3, st.integers(0, 5)), max_size=6
    ),
    st.integers(10, COLUMNS),
)
def test_no_line_is_wider_than_the_screen(title, fraction, parts, width):
    assert len(Bar().line(title, fraction, parts, width)) <= width


def test_what_does_not_fit_is_dropped_and_the_bar_gets_shorter():
    parts = [Part("1/4"), Part("0.5", "loss: ", rank=2), Part("9", after=" examples/s", rank=1)]
    shown = {width: Bar().line("Epoch 1/2", 0.25, parts, width) for width in (79, 55, 40, 24, 15)}
    assert shown == {
        79: "Epoch 1/2 [=====...............] 1/4 - loss: 0.5 - 9 examples/s",
        55: "Epoch 1/2 [===.........] 1/4 - loss: 0.5 - 9 examples/s",
        40: "Epoch 1/2 [==.......] 1/4 - 9 examples/s",
        24: "Epoch 1/2 [==......] 1/4",
        15: "Epoch 1/2",
    }


def test_the_columns_of_a_bar_stay_where_they_are(terminal, clock):
    """The numbers get shorter and longer, from epoch to epoch, and from epoch 9 to epoch 10."""
    shown = Progress(1, 11, 8)
    shown.on_train_begin()
    for epoch, seconds in ((8, 90), (9, 2), (10, 2)):
        shown.on_epoch_begin(epoch)
        for done, loss in ((10, 12.5), (500, 0.5), (1200, 0.25)):
            clock.seconds += seconds
            shown.show_epoch(epoch, done, 4800, lambda loss=loss: {"loss": loss, "accuracy": 0.5})
        clock.seconds += seconds
        shown.num_examples = 4800
        shown.on_epoch_end(epoch, {"loss": 0.25, "accuracy": 0.5})
    bars = [text for text in terminal.moments if "[" in text][2:]  # The first have no speed yet.
    assert len(bars) == 7
    assert len({(text.index("["), text.index("]")) for text in bars}) == 1
    assert len({(text.index("accuracy"), text.index("loss"), len(text)) for text in bars}) == 1
    assert bars[-1] == (
        "Epoch 11/11 [==....] 1,200/4,800 - accuracy: 0.5000 - loss:  0.2500 - ETA   12s"
    )


def test_all_lines_have_the_metrics_in_the_order_of_keras(terminal, clock):
    metrics = {"loss": 0.5, "val_loss": 0.4, "accuracy": 0.75}
    a_fit(clock, Progress(1, 1, 0), metrics, epochs=1)
    call = CallProgress(1, "Evaluate")
    call.end(10, {"loss": 0.5, "accuracy": 0.75})
    lines = [text for text in terminal.moments if "accuracy" in text]
    assert len(lines) == 6
    for text in lines:
        assert text.index("accuracy") < text.index(" loss")
    assert "accuracy: 0.7500 - loss: 0.5000 - val_loss: 0.4000 - " in lines[-2]


def test_a_moving_line_is_cut_and_never_wraps(terminal, clock, monkeypatch):
    monkeypatch.setattr(display, "columns", lambda: 30)
    monkeypatch.setattr(progress, "columns", lambda: 30)
    shown = Progress(1, 1, 0)
    shown.phase("A phase with a name that is longer than the screen")
    a_fit(clock, shown, {"accuracy": 0.5, "loss": np.array([0.5, 0.25])}, epochs=1)
    *moving, last, after = terminal.moments
    assert max(map(len, moving)) == 29
    assert (last, after) == (
        "Epoch 1/1 - 55.0s - accuracy: 0.5000 - loss: 0.3750 - 18 examples/s",
        "",
    )


def test_the_width_is_that_of_the_terminal_and_80_at_most(monkeypatch):
    for there, expected in ((50, 50), (200, 80), (0, 80)):
        size = SimpleNamespace(columns=there)
        monkeypatch.setattr(display.os, "get_terminal_size", lambda _, size=size: size)
        shown_on(SimpleNamespace(fileno=lambda: 1), monkeypatch)
        assert display.columns() == expected
    shown_on(Screen(True), monkeypatch)
    assert display.columns() == 80


def test_a_phase_shows_its_time_and_what_is_known(terminal, clock):
    shown = Phases(1)
    with shown:
        shown.phase("Reading the rows")
        for ended in ((0, 0), (1, 4)):
            clock.seconds += 2
            shown.watch(SimpleNamespace(ended_tasks=lambda ended=ended: ended))
        clock.seconds += 0.1
        shown.wait("too soon")
    assert [text for text in terminal.moments if text] == [
        "Reading the rows ...",
        "Reading the rows ... 2s",
        "Reading the rows: 1/4 partitions ... 4s",
    ]
    assert terminal.lines == [""]


def test_a_phase_moves_while_its_thread_waits(screen, monkeypatch):
    monkeypatch.setattr(progress, "SHOW_SECONDS", 0.01)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    shown, before = Phases(1), threading.active_count()

    def start():
        for _ in range(500 if screen.terminal else 0):
            if screen.getvalue().count("Starting Spark ... 0s") > 1:
                break
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), shown, shown.moving("Starting Spark"):
        start()
    assert threading.active_count() == before
    assert screen.lines[-1] == ""
    assert bool(screen.getvalue()) == screen.terminal


def test_a_phase_may_be_shown_only_if_it_takes_long(terminal, clock):
    shown = Phases(1)
    shown.phase("Finishing", delay=1.0)
    for _ in range(3):
        clock.seconds += 0.5
        shown.wait()
    assert [text for text in terminal.moments if text] == ["Finishing ...", "Finishing ... 2s"]


def test_an_error_leaves_the_last_state_and_a_fresh_line(terminal):
    shown = Phases(1)
    shown.phase("Epoch 1/2")
    shown.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert terminal.lines == ["Epoch 1/2 ...", ""]


def test_a_moving_line_is_removed_for_others_that_write(terminal):
    shown = Display(1)
    shown.show("moving")
    shown.clear()
    terminal.write("other\n")
    shown.clear()
    shown.close()
    assert terminal.lines == ["other", ""]


def test_sparks_own_bar_gets_the_line_and_is_overwritten_by_whole_lines(terminal, monkeypatch):
    engine = SimpleNamespace(shows_progress=True)
    monkeypatch.setattr(progress, "engine_of", lambda spark: engine)
    shown = CallProgress(1, "Evaluate")
    shown.run_on(None)
    shown.phase("Preparing the rows")
    shown.watch(None)
    terminal.write("[Stage 0:> (0 + 2) / 2]")
    shown.end(10, {"loss": 0.5})
    assert "Preparing" not in terminal.getvalue()
    assert terminal.lines[0].startswith("Evaluate - 0.0s - loss: 0.5000 - ")
    assert terminal.lines[0].endswith(" examples/s")


def test_a_call_shows_its_partitions_and_then_its_result(screen, clock):
    with CallProgress(1, "Evaluate") as shown:
        shown.begin(100, None)
        for ended in ((0, 0), (1, 2)):
            clock.seconds += 1
            shown.watch_rows(SimpleNamespace(ended_tasks=lambda ended=ended: ended))
        shown.end(100, {"loss": 0.5, "accuracy": 0.75})
    moving = [text for text in screen.moments if text][:-1]
    expected = ["Evaluate ... 1s", "Evaluate [==========..........] 1/2 partitions - 2s"]
    assert moving == (expected if screen.terminal else [])
    line = "Evaluate - 2.0s - accuracy: 0.7500 - loss: 0.5000 - 50 examples/s"
    assert screen.lines == [line, ""]


@pytest.mark.parametrize("total", [1000, None])
def test_a_call_shows_rows_where_somebody_counts_them(terminal, clock, total):
    counts = iter([0, 10, 510, 910])
    shown = CallProgress(1, "Predict")
    shown.begin(total, lambda: next(counts))
    for ended in (0, 0, 1, 1):
        clock.seconds += 2
        shown.watch_rows(SimpleNamespace(ended_tasks=lambda ended=ended: (ended, 2)))
    assert terminal.moments[1:] == (
        [
            "Predict ... 2s",
            "Predict [....................]    10/1,000",
            "Predict [==========..........]   510/1,000 - 250 examples/s - ETA 2s",
            "Predict [==================..]   910/1,000 - 225 examples/s - ETA 0s",
        ]
        if total
        else [
            "Predict [....................] 0/2 partitions - 2s",
            "Predict [....................] 0/2 partitions - 10 examples - 4s",
            "Predict [========.........] 1/2 partitions - 510 examples - 250 examples/s - 6s",
            "Predict [========.........] 1/2 partitions - 910 examples - 225 examples/s - 8s",
        ]
    )


def test_verbose_means_the_same_as_in_keras(screen, monkeypatch):
    assert [checked_verbose(v) for v in (0, 1, 2, False, True)] == [0, 1, 2, 0, 1]
    assert checked_verbose("auto") == (1 if screen.terminal else 2)
    script = SimpleNamespace(get_ipython=lambda: None)
    shown_on(screen, monkeypatch, ipykernel=None, IPython=script)  # PySpark imports both.
    assert checked_verbose("auto") == (1 if screen.terminal else 2)
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    shown_on(screen, monkeypatch, IPython=kernel)
    assert checked_verbose("auto") == 1
    assert Display(1).moves  # in a notebook
    with pytest.raises(ValueError, match='`verbose` must be one of "auto", 0, 1, 2'):
        checked_verbose(3)


def test_it_is_a_callback_that_keras_can_call():
    shown = Progress(0, 1, 0)
    keras.callbacks.CallbackList([shown], epochs=1).on_epoch_begin(0)
