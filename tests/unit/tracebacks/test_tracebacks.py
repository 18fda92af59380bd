"""The frames that errors about arguments show."""

from __future__ import annotations

import traceback
from types import FunctionType, ModuleType

import keras
import pytest

from kspark.errors import inside, invalid, unknown_argument
from kspark.tracebacks import from_first_other, shows_the_users_line

SOURCE = """
def refuses(call=None):
    return checks()
def checks():
    raise invalid("a", "b", 1)
def unknown(call=None):
    raise unknown_argument("a", ["b"])
def calls(call):
    return call()
def has_a_fault(call=None):
    return len(5)
def nested(call=None):
    with inside("outer"):
        checks()
"""


@pytest.fixture
def own():
    """Functions of a module of kspark."""
    module = ModuleType("kspark.made")
    names = {"invalid": invalid, "inside": inside, "unknown_argument": unknown_argument}
    module.__dict__.update(names)
    exec(compile(SOURCE, "kspark/made.py", "exec"), module.__dict__)
    return module


def frames(function: FunctionType, call=None):
    """Return the error of a decorated function, and the names of the functions in its frames."""
    with pytest.raises((ValueError, TypeError)) as caught:
        shows_the_users_line(function)(call)
    return caught.value, [one.name for one in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize(("name", "kind"), [("refuses", ValueError), ("unknown", TypeError)])
def test_an_error_about_an_argument_shows_the_users_line(own, name, kind):
    error, names = frames(getattr(own, name))
    assert type(error) is kind
    assert names == ["frames", "wrapper"]


def test_the_switch_of_keras_shows_all_frames(own):
    keras.config.disable_traceback_filtering()
    try:
        assert frames(own.refuses)[1][-2:] == ["refuses", "checks"]
    finally:
        keras.config.enable_traceback_filtering()


def test_errors_of_the_users_code_and_of_libraries_keep_all_frames(own):
    def users():
        raise ValueError("of the user")

    assert frames(own.calls, users)[1][-2:] == ["calls", "users"]
    names = frames(own.calls, lambda: traceback.format_list(5))[1]
    assert names.index("calls") + 1 == names.index("<lambda>") < names.index("format_list")


def test_a_fault_of_kspark_keeps_its_frames(own):
    assert frames(own.has_a_fault)[1][-1] == "has_a_fault"


def test_frames_of_the_user_between_those_of_kspark_stay(own):
    def callback():
        own.refuses()

    assert frames(own.calls, callback)[1] == ["frames", "wrapper", "callback"]


def test_what_an_error_was_raised_from_is_shortened_too(own):
    error, names = frames(own.nested)
    assert not {"nested", "checks", "inside"} & set(names)
    cause = traceback.extract_tb(error.__cause__.__traceback__)
    assert "checks" not in [one.name for one in cause]
    assert str(error) == "In `outer`: `a` must be b. Received: a=1"


def test_a_traceback_begins_at_the_first_frame_outside_of_kspark(own):
    def users():
        raise OSError("lost")

    with pytest.raises(OSError, match="lost") as caught:
        own.calls(users)
    inner = caught.value.__traceback__.tb_next
    assert [one.name for one in traceback.extract_tb(inner)] == ["calls", "users"]
    assert [one.name for one in traceback.extract_tb(from_first_other(inner))] == ["users"]
