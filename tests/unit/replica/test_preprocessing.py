"""Steps as plain data and back, what they get, and what they may return."""

from __future__ import annotations

import importlib.util
import pickle
from functools import partial

import keras
import numpy as np
import pytest
from pandas import isna

from kspark.ml.persistence import by_reader
from kspark.replica.backends.randomness import OwnRandomness
from kspark.replica.import_names import imported, name_to_save, restored
from kspark.replica.model_inputs import as_arrays, as_inputs
from kspark.replica.preprocessing import Preprocessing
from kspark.replica.steps import Step, arranged_for, checked
from kspark.shards import ArraySpec, Chunk, InputSpec

layers = keras.layers
ONE = InputSpec((ArraySpec("x", (2,), "float32"),))
TWO = InputSpec(
    (ArraySpec("a", (None,), "float32"), ArraySpec("b", (), "string")), x_structure="dict"
)


def sent(step):
    return pickle.loads(pickle.dumps(step)).make()


def tf_rows(rows):
    """A data set of TensorFlow, with which alone a `FeatureSpace` is adapted."""
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices(rows)


def text(*words):
    return np.array(words, object)


def test_a_layer_comes_back_with_its_vocabulary_and_its_statistics():
    words = layers.TextVectorization(output_mode="multi_hot")
    words.adapt(["good film", "bad"])
    rows = {"text": text("bad film", "good")}
    found = sent(Step.of("preprocess", words))(rows, training=False)
    np.testing.assert_array_equal(found, words(rows["text"]))

    normal = layers.Normalization()
    normal.adapt(np.arange(12.0).reshape(6, 2))
    both = keras.Sequential([normal, layers.Rescaling(2.0)])
    x = np.ones((3, 2), "float32")
    found = sent(Step.of("preprocess", both))({"x": x}, training=False)
    np.testing.assert_allclose(found, both(x), rtol=1e-6)


def test_a_function_may_use_layers():
    words, other = layers.StringLookup(vocabulary=["a", "b"]), layers.Rescaling(3.0)

    def preprocess(batch):
        return other(np.asarray(words(batch["x"])).astype("float32"))

    step = Step.of("preprocess", preprocess)
    assert len(step.layers) == 2
    found = sent(step)({"x": text("b", "a")}, training=False)
    np.testing.assert_array_equal(found, [6, 3])


def test_layers_get_their_inputs():
    a, b = np.zeros(3), np.ones(3)
    rows = {"a": a, "b": b}
    inputs = {name: keras.Input((1,), name=name) for name in ("b", "a")}
    total = layers.Add()(list(inputs.values()))
    assert arranged_for(layers.Rescaling(1.0), {"a": a}) is a
    assert arranged_for(layers.Concatenate(), rows) is rows
    by_name = arranged_for(keras.Model(inputs, total), rows | {"c": a})
    assert list(by_name) == ["b", "a"]
    assert arranged_for(keras.Model(list(inputs.values()), total), rows) == [b, a]
    (only,) = arranged_for(keras.Model(list(inputs.values()), total), {"x": a, "y": b})[:1]
    assert only is a
    one = keras.Model({"b": inputs["b"]}, layers.Rescaling(2.0)(inputs["b"]))
    assert list(arranged_for(one, {"column": a})) == ["b"]
    assert arranged_for(layers.Rescaling(1.0), [a, b])[1] is b


def test_a_feature_space_gets_a_dictionary_of_its_features():
    scale = keras.utils.FeatureSpace.float_rescaled(2.0)
    space = keras.utils.FeatureSpace({"a": scale}, output_mode="concat")
    space.adapt(tf_rows({"a": np.array([[1.0], [2.0]])}))
    a, b = np.array([1.0, 2.0]), np.zeros(2)
    step = Step.of("preprocess", space)
    assert not step.takes_one_array
    assert Step.of("preprocess", layers.Rescaling(1.0)).takes_one_array
    for rows in ({"a": a}, {"x": a}, {"a": a, "b": b}, a):
        assert list(arranged_for(space, rows)) == ["a"]
        np.testing.assert_array_equal(sent(step)(rows, training=False), [[2], [4]])
    with pytest.raises(ValueError, match=r"`preprocess` must be .*rows without \['a'\]"):
        arranged_for(space, {"b": a, "c": a})


def test_augment_draws_by_seed_epoch_and_batch():
    noise = Step.of("augment", layers.GaussianNoise(1.0))
    chunk = Chunk([np.zeros((4, 2), "float32")], [np.arange(4)])

    def drawn(seed, number, step=noise):
        preprocessor = Preprocessing((), None, step).make(ONE)
        assert not preprocessor.applies(training=False)
        preprocessor.seed(seed)
        found = preprocessor(chunk, number, training=True)
        assert found.y[0].tolist() == [0, 1, 2, 3]
        return found.x[0].tolist()

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1) != drawn(2, 1)
    before = np.random.get_state()[1].tolist()
    legacy = Step.of("augment", lambda x: x + np.random.random(x.shape))
    assert drawn(1, 0, legacy) == drawn(1, 0, legacy) != drawn(1, 1, legacy)
    assert np.random.get_state()[1].tolist() == before


def test_the_inputs_of_a_model_are_taken_in_all_forms():
    rows = as_arrays("preprocess", [[0.0, 1.0]] * np.array([[1]]), ONE, 1)
    assert rows[0].dtype == np.float32
    (padded,) = as_arrays("preprocess", np.zeros((3, 2, 1), "uint8"), ONE, 3)
    assert (padded.shape, padded.dtype) == ((3, 2), np.float32)
    a, b = np.ones((2, 5)), np.array([b"p", b"q"])
    for value in ({"b": b, "a": a}, [a, b], (a, b)):
        first, second = as_arrays("preprocess", value, TWO, 2)
        assert first.shape == (2, 5)
        assert second.tolist() == ["p", "q"]
    assert list(as_inputs([a, b], TWO)) == ["a", "b"]
    assert as_inputs([a], ONE) is a


def test_code_with_its_own_randomness_draws_as_if_it_were_alone():
    shared, own = [], OwnRandomness()
    np.random.seed(3)
    alone = np.random.random(3).tolist()
    for number in range(3):
        with own.used():
            if not number:
                np.random.seed(3)
            shared.append(float(np.random.random()))
        np.random.random(2)
    assert shared == alone


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "returns an array, the input of the model 'x'. Received: a int"),
        (np.zeros((2, 2)), r"as many rows as it gets, 3. Received: an array of shape \(2, 2\)"),
        (np.float32(1), "as many rows"),
        (
            np.zeros((3, 4)),
            r"rows of shape \(2,\), which .*Received: .*\(4,\). .*\(rows, 2\)",
        ),
        (np.full((3, 2), "a"), "returns numbers. Received: text"),
        (np.full((3, 2), None), "returns numbers or text. Received: an array of objects"),
        ([np.zeros((3, 2))] * 2, "Received: a list of 2 values of ndarray"),
        ({"y": np.zeros((3, 2))}, r"Received: a dictionary with the keys \['y'\]"),
    ],
)
def test_other_values_are_refused(value, message):
    with pytest.raises(ValueError, match=f"`preprocess` must .*{message}"):
        as_arrays("preprocess", value, ONE, 3)


def test_numbers_that_integers_cannot_represent_are_refused():
    spec = InputSpec((ArraySpec("x", (), "int32"),))
    assert as_arrays("augment", np.array([1.0, 2.0]), spec, 2)[0].dtype == np.int32
    with pytest.raises(ValueError, match="`augment` .*returns whole numbers that fit int32"):
        as_arrays("augment", np.array([1.5]), spec, 1)


def test_what_is_no_step_is_refused():
    for value in (3, [], layers.Dense):
        with pytest.raises(TypeError, match="`preprocess` must be a function of a batch"):
            checked("preprocess", value)
    with pytest.raises(ValueError, match="`preprocess` must be the import name"):
        checked("preprocess", "no_such_module:name")
    assert checked("preprocess", "json:loads") is imported("json:loads", "preprocess")


def test_functions_are_saved_by_name_only():
    assert name_to_save(as_inputs, "preprocess") == "kspark.replica.model_inputs:as_inputs"
    for function in (lambda batch: batch, main_function()):
        with pytest.raises(ValueError, match="`preprocess` must be a function that can be import"):
            name_to_save(function, "preprocess")


def main_function():
    def inner(batch):
        return batch

    inner.__module__ = "__main__"
    return inner


def test_a_file_cannot_name_any_function_in_safe_mode():
    others = ("pandas:isna", f"{__name__}:isna", f"{__name__}:keras.utils.to_categorical")
    for name in ("os:getcwd", "json:loads", "numpy:load", "jax:jit", "never_in:function", *others):
        rule = "loaded after `import" if name.startswith("never") else "a function of your own mod"
        with pytest.raises(ValueError, match=f"`preprocess` must be {rule}"):
            restored(name, "preprocess", {}, safe_mode=True)
    ways = partial(by_reader, "KerasModel")
    words = r"`KerasModel.read\(\).customObjects\(\{'f': .*`KerasModel.read\(\).safeMode\(F"
    with pytest.raises(ValueError, match=words):
        restored("never_in:f", "preprocess", {}, safe_mode=True, ways=ways)
    assert restored("json:loads", "preprocess", {}, safe_mode=False).__name__ == "loads"
    given = {"function": main_function()}
    assert restored("lost:function", "preprocess", given, safe_mode=True) is given["function"]
    with keras.saving.custom_object_scope(given):
        assert restored("lost:function", "preprocess", {}, safe_mode=True) is given["function"]
    assert restored("pandas:isna", "preprocess", {"isna": isna}, safe_mode=True) is isna
    own = name_to_save(main_function, "preprocess")
    assert restored(own, "preprocess", {}, safe_mode=True) is main_function
    with pytest.raises(ValueError, match="`preprocess` must be a function that can be import"):
        name_to_save(None, "preprocess")


TORCH = """
import keras
import numpy as np
import torch
from kspark.replica.backends.randomness import OwnRandomness
from kspark.replica.steps import Step

step = Step.of("augment", lambda x: x + np.random.random(x.shape)).make()
own = OwnRandomness()

def drawn(with_steps):
    keras.utils.set_random_seed(4)
    found = []
    for number in range(3):
        if with_steps:
            step(np.zeros(2), training=True, seed=(1, number))
            with own.used():
                keras.utils.set_random_seed(5)
                torch.rand(2)
        found.append(torch.rand(2).tolist())
    return found

assert drawn(True) == drawn(False)
"""


def test_steps_leave_the_generator_of_torch_as_it_was(process):
    """Layers without a seed of their own, such as `Dropout`, draw from it."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    done = process(TORCH, KERAS_BACKEND="torch")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("make", [layers.TextVectorization, layers.StringLookup])
def test_layers_without_a_vocabulary_are_refused_with_the_way(make):
    for layer in (make(), keras.Sequential([make()])):
        with pytest.raises(ValueError, match=r"`preprocess` must be adapted: call `layer.adapt\("):
            Step.of("preprocess", layer)
    inner = make()
    with pytest.raises(ValueError, match="`augment` must be adapted"):
        Step.of("augment", lambda batch: inner(batch))


def test_the_name_of_a_layer_is_refused_with_the_way():
    with pytest.raises(ValueError, match=r"not the name of its class: `keras.layers.Resizing\("):
        checked("preprocess", "Resizing")
