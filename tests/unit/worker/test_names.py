"""Errors name the layers of the user's model, also in a replica of an earlier one."""

from __future__ import annotations

import pytest

from kspark.errors import Failure
from kspark.worker.names import set_names, with_own_names
from kspark.worker.tasks import guarded


@pytest.fixture(autouse=True)
def no_names():
    yield
    set_names((), ())


def test_messages_and_tracebacks_are_translated():
    set_names(("dense", "dense_1"), ("dense_4", "dense_5"))
    failure = Failure(0, "host", 0, "ValueError", "in 'dense'", "node model/dense_1/Relu")
    found = with_own_names(failure)
    assert (found.message, found.traceback) == ("in 'dense_4'", "node model/dense_5/Relu")
    set_names(("dense_4",), ("dense_4",))
    assert with_own_names(failure) == failure


def test_failures_of_shards_are_translated():
    def fail():
        raise ValueError('Input 0 of layer "dense" is wrong')

    set_names(("dense",), ("dense_7",))
    assert guarded(0, fail).message == 'Input 0 of layer "dense_7" is wrong'
