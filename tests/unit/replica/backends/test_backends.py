"""Choosing a backend, and the engines of JAX and PyTorch in processes of their own."""

from __future__ import annotations

import importlib.util
import logging
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark.errors import EnvironmentMismatchError
from kspark.replica import backends
from kspark.replica.backends import get_backend, running_backend, use_backend
from kspark.replica.backends.base import (
    batch_examples,
    cast_floats,
    flat_outputs,
    pack,
)
from kspark.replica.backends.row_cache import RowCache
from kspark.replica.backends.tensorflow import configure_threads
from kspark.replica.backends.tensorflow_rows import Rows, as_tensor
from kspark.shards import ArraySpec, InputSpec


def test_only_the_running_backend_can_be_used():
    name = keras.backend.backend()
    other = "torch" if name == "jax" else "jax"
    assert running_backend() == name
    assert get_backend(name).Engine.__module__ == f"kspark.replica.backends.{name}"
    use_backend(name)
    with pytest.raises(ValueError, match='one of "tensorflow", "jax", "torch"'):
        get_backend("theano")
    with pytest.raises(EnvironmentMismatchError, match=f"KERAS_BACKEND={other}"):
        use_backend(other)


def test_a_worker_without_the_backend_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(backends, "running_backend", lambda: None)
    monkeypatch.setattr(backends, "is_installed", lambda name: name != "torch")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    expected = r"""'torch', which is not installed .* on host .* Run `pip install torch`"""
    with pytest.raises(EnvironmentMismatchError, match=expected):
        use_backend("torch")
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    use_backend("jax")
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_a_started_backend_keeps_its_threads_with_a_warning(caplog):
    tf.constant(1.0) + 1.0
    now = tf.config.threading.get_intra_op_parallelism_threads()
    with caplog.at_level(logging.WARNING, "kspark"):
        configure_threads(now)
        assert not caplog.records
        configure_threads(now + 5)
    assert f"keeps its {now} threads" in caplog.text
    assert tf.config.threading.get_intra_op_parallelism_threads() == now


SPECS = {
    "single": InputSpec((ArraySpec("a"),), (ArraySpec("y"),)),
    "list": InputSpec(
        (ArraySpec("a"), ArraySpec("b")), (ArraySpec("y"), ArraySpec("z")), 0, "list", "list"
    ),
    "dict": InputSpec(
        (ArraySpec("a"), ArraySpec("b")), (ArraySpec("y"), ArraySpec("z")), 0, "dict", "dict"
    ),
}


@pytest.mark.parametrize(
    ("spec", "groups", "expected"),
    [
        ("single", ([1],), 1),
        ("single", ([1], [2]), (1, 2)),
        ("single", ([1], [2], [3]), (1, 2, 3)),
        ("list", ([1, 2],), ((1, 2),)),
        ("list", ([1, 2], [3, 4]), ((1, 2), (3, 4))),
        ("list", ([1, 2], [3, 4], [5]), ((1, 2), (3, 4), (5, 5))),
        ("list", ([1, 2], [3, 4], [5, 6]), ((1, 2), (3, 4), (5, 6))),
        ("dict", ([1, 2],), {"a": 1, "b": 2}),
        (
            "dict",
            ([1, 2], [3, 4], [5]),
            ({"a": 1, "b": 2}, {"y": 3, "z": 4}, {"y": 5, "z": 5}),
        ),
    ],
)
def test_pack_gives_the_structure_that_keras_expects(spec, groups, expected):
    assert pack(SPECS[spec], *groups) == expected


def test_outputs_are_flattened_and_examples_of_batches_are_counted():
    assert flat_outputs({"b": [1, 2], "a": (3,)}) == [3, 1, 2]
    assert flat_outputs(4) == [4]
    assert [batch_examples(10, 4, *b) for b in [(0, 1), (1, 3), (2, 3), (3, 4)]] == [4, 6, 2, 0]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float64", "float32"), ("float16", "float32"), ("float32", "float32"), ("int64", "int64"),
     ("uint8", "uint8"), ("bool", "bool")],
)  # fmt: skip
def test_only_floats_are_cast(dtype, expected):
    array = np.ones(3, dtype)
    assert cast_floats(array).dtype == expected
    assert as_tensor(array).dtype.name == expected


@pytest.mark.parametrize("dtype", [object, "U3"])
def test_text_becomes_string_tensors(dtype):
    tensor = as_tensor(np.array(["a", "öb"], dtype))
    assert tensor.dtype == tf.string
    assert [t.decode() for t in tensor.numpy()] == ["a", "öb"]


def test_the_size_of_the_row_cache_is_bounded(window_of):
    cache = RowCache(Rows.of, max_bytes=100)

    def rows(key):
        return cache.load(window_of(np.zeros((10, 1), "float32"), key=key))

    first, second = rows(("a",)), rows(("b",))
    assert rows(("a",)) is first
    assert rows(("b",)) is second
    rows(("c",))  # 120 bytes: the one that was not used for longest goes
    assert rows(("b",)) is second
    assert rows(("a",)) is not first
    huge = cache.load(window_of(np.zeros((99, 9), "float32"), key=("huge",)))
    assert cache.load(window_of(np.zeros((99, 9), "float32"), key=("huge",))) is huge
    assert rows(None) is not rows(None)


PROGRAM = """
import sys
import numpy as np
import keras
from kspark.replica.backends import running_backend
from kspark.replica import Replica, ReplicaSpec, check_gradient_merging
from kspark.replica.building import build
from kspark.shards import Window

assert running_backend() == sys.argv[1]
layers = keras.layers

class Doubled(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)

def model():
    keras.utils.set_random_seed(1)
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Concatenate()([Doubled(4)(a), layers.BatchNormalization()(b)])
    hidden = layers.Dropout(0.5, seed=1)(hidden)
    one, two = layers.Dense(1, name="one")(hidden), layers.Dense(3, name="two")(hidden)
    made = keras.Model({"a": a, "b": b}, {"one": one, "two": two})
    two = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("adam", {"one": "mse", "two": two}, metrics={"two": ["accuracy"]})
    return made

rng = np.random.default_rng(0)
x = {"a": rng.normal(size=(10, 3)), "b": rng.normal(size=(10, 2))}
y = {"one": rng.normal(size=(10, 1)), "two": rng.integers(0, 3, 10)}
w = {"one": rng.random(10), "two": rng.random(10)}
window = Window([x["a"], x["b"]], [y["one"], y["two"]], [w["one"], w["two"]])

plain = model()
replica = build(ReplicaSpec.of(model()), threads=1)
replica.train(window, 4)
history = plain.fit(x, y, sample_weight=w, batch_size=4, shuffle=False, verbose=0).history
for ours, theirs in zip(replica.model.variables, plain.variables, strict=True):
    assert str(ours.dtype) == str(theirs.dtype)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs), atol=1e-6
    )
for name, value in replica.metric_results().items():
    np.testing.assert_allclose(value, history[name][0], atol=1e-5, err_msg=name)

expected = plain.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0, return_dict=True)
replica.reset_metrics()
replica.check_summable(window, 4)
replica.evaluate(window, 4)
state = replica.metric_state()
driver = Replica.of(model())
driver.prepare_metrics()
driver.set_metric_state(state)
for name, value in driver.metric_results().items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)

predicted = replica.structured_outputs(replica.predict(window, 4))
for name, value in plain.predict(x, verbose=0).items():
    np.testing.assert_allclose(predicted[name], value, atol=1e-6)

vector = replica.get_vector()
replica.set_vector(vector * 2)
np.testing.assert_array_equal(replica.get_vector(), vector * 2)
fixed = replica.get_fixed()
replica.reseed(3, 1)
assert replica.get_fixed()[0][0] != fixed[0][0]
replica.set_fixed(fixed)
state = replica.get_optimizer_state()
replica.set_optimizer_state(state)
replica.learning_rate = 0.5
assert replica.learning_rate == 0.5

calls = []
order = Window(window.x, window.y, window.sample_weight, order=np.arange(10)[::-1])
replica.train_exchanging(order, 4, 0, [2, 3], lambda v, n: calls.append((v.copy(), n)))
assert [n for _, n in calls] == [8, 2]
np.testing.assert_array_equal(calls[-1][0], replica.get_vector())
zero = np.zeros_like(vector)
replica.train_exchanging(window, 4, 0, [1], lambda v, n: zero)
np.testing.assert_array_equal(replica.get_vector(), zero)

# The mean gradient of two halves is that of the whole. Dropout and BatchNormalization see halves.
def exact():
    made = keras.Sequential([keras.Input((3,)), Doubled(4, activation="relu"), layers.Dense(1)])
    made.compile("adam", "mse", metrics=["mae"])
    return made

keras.utils.set_random_seed(1)
whole = exact()
check_gradient_merging(whole)
halves = [build(ReplicaSpec.of(whole)) for _ in range(2)]
idle = build(ReplicaSpec.of(whole))
x, y = x["a"][:8].astype("float32"), y["one"][:8].astype("float32")
windows = [Window([x[:4]], [y[:4]]), Window([x[4:]], [y[4:]])]
halves[0].check_gradient_merging(windows[0], 2)
for _ in range(3):
    found, losses = [], []
    for half, rows in zip(halves, windows):
        def take(gradient, count):
            gradient *= 1  # it may be changed
            found.append(gradient)
            assert count == 4
            raise KeyError

        try:
            half.train_merging(rows, 4, 0, 1, take)
        except KeyError:
            pass
    for replica in (*halves, idle):
        replica.apply_gradient(np.mean(found, axis=0))
whole.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
for replica in (*halves, idle):
    np.testing.assert_array_equal(replica.get_vector(), halves[0].get_vector())
    assert replica.counters[0] == 3
for ours, theirs in zip(idle.model.get_weights(), whole.get_weights(), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
idle.train_merging(windows[0], 2, 0, 2, lambda gradient, count: None)
halves[0].train(windows[0], 2)
np.testing.assert_allclose(idle.get_vector(), halves[0].get_vector(), atol=1e-6)
assert "kspark.replica.backends.tensorflow" not in sys.modules
if sys.argv[1] == "torch":
    import torch
    assert torch.get_num_threads() == 1
    replica.seed_backend(5)
    first = torch.rand(3)
    replica.seed_backend(5)
    assert torch.equal(torch.rand(3), first)
print("done")
"""


@pytest.mark.parametrize("name", [n for n in ("jax", "torch") if importlib.util.find_spec(n)])
def test_replicas_equal_fit_on_other_backends(name, process):
    done = process(PROGRAM, name, KERAS_BACKEND=name)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


def test_floats_are_cast_to_floatx(monkeypatch):
    monkeypatch.setattr(keras.config, "floatx", lambda: "float64")
    assert cast_floats(np.ones(2, "float32")).dtype == np.float64
