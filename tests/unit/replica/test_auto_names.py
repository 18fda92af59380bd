"""Models of one architecture have one digest, whatever Keras has called their layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec
from kspark.replica.auto_names import (
    automatic_names,
    canonical,
    canonical_pickle,
    is_automatic,
    translated,
)
from kspark.replica.building import build, renewed

layers, ops = keras.layers, keras.ops


def compiled(model, **arguments):
    model.compile(**{"optimizer": "adam", "loss": "mse", **arguments})
    return model


def sequential(*inner, name=None, units=2, **arguments):
    parts = [keras.Input((4,)), *inner, layers.Dense(units)]
    return compiled(keras.Sequential(parts, name=name), **arguments)


def functional(swap=False, **arguments):
    start = keras.Input((4,))
    left, right = layers.Dense(3, "relu")(start), layers.Dense(3, "tanh")(start)
    parts = [right, left] if swap else [left, right]
    return compiled(
        keras.Model(start, layers.Dense(1)(layers.Subtract()(parts) * 2.0)), **arguments
    )


def two_inputs():
    first, second = keras.Input((2,)), keras.Input((2,))
    return compiled(keras.Model([first, second], layers.Dense(1)(layers.Add()([first, second]))))


def named_inputs():
    inputs = {name: keras.Input((2,), name=name) for name in "ab"}
    return compiled(keras.Model(inputs, layers.Dense(1)(layers.Add()(list(inputs.values())))))


def shared(twice=True):
    start = keras.Input((4,))
    first = layers.Dense(4)
    second = first if twice else layers.Dense(4)
    return compiled(keras.Model(start, layers.Dense(1)(second(first(start)))))


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5)])
    start = keras.Input((4,))
    return compiled(keras.Model(start, layers.Dense(1)(inner(start))))


def wrapped():
    start = keras.Input((3, 4))
    rows = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(start)
    rows = layers.TimeDistributed(layers.Dense(2, "softmax"))(rows)
    return compiled(keras.Model(start, layers.Softmax()(layers.Flatten()(rows))))


def metrics():
    chosen = [keras.metrics.AUC(), keras.metrics.Precision(), "mae"]
    return sequential(loss=keras.losses.MeanSquaredError(), metrics=chosen)


def outputs(*names):
    start = keras.Input((4,))
    ends = [layers.Dense(1, name=name)(start) for name in names or (None, None)]
    return compiled(keras.Model(start, ends), loss=["mse", "mse"])


SAME = {
    "sequential": lambda: sequential(layers.Dense(3), layers.BatchNormalization()),
    "functional": functional,
    "two inputs": two_inputs,
    "named inputs": named_inputs,
    "shared layers": shared,
    "nested": nested,
    "wrappers": wrapped,
    "metrics": metrics,
    "named outputs": lambda: outputs("left", "right"),
    "schedule": lambda: sequential(
        optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5))
    ),
    "scaled": lambda: sequential(
        optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    ),
    "mixed precision": lambda: sequential(layers.Dense(3, dtype="mixed_float16")),
    "regularizer": lambda: sequential(layers.Dense(3, kernel_regularizer="l2")),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_code_makes_models_with_the_same_digest(name):
    first, second = ReplicaSpec.of(SAME[name]()), ReplicaSpec.of(SAME[name]())
    assert first.digest == second.digest
    assert first.names != second.names
    assert len(first.names) == len(second.names)


TRAINED = ("functional", "shared layers", "nested", "metrics", "named outputs")


@pytest.mark.parametrize("name", TRAINED)
def test_a_new_model_trains_the_same_bytes_in_the_replica_of_an_earlier_one(name, window_of):
    keras.utils.set_random_seed(5)
    earlier, later = SAME[name](), SAME[name]()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, *earlier.input_shape[1:])).astype("float32")
    widths = earlier.output_shape if isinstance(earlier.output_shape, list) else None
    y = [rng.uniform(size=(22, w[1])) for w in widths or [earlier.output_shape]]
    window = window_of(x, [a.astype("float32") for a in y])
    kept = build(ReplicaSpec.of(earlier))
    kept.train(window, 4)
    spec = ReplicaSpec.of(later)
    assert renewed(kept, spec)
    fresh = build(spec)
    assert (kept.spec, kept.inputs) == (fresh.spec, fresh.inputs)
    for replica in (kept, fresh):
        replica.train(window, 4)
    assert everything(kept) == everything(fresh)
    pairs = zip(kept.predict(window, 4), fresh.predict(window, 4), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def everything(replica):
    values = [replica.get_vector(), *replica.get_fixed(), *replica.get_optimizer_state()]
    return [a.tobytes() for a in [*values, *replica.metric_state()]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: sequential(layers.Dense(3)), lambda: sequential(layers.Dense(4))),
        (lambda: sequential(layers.Dense(3)), lambda: sequential(layers.Dense(3, "relu"))),
        (lambda: sequential(layers.Dense(3)), lambda: sequential(layers.Dense(3, name="mine"))),
        (lambda: sequential(name="a"), lambda: sequential(name="b")),
        (lambda: sequential(), lambda: sequential(name="mine")),
        (lambda: sequential(layers.Dropout(0.5)), lambda: sequential(layers.Dropout(0.4))),
        (lambda: sequential(layers.Dropout(0.5)), lambda: sequential(layers.Dropout(0.5, seed=1))),
        (sequential, lambda: sequential(loss="mae")),
        (sequential, lambda: sequential(optimizer=keras.optimizers.Adam(0.5))),
        (sequential, lambda: sequential(optimizer="sgd")),
        (sequential, lambda: sequential(metrics=["mae"])),
        (sequential, lambda: sequential(jit_compile=True)),
        (sequential, lambda: sequential(steps_per_execution=2)),
        (metrics, lambda: sequential(metrics=[keras.metrics.AUC(curve="PR")])),
        (
            lambda: sequential(metrics=[keras.metrics.AUC()]),
            lambda: sequential(metrics=[keras.metrics.AUC(name="area")]),
        ),
        (lambda: sequential(layers.Dense(3)), lambda: sequential(layers.Dense(3, dtype="float16"))),
        (functional, lambda: functional(swap=True)),
        (shared, lambda: shared(twice=False)),
        (two_inputs, named_inputs),
        (outputs, outputs),
        (lambda: outputs("left", "right"), lambda: outputs("right", "left")),
        (lambda: outputs("left", "right"), lambda: outputs("left", "other")),
    ],
)
def test_what_differs_has_another_digest(one, other):
    assert ReplicaSpec.of(one()).digest != ReplicaSpec.of(other()).digest


def test_a_loss_by_the_name_of_a_layer_distinguishes():
    def named():
        model = sequential()
        model.compile("adam", {model.layers[-1].name: "mse"})
        return model

    assert ReplicaSpec.of(named()).digest != ReplicaSpec.of(named()).digest


def test_a_frozen_layer_distinguishes():
    one, other = sequential(layers.Dense(3)), sequential(layers.Dense(3))
    other.layers[0].trainable = False
    other.compile("adam", "mse")
    assert ReplicaSpec.of(one).digest != ReplicaSpec.of(other).digest


@pytest.mark.parametrize(
    ("name", "kind", "automatic"),
    [
        ("dense", "Dense", True),
        ("dense_12", "Dense", True),
        ("dense_1_1", "Dense", False),
        ("denser", "Dense", False),
        ("my_dense", "Dense", False),
        ("conv2d_3", "Conv2D", True),
        ("batch_normalization", "BatchNormalization", True),
        ("forward_lstm_1", "LSTM", True),
        (None, "Dense", False),
        (7, "Dense", False),
    ],
)
def test_automatic_names_are_those_of_keras(name, kind, automatic):
    assert is_automatic(name, kind) == automatic


def test_only_the_places_of_names_are_replaced():
    layer = {"module": "keras.layers", "class_name": "Softmax", "config": {"name": "softmax"}}
    dense = {"activation": "softmax", "name": "mine", "inner": [layer]}
    config = {"module": "keras.layers", "class_name": "Dense", "config": dense}
    assert automatic_names(config) == ("softmax",)
    found = canonical(config, ("softmax",))["config"]
    assert (found["activation"], found["name"]) == ("softmax", "mine")
    assert found["inner"][0]["config"]["name"] == "\x000"


def test_layers_of_the_user_and_variables_in_the_order_of_names_keep_their_names():
    own = {"module": "mine", "class_name": "Dense", "config": {"name": "dense"}}
    assert automatic_names(own) == ()
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "dense"}}
    assert automatic_names(layer) == ("dense",)
    layer["config"]["dtype"] = "float8_from_float32"
    assert automatic_names(layer) == ()


def test_names_that_decide_about_types_are_not_automatic():
    policies = keras.dtype_policies.DTypePolicyMap()
    policies["dense_1"] = keras.DTypePolicy("bfloat16")
    layer = keras.layers.Dense(1, name="dense_1", dtype=policies)
    config = keras.saving.serialize_keras_object(layer)
    assert automatic_names(config) == ()
    plain = keras.layers.Dense(1, name="dense_1")
    assert automatic_names(keras.saving.serialize_keras_object(plain)) == ("dense_1",)


def test_the_addresses_of_shared_objects_become_numbers():
    def config(*addresses):
        return [{"class_name": "Own", "shared_object_id": address} for address in addresses]

    assert canonical(config(7, 9, 7), ()) == canonical(config(5, 3, 5), ())
    assert canonical(config(7, 9, 7), ()) != canonical(config(5, 3, 3), ())
    zeros = {"module": "keras.initializers", "class_name": "Zeros", "shared_object_id": 3}
    assert canonical(zeros, ()) == {"module": "keras.initializers", "class_name": "Zeros"}


def test_a_pickle_without_names_is_left_alone():
    assert canonical_pickle(b"bytes", ()) == b"bytes"


def test_messages_get_the_names_of_the_users_model():
    names = {"dense": "dense_3", "dense_1": "dense_2", "model": "model"}
    text = "node sequential/dense_1/Relu, \"dense\", a dense array, dense_10/x, 'dense_1'"
    found = "node sequential/dense_2/Relu, \"dense_3\", a dense array, dense_10/x, 'dense_2'"
    assert translated(text, names) == found
    assert translated(text, {}) == text


def test_files_in_tracebacks_keep_their_names():
    text = '  File "layers/core/dense.py", line 3, in call\n    "dense"'
    assert translated(text, {"dense": "dense_3"}) == text.replace('"dense"', '"dense_3"')


@pytest.mark.parametrize(
    "text",
    [
        "Could not read '/data/dense/part-0.parquet'",
        "Could not read file:/data/dense",
        "s3://bucket/dense/x",
        'No file "tables/dense/part-0.csv"',
        "[/dense/dense]",
    ],
)
def test_paths_of_files_stay(text):
    assert translated(text, {"dense": "dense_3"}) == text


def test_nodes_of_a_graph_are_no_files():
    text = "[[{{node a/dense/MatMul}}]] dense/kernel. Then dense/Relu."
    assert translated(text, {"dense": "dense_3"}) == text.replace("dense", "dense_3")
