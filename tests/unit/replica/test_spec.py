"""A model as plain data: what is restored from it, and what the driver refuses."""

from __future__ import annotations

import pickle
import random

import keras
import numpy as np
import pytest

from kspark.errors import EnvironmentMismatchError
from kspark.replica import Replica, ReplicaSpec
from kspark.replica.building import build
from kspark.shards import ArraySpec, InputSpec

layers, ops = keras.layers, keras.ops


def crossed(spec):
    """As Spark brings it to a worker."""
    return pickle.loads(pickle.dumps(spec, protocol=pickle.HIGHEST_PROTOCOL))


def test_a_fitted_model_is_restored_unchanged(mlp, rows):
    x, y = rows()
    model = mlp("adam", layers.BatchNormalization(), layers.Dropout(0.5), metrics=["accuracy"])
    model.fit(x, y, verbose=0)
    replica = build(crossed(ReplicaSpec.of(model)))
    for ours, theirs in zip(replica.model.variables, model.variables, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for ours, theirs in zip(
        replica.model.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert replica.spec == Replica.of(model).spec
    assert replica.inputs == Replica.of(model).inputs


@pytest.mark.parametrize("metrics", [None, [], ["sparse_categorical_crossentropy"]])
def test_metrics_of_an_earlier_compile_stay_as_in_keras(metrics, mlp, rows, window_of):
    model, (x, y) = mlp(metrics=["accuracy"]), rows(20)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=metrics)
    replica = build(crossed(ReplicaSpec.of(model)))
    replica.train(window_of(x, y), 4)
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    assert replica.metric_results() == pytest.approx({k: v[-1] for k, v in history.items()})


def test_all_compile_arguments_are_restored():
    a = keras.Input((2,), name="a")
    model = keras.Model(a, [layers.Dense(1, name="one")(a), layers.Dense(1, name="two")(a)])
    arguments = {
        "loss": {"one": "mse", "two": "mae"},
        "loss_weights": {"one": 0.25, "two": 3.0},
        "metrics": {"one": ["mae"], "two": []},
        "weighted_metrics": {"one": [], "two": ["mse"]},
        "run_eagerly": True,
        "steps_per_execution": 3,
        "jit_compile": False,
    }
    optimizer = keras.optimizers.Adam(0.125, clipnorm=2.0, weight_decay=0.5)
    model.compile(optimizer, **arguments)
    rebuilt = build(ReplicaSpec.of(model)).model
    assert rebuilt.get_compile_config() == model.get_compile_config()
    assert rebuilt.run_eagerly is True
    assert rebuilt.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.parametrize("loss", ["mse", keras.losses.Huber(0.5), keras.losses.mean_squared_error])
@pytest.mark.parametrize(
    "optimizer",
    ["ftrl", lambda: keras.optimizers.Adamax(keras.optimizers.schedules.CosineDecay(0.1, 9))],
)
def test_losses_and_optimizers_of_every_form_are_restored(loss, optimizer, mlp):
    model = mlp(optimizer if isinstance(optimizer, str) else optimizer(), loss=loss)
    rebuilt = build(ReplicaSpec.of(model)).model
    assert rebuilt.get_compile_config() == model.get_compile_config()


def test_making_a_spec_builds_the_optimizer_and_changes_nothing_else(mlp):
    model = mlp("adam", layers.Dropout(0.1))
    assert not model.optimizer.built
    random.seed(1)
    np.random.seed(1)
    before = [v.numpy() for v in model.variables]
    python, legacy = random.getstate(), np.random.get_state()[1].tolist()
    spec = ReplicaSpec.of(model)
    assert model.optimizer.built
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == legacy
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    made = spec.model.make().variables
    for variable, copy in zip(model.variables, made, strict=True):
        np.testing.assert_array_equal(copy.numpy(), variable.numpy())


def test_the_digest_depends_on_the_architecture_and_not_on_the_weights(mlp, rows):
    model = mlp("sgd")
    first = ReplicaSpec.of(model).digest
    model.fit(*rows(), verbose=0)
    assert ReplicaSpec.of(model).digest == first
    assert ReplicaSpec.of(mlp("sgd", layers.Dense(4))).digest != first
    assert ReplicaSpec.of(mlp("sgd"), {"extra": relu_like}).digest != first


def relu_like(x):
    return ops.maximum(x, 0.0)


def test_a_spec_has_a_short_repr_and_survives_pickling(mlp):
    spec = ReplicaSpec.of(mlp())
    assert spec.backend == keras.backend.backend()
    assert spec.weights.size == 4 * 5 + 5 + 5 * 3 + 3
    assert "model_bytes" not in repr(spec)
    assert spec == crossed(spec)


def test_given_inputs_are_kept(mlp):
    inputs = InputSpec((ArraySpec("mine", (4,), "float32"),), (ArraySpec("label"),))
    assert build(ReplicaSpec.of(mlp(), inputs=inputs)).inputs == inputs


def test_the_default_float_type_is_restored(window_of):
    keras.config.set_floatx("float64")
    try:
        layer = layers.Dense(1, kernel_initializer="ones", dtype="float64")
        model = keras.Sequential([keras.Input((1,), dtype="float64"), layer])
        model.compile("sgd", "mse", run_eagerly=True)
        spec = ReplicaSpec.of(model)
        keras.config.set_floatx("float32")
        replica = build(spec)
        assert keras.config.floatx() == "float64"
        x = np.array([[1 / 3]])  # not the same number in float32
        np.testing.assert_array_equal(replica.predict(window_of(x), 1)[0], x)
        replica.train(window_of(x, x + 1e-9), 1)
        assert 0 < replica.get_vector()[1] < 1e-8
    finally:
        keras.config.set_floatx("float32")


# -- what is refused ------------------------------------------------------------------------


def test_a_value_that_is_not_a_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be a compiled `keras.Model`"):
        ReplicaSpec.of("model")


def test_uncompiled_model_is_refused():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)], name="bare")
    with pytest.raises(ValueError, match="compiled: call `model.compile.*'bare'"):
        ReplicaSpec.of(model)


def test_unbuilt_model_is_refused():
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`model` must be built"):
        ReplicaSpec.of(model)


def test_stateful_layer_is_refused():
    model = keras.Sequential(
        [keras.Input((3, 2), batch_size=4), layers.Bidirectional(layers.GRU(2, stateful=True))]
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="stateful"):
        ReplicaSpec.of(model)


class NoConfig(layers.Layer):
    def __init__(self, thing):
        super().__init__()
        self.thing = thing

    def call(self, x):
        return x


class LosesArgument(layers.Layer):
    """Its `get_config` forgets an argument that `__init__` needs."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def call(self, x):
        return x

    def get_config(self):
        return super().get_config()


class LosesUnits(keras.Model):
    """Is rebuilt with another number of units."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {}


class OwnCompile(keras.Sequential):
    def compile(self, *args, scale=1.0, **kwargs):
        super().compile(*args, **kwargs)
        self.scale = scale


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: NoConfig(object()), "cannot be described by plain data.*get_config"),
        (lambda: LosesArgument(3), "cannot be rebuilt from its configuration.*units"),
    ],
)
def test_incomplete_configs_are_refused(layer, message, mlp):
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        ReplicaSpec.of(mlp("sgd", layer()))
    assert "config=" not in str(caught.value)  # Keras shows the configuration of the whole model.


def test_a_model_that_is_rebuilt_with_other_variables_is_refused():
    model = LosesUnits(5)
    model(np.ones((1, 3)))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        ReplicaSpec.of(model)


def test_what_an_own_compile_stores_is_restored():
    model = OwnCompile([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", "mse", scale=3.0)
    copy = build(crossed(ReplicaSpec.of(model))).model
    assert (copy.scale, copy.loss, type(copy).__name__) == (3.0, "mse", "OwnCompile")


class TwoOptimizers(keras.Sequential):
    def compile(self, *args, second=None, **kwargs):
        super().compile(*args, **kwargs)
        self.second = second


def test_a_second_optimizer_that_an_own_compile_stores_is_refused():
    model = TwoOptimizers([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", "mse", second=keras.optimizers.Adam())
    with pytest.raises(ValueError, match="comes back without second"):
        ReplicaSpec.of(model)


def test_a_layer_that_is_also_an_attribute_of_the_model_is_no_obstacle(mlp):
    model = mlp("adam", layers.Dense(3))
    model.encoder = model.layers[0]
    copy = build(crossed(ReplicaSpec.of(model))).model
    assert len(copy.variables) == len(model.variables)


class LosesCompilation(keras.Sequential):
    def compile_from_config(self, config):
        """Forget to compile."""


def test_lost_compile_arguments_are_refused():
    model = LosesCompilation([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="without its compile arguments"):
        ReplicaSpec.of(model)


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_changed_trainable_state_is_refused(mlp, rows):
    model = mlp("adam")
    model.fit(*rows(), verbose=0)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="Compile the model again"):
        ReplicaSpec.of(model)


# -- on the worker --------------------------------------------------------------------------


def test_a_worker_uses_the_backend_of_the_spec_and_unpickles_without_keras(mlp, tmp_path, process):
    model = mlp("sgd", Named(3))
    path = tmp_path / "spec.pickle"
    path.write_bytes(pickle.dumps(ReplicaSpec.of(model)))
    np.save(tmp_path / "vector.npy", Replica.of(model).get_vector())
    done = process(
        f"""
        import pickle, sys
        import numpy as np
        spec = pickle.loads(open({str(path)!r}, "rb").read())
        assert not {{"keras", "tensorflow", "pyspark"}} & set(sys.modules)
        from kspark.replica.building import build
        replica = build(spec, threads=3)
        import keras, tensorflow as tf
        assert keras.backend.backend() == "tensorflow"
        assert tf.config.threading.get_intra_op_parallelism_threads() == 3
        assert tf.config.threading.get_inter_op_parallelism_threads() == 3
        expected = np.load({str(tmp_path / "vector.npy")!r})
        np.testing.assert_array_equal(replica.get_vector(), expected)
        print(replica.model.layers[1].units)
        """,
        KERAS_BACKEND="jax",  # what the spec says counts
        PYTHON_WORKER_FACTORY_SECRET="of Spark",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["3"]


class Named(layers.Dense):
    """A layer that the worker's process has never heard of."""


def test_a_different_running_backend_raises_an_error(mlp):
    spec = ReplicaSpec.of(mlp())
    other = ReplicaSpec(**{**vars(spec), "backend": "torch"})
    with pytest.raises(EnvironmentMismatchError, match="'torch'.*'tensorflow'"):
        build(other)


def test_text_is_refused_on_backends_that_have_numbers_only(monkeypatch):
    words = layers.TextVectorization(vocabulary=["a"], output_mode="multi_hot")
    model = keras.Sequential([keras.Input((1,), dtype="string", name="t"), words, layers.Dense(1)])
    model.compile("sgd", "mse")
    assert ReplicaSpec.of(model).inputs.inputs[0].dtype == "string"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"'jax'.*as `preprocess`.* Received: text in .*\['t'\]"):
        ReplicaSpec.of(model)


def test_other_variables_on_the_worker_raise_an_error(mlp):
    spec, other = ReplicaSpec.of(mlp()), ReplicaSpec.of(mlp("sgd", layers.Dense(4)))
    mixed = ReplicaSpec(**{**vars(spec), "weights": other.weights})
    with pytest.raises(EnvironmentMismatchError, match="same version of Keras"):
        build(mixed)
