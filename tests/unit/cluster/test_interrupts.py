"""When Ctrl-C raises at once, and when it is deferred."""

# What happens around an interrupt is the test: several statements, any exception.
# ruff: noqa: PT012, BLE001

from __future__ import annotations

import os
import signal
import threading
from contextlib import nullcontext

import pytest

from kspark.cluster import interrupts
from kspark.cluster.interrupts import deferred, defers_interrupts, interruptible, raising


def press() -> None:
    """Ctrl-C. Python runs its handler before the next instruction or so."""
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):
        pass


def test_an_interrupt_is_deferred_to_the_end_of_the_block():
    steps = []
    with pytest.raises(KeyboardInterrupt), deferred():
        press()
        steps.append("all of it")
    assert steps == ["all of it"]


def test_a_deferred_interrupt_is_raised_in_the_next_interruptible_block():
    steps = []
    with pytest.raises(KeyboardInterrupt), deferred():
        press()
        steps.append("work")
        with interruptible():
            steps.append("wait")
    assert steps == ["work"]


def test_an_interrupt_in_an_interruptible_block_is_raised_at_once():
    steps = []
    with deferred():
        with pytest.raises(KeyboardInterrupt), interruptible():
            press()
            steps.append("too late")
        steps.append("clean up")
    assert steps == ["clean up"]


def test_an_interrupt_after_an_interruptible_block_is_deferred():
    with pytest.raises(KeyboardInterrupt), deferred():
        with interruptible(), interruptible():
            pass
        press()


def test_a_second_interrupt_is_raised_at_once():
    steps = []
    with deferred():
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
            steps.append("too late")
    assert steps == []


def test_an_exception_of_the_block_takes_precedence_over_the_interrupt():
    with pytest.raises(ValueError, match="its own"), deferred():
        press()
        raise ValueError("its own")


@pytest.mark.parametrize("nested", [False, True])
def test_the_signal_handler_is_restored(nested):
    before = signal.getsignal(signal.SIGINT)
    with deferred():
        inside = signal.getsignal(signal.SIGINT)
        assert inside is not before
        if nested:
            with deferred():
                assert signal.getsignal(signal.SIGINT) == inside
            assert signal.getsignal(signal.SIGINT) == inside
    assert signal.getsignal(signal.SIGINT) is before
    assert interrupts._current is None


def test_other_threads_do_not_change_the_signal_handler():
    before, errors = signal.getsignal(signal.SIGINT), []

    def work():
        try:
            with deferred(), interruptible():
                assert signal.getsignal(signal.SIGINT) is before
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_a_decorated_function_keeps_its_name_and_result():
    @defers_interrupts
    def twice(number):
        """Say so."""
        return 2 * number

    assert (twice(4), twice.__name__, twice.__doc__) == (8, "twice", "Say so.")


def test_a_decorated_function_is_interrupted_with_a_short_traceback():
    def deep(levels):
        if levels:
            deep(levels - 1)
        press()

    @defers_interrupts
    def work():
        with interruptible():
            deep(20)

    with pytest.raises(KeyboardInterrupt, match=r"^`work` was interrupted\.$") as caught:
        work()
    assert [entry.name for entry in caught.traceback][1:] == ["wrapper"]
    assert caught.value.__context__ is None


def test_of_two_decorated_functions_the_one_that_the_user_called_is_named():
    @defers_interrupts
    def inner():
        with interruptible():
            press()

    @defers_interrupts
    def outer():
        inner()

    with pytest.raises(KeyboardInterrupt, match=r"^`outer` was interrupted\.$"):
        outer()


def test_the_text_of_an_interrupt_is_kept():
    @defers_interrupts
    def work():
        raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="^enough$"):
        work()


def another(number, frame):
    """A handler that a library installs."""
    raise RuntimeError("not the interrupt of the test")


@pytest.fixture
def handler():
    before = signal.getsignal(signal.SIGINT)
    yield before
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("within", [False, True])
def test_an_interrupt_is_raised_at_once_after_a_call_that_makes_it_safe(handler, within):
    steps = []

    def start():
        with raising(lambda frame: steps.append("made safe")) as again:
            signal.signal(signal.SIGINT, another)
            again()
            press()
            steps.append("too late")

    with pytest.raises(KeyboardInterrupt), deferred() if within else nullcontext():
        start()
    assert steps == ["made safe"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_pending_interrupt_is_raised_on_entry():
    steps = []
    with pytest.raises(KeyboardInterrupt), deferred():
        press()
        with raising(steps.append):
            steps.append("too late")
    assert steps == []


def test_nothing_changes_where_interrupts_are_ignored(handler):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with raising(pytest.fail) as again:
        again()
        press()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_that_a_library_installs_stays_after_all_blocks(handler):
    with raising(lambda frame: None):
        signal.signal(signal.SIGINT, another)
    assert signal.getsignal(signal.SIGINT) is another
    signal.signal(signal.SIGINT, handler)
    with deferred():
        own = signal.getsignal(signal.SIGINT)
        with raising(lambda frame: None):
            signal.signal(signal.SIGINT, another)
        assert signal.getsignal(signal.SIGINT) == own
    assert signal.getsignal(signal.SIGINT) is another
