"""cloudpickle has one registry per process, which concurrent `by_value` blocks share."""

from __future__ import annotations

import pickle
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyspark import cloudpickle

from kspark.replica import pickling as custom

NAME = "kspark_users_module"
SOON = 60


@pytest.fixture
def project(tmp_path):
    """A module of the user's, which no worker has."""
    module = types.ModuleType(NAME)
    module.__file__ = str(tmp_path / "module.py")
    sys.modules[NAME] = module
    exec("def triple(x):\n    return x * 3\n", module.__dict__)
    before = registered()
    yield module
    sys.modules.pop(NAME, None)
    assert registered() == before
    assert not custom.REGISTERED


def registered():
    return set(cloudpickle.list_registry_pickle_by_value())


def test_a_module_that_was_removed_is_skipped(project):
    """Another thread may remove it from `sys.modules` after it was found."""
    modules = [types.ModuleType("gone_by_now"), project]
    assert custom.register(modules) == [project]
    custom.unregister([project])


def test_leaving_a_block_keeps_the_registrations_of_a_concurrent_block(project):
    first_inside, second_inside, first_gone = (threading.Event() for _ in range(3))

    def first():
        with custom.by_value():
            first_inside.set()
            assert second_inside.wait(SOON)
        first_gone.set()

    def second():
        assert first_inside.wait(SOON)
        with custom.by_value():
            second_inside.set()
            assert first_gone.wait(SOON)
            return cloudpickle.dumps(project.triple)

    with ThreadPoolExecutor(2) as pool:
        done, data = pool.submit(first), pool.submit(second)
        done.result(SOON)
    del sys.modules[NAME]
    assert pickle.loads(data.result(SOON))(2) == 6


def test_blocks_that_are_entered_together_leave_without_an_error(project, monkeypatch):
    modules, both = custom.user_modules, threading.Barrier(2)

    def found():
        both.wait(SOON)
        return modules()

    def block():
        with custom.by_value():
            both.wait(SOON)
            data = cloudpickle.dumps(project.triple)
            both.wait(SOON)
        return data

    monkeypatch.setattr(custom, "user_modules", found)
    with ThreadPoolExecutor(2) as pool:
        together = [pool.submit(block) for _ in range(2)]
    del sys.modules[NAME]
    assert [pickle.loads(one.result(SOON))(2) for one in together] == [6, 6]


def test_a_nested_block_keeps_the_registrations_of_the_outer_block(project):
    with custom.by_value():
        with custom.by_value():
            pass
        assert NAME in registered()


def test_modules_that_the_user_registered_stay_registered(project):
    cloudpickle.register_pickle_by_value(project)
    with custom.by_value():
        assert NAME not in custom.REGISTERED
    assert NAME in registered()
    cloudpickle.unregister_pickle_by_value(project)


def test_unregistering_a_module_inside_a_block_is_not_an_error(project):
    with custom.by_value():
        cloudpickle.unregister_pickle_by_value(project)
