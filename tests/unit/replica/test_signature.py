"""The inputs, targets and outputs of a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import Replica, build_model, input_spec
from kspark.replica.labels import loss_of
from kspark.replica.signature import is_built, output_names, unique
from kspark.shards import ArraySpec, InputSpec

layers = keras.layers


def functional(inputs, outputs, **compile_args):
    model = keras.Model(inputs, outputs)
    compile_args.setdefault("loss", "mse")
    model.compile("sgd", **compile_args)
    return model


def test_a_sequential_model_has_one_input_and_one_target(mlp):
    model = mlp()
    (name,) = [t.name for t in model.inputs]
    assert input_spec(model) == InputSpec(
        inputs=(ArraySpec(name, (4,), "float32"),), targets=(ArraySpec("output"),)
    )
    assert output_names(model) == (["output"], "single")


def test_lists_of_inputs_and_outputs_keep_their_order():
    a, b = keras.Input((None, 2), name="a"), keras.Input((3,), dtype="int32", name="b")
    one = layers.Dense(1, name="one")(layers.GlobalAveragePooling1D()(a))
    two = layers.Dense(2, name="two")(layers.Flatten()(layers.Embedding(5, 2)(b)))
    spec = input_spec(functional([a, b], [one, two]))
    assert spec.inputs == (ArraySpec("a", (None, 2), "float32"), ArraySpec("b", (3,), "int32"))
    assert [t.name for t in spec.targets] == ["one", "two"]
    assert (spec.x_structure, spec.y_structure) == ("list", "list")
    partly = input_spec(functional([a, b], [one, two], loss=[None, "mse"]))
    assert [t.name for t in partly.targets] == ["two"]
    assert (partly.y_structure, partly.outputs, spec.outputs) == ("list", ("one", "two"), ())


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_dictionaries_are_in_the_order_of_their_keys():
    a, b = keras.Input((2,), name="x1"), keras.Input((3,), name="x2")
    outputs = {"late": layers.Dense(1)(a), "early": layers.Dense(2)(b)}
    model = functional({"second": b, "first": a}, outputs)
    spec = input_spec(model)
    assert [(i.name, i.shape) for i in spec.inputs] == [("first", (2,)), ("second", (3,))]
    assert [t.name for t in spec.targets] == ["early", "late"]
    assert (spec.x_structure, spec.y_structure) == ("dict", "dict")
    assert output_names(model) == (["early", "late"], "dict")
    partly = input_spec(functional({"second": b, "first": a}, outputs, loss={"late": "mse"}))
    assert [t.name for t in partly.targets] == ["late"]


def test_a_list_of_one_input_takes_a_single_array():
    a = keras.Input((2,), name="a")
    model = functional([a], [layers.Dense(1)(a)])
    assert input_spec(model).x_structure == "single"
    assert input_spec(model).y_structure == "single"
    assert output_names(model)[1] == "list"  # as `predict` returns it


def test_a_model_without_a_loss_has_no_targets():
    a = keras.Input((2,))
    model = functional(a, layers.Dense(1)(a), loss=None)
    assert input_spec(model).targets == ()


def test_nested_inputs_are_refused():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = functional({"x": [a, b]}, layers.Dense(1)(layers.Add()([a, b])))
    with pytest.raises(ValueError, match="flat list or dictionary"):
        input_spec(model)


class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.embed, self.dense = layers.Embedding(5, 2), layers.Dense(1)

    def call(self, inputs):
        tokens = keras.ops.mean(self.embed(inputs["tokens"]), axis=1)
        value = self.dense(inputs["number"]) + self.dense(tokens)
        return {"y": value, "embedded": tokens}


def pair_rows():
    return {"tokens": np.array([[1, 2, 3], [0, 1, 1]]), "number": np.ones((2, 2))}


def test_subclassed_model_is_built_from_rows(window_of):
    model = Pair()
    model.compile("sgd", loss={"y": "mse"})
    replica = Replica.of(model, pair_rows())
    assert replica.inputs.inputs == (
        ArraySpec("number", (2,), "float32"),
        ArraySpec("tokens", (3,), "int64"),
    )
    assert [t.name for t in replica.inputs.targets] == ["y"]
    assert [i.dtype for i in input_spec(model).inputs] == ["", ""]  # it does not say
    window = window_of(pair_rows(), {"y": np.ones((2, 1), "float32")})
    replica.train(window, 2)
    outputs = replica.structured_outputs(replica.predict(window, 2))
    expected = model.predict(pair_rows(), verbose=0)
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, atol=1e-6)


def test_build_model_builds_an_unbuilt_model_from_rows():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="at least one row"):
        build_model(model, np.ones((0, 3)))
    build_model(model, np.ones((2, 3)))
    assert [tuple(w.shape) for w in model.weights] == [(3, 2), (2,)]
    build_model(model, "not looked at any more")


class HalfUsed(keras.Model):
    """A model with a layer that `call` does not use, and which `build` says is built."""

    def __init__(self):
        super().__init__()
        self.used, self.unused, self.calls = keras.layers.Dense(2), keras.layers.Dense(3), 0
        self.built = True

    def call(self, x):
        self.calls += 1
        return self.used(x)


def test_a_model_whose_layers_have_no_variables_is_called_once():
    model = HalfUsed()
    assert model.built and not is_built(model)
    for _ in range(2):
        build_model(model, np.ones((1, 4), "float32"))
        assert is_built(model)
    assert model.used.built and not model.unused.built
    assert model.calls == 1


def test_an_unbuilt_model_is_refused_without_rows():
    model = keras.Sequential([layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`model` must be built"):
        Replica.of(model)
    with pytest.raises(ValueError, match="`model` must be built"):
        Replica.of(model, [1, 2])
    assert Replica.of(model, np.ones((1, 3))).spec.size == 8


@pytest.mark.parametrize("structure", ["list", "dict"])
@pytest.mark.parametrize(
    ("compile_args", "targets"),
    [
        ({"loss": {"b": "mse", "a": None}}, ["b"]),
        ({"loss": {"b": "mse", "a": None}, "metrics": {"a": ["mae"], "b": []}}, ["b", "a"]),
        ({"loss": {"b": "mse", "a": None}, "weighted_metrics": {"a": "mae"}}, ["b", "a"]),
        ({"loss": {"b": "mse", "a": None}, "metrics": {"b": "mae"}}, ["b"]),
        ({"loss": "mse", "metrics": {"b": "mae"}}, ["b", "a"]),
    ],
)
def test_outputs_with_a_loss_or_a_metric_are_targets(structure, compile_args, targets):
    x = keras.Input((2,))
    outputs = [layers.Dense(1, name="b")(x), layers.Dense(1, name="a")(x)]
    if structure == "dict":
        outputs = dict(zip("ba", outputs, strict=True))
        targets = sorted(targets)
    spec = input_spec(functional(x, outputs, **compile_args))
    assert [t.name for t in spec.targets] == targets
    everything = ("b", "a") if structure == "list" else ("a", "b")
    assert spec.outputs == (() if len(targets) == 2 else everything)


@pytest.mark.parametrize("metrics", [[[], ["mae"]], ([], ["mae"])])
def test_outputs_with_metrics_by_position_are_targets(metrics):
    x = keras.Input((2,))
    outputs = [layers.Dense(1, name=name)(x) for name in ("c", "b", "a")]
    if len(metrics) == 2:
        metrics = type(metrics)([*metrics, []])
    spec = input_spec(functional(x, outputs, loss=["mse", None, None], metrics=metrics))
    assert [t.name for t in spec.targets] == ["c", "b"]
    assert spec.outputs == ("c", "b", "a")


def siamese(loss, **compile_args):
    shared, x = layers.Dense(2, name="dense"), [keras.Input((3,)), keras.Input((3,))]
    model = keras.Model(x, [shared(one) for one in x])
    model.compile("sgd", loss, **compile_args)
    return model


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("mse", ["dense", "dense_1"]),
        (["mse", "mae"], ["dense", "dense_1"]),
        ({"dense": "mse"}, ["dense", "dense_1"]),
        (["mse", None], ["dense"]),
        ([None, "mse"], ["dense_1"]),
    ],
)
def test_outputs_of_a_shared_layer_are_targets_of_their_own(loss, targets):
    model = siamese(loss)
    assert [t.name for t in input_spec(model).targets] == targets
    assert all(loss_of(model, name) == "mse" for name in targets[:1])


@pytest.mark.parametrize(
    ("names", "ignore_case", "found"),
    [
        (["a", "b"], False, ["a", "b"]),
        (["a", "a", "a"], False, ["a", "a_1", "a_2"]),
        (["a", "a", "a_1"], False, ["a", "a_2", "a_1"]),
        (["A", "a"], False, ["A", "a"]),
        (["A", "a", "a_1"], True, ["A", "a_2", "a_1"]),
    ],
)
def test_repeated_names_get_a_number(names, ignore_case, found):
    assert unique(names, ignore_case=ignore_case) == found
