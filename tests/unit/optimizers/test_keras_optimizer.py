"""Optimizers of Keras as rules. The oracle is the optimizer itself on the model's own variables."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from kspark import optimizers
from kspark.aggregator import Aggregator, Delta
from kspark.errors import IncompatibleDeltaError
from kspark.optimizers import KerasOptimizer, MergeContext
from kspark.optimizers.keras_config import make
from kspark.replica.variables import weight_spec

kopt = keras.optimizers


def works(name: str) -> bool:
    """Whether plain Keras can step with an optimizer: in Keras 3.12, `Muon` fails on TensorFlow."""
    ones = keras.ops.ones((2, 2))
    try:
        getattr(kopt, name)(0.01).apply([ones], [keras.Variable(ones)])
    except AttributeError:
        return False
    return True


WRAPPERS = ("Optimizer", "OptimizerMap", "LossScaleOptimizer", "MultiOptimizer")
NAMES = sorted(name for name in dir(kopt) if name[0].isupper() and name not in WRAPPERS)
KINDS = [name for name in NAMES if name != "Muon" or works(name)]
HAS_SEVERAL = hasattr(kopt, "MultiOptimizer")  # not in Keras 3.12
SYNCHRONOUS = MergeContext("synchronous")


def model_of_kinds() -> keras.Model:
    """A model with matrices, vectors and an embedding, and with statistics that are not trained."""
    keras.utils.set_random_seed(3)
    start = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(7, 3, name="table")(start)
    x = keras.layers.Flatten()(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(5, "tanh", name="hidden")(x)
    return keras.Model(start, keras.layers.Dense(2, name="head")(x))


def walk(model: keras.Model, steps: int = 3) -> list[list[np.ndarray]]:
    """Deltas of different lengths: one array per trainable variable and step."""
    rng = np.random.default_rng(7)
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    return [
        [rng.normal(0, 0.1 * 3.0**-i, shape).astype("float32") for shape in shapes]
        for i in range(steps)
    ]


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(a).reshape(-1) for a in arrays])


def trained_values(model: keras.Model) -> np.ndarray:
    return flat([keras.ops.convert_to_numpy(v) for v in model.trainable_variables])


def expected(optimizer: keras.optimizers.Optimizer, model: keras.Model, deltas) -> np.ndarray:
    """What the optimizer makes of the model's own variables, fed with minus the deltas."""
    for step in deltas:
        gradients = [keras.ops.convert_to_tensor(-d) for d in step]
        optimizer.apply_gradients(list(zip(gradients, model.trainable_variables, strict=True)))
    return trained_values(model)


def built(rule: KerasOptimizer, model: keras.Model) -> KerasOptimizer:
    spec = weight_spec(model)
    rule.lay_out(spec.trainable)
    rule.build(spec.trainable_size, spec.dtype)
    return rule


def moved(rule: KerasOptimizer, model: keras.Model, deltas, context=SYNCHRONOUS) -> np.ndarray:
    built(rule, model)
    weights = trained_values(model)
    for step in deltas:
        rule.apply(weights, flat(step), context)
    return weights


def check_equal(make_optimizer) -> None:
    model = model_of_kinds()
    deltas = walk(model)
    weights = moved(optimizers.get(make_optimizer()), model, deltas)
    theirs = expected(make_optimizer(), model, deltas)
    assert not np.array_equal(weights, trained_values(model_of_kinds()))
    np.testing.assert_allclose(weights, theirs, rtol=0, atol=1e-6)


# -- the step --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_every_optimizer_of_keras_moves_the_weights_as_in_plain_keras(name):
    check_equal(lambda: getattr(kopt, name)(0.01))


def excluding() -> keras.optimizers.Optimizer:
    optimizer = kopt.AdamW(0.05, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    return optimizer


def excluding_adam() -> keras.optimizers.Optimizer:
    optimizer = kopt.Adam(0.05, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    return optimizer


def several() -> keras.optimizers.Optimizer:
    by_path = {"hidden/.*": kopt.Adam(0.02), "head/kernel": kopt.Lion(0.01)}
    return kopt.MultiOptimizer(kopt.OptimizerMap(kopt.SGD(0.5, momentum=0.9), by_path))


PER_VARIABLE = {
    "clipnorm": lambda: kopt.SGD(0.5, momentum=0.9, clipnorm=0.05),
    "global_clipnorm": lambda: kopt.SGD(0.5, global_clipnorm=0.1),
    "clipvalue": lambda: kopt.SGD(0.5, clipvalue=0.02),
    "nesterov": lambda: kopt.SGD(0.7, momentum=0.9, nesterov=True),
    "weight decay but for names": excluding,
    "weight decay but for matrices": excluding_adam,
    "a schedule": lambda: kopt.Adam(kopt.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2, 0.3])),
}
if HAS_SEVERAL:
    PER_VARIABLE["optimizers by path"] = several
if "Muon" in KINDS:
    PER_VARIABLE["layers by path"] = lambda: kopt.Muon(0.01, exclude_layers=["head"])


@pytest.mark.parametrize("make_optimizer", PER_VARIABLE.values(), ids=PER_VARIABLE)
def test_what_looks_at_variables_works_as_in_plain_keras(make_optimizer):
    check_equal(make_optimizer)


def test_weights_that_others_change_between_two_steps_are_taken_over():
    """Constraints and callbacks change them."""
    model, rule = model_of_kinds(), optimizers.get(kopt.SGD(0.5))
    first, second = (flat(step) for step in walk(model, 2))
    built(rule, model)
    weights = trained_values(model)
    rule.apply(weights, first, SYNCHRONOUS)
    weights[:] = 1
    rule.apply(weights, second, SYNCHRONOUS)
    np.testing.assert_allclose(weights, 1 + 0.5 * second, rtol=1e-6)


def test_a_push_takes_its_share_of_the_step():
    model = model_of_kinds()
    deltas, start = walk(model, 1), trained_values(model)
    whole = moved(optimizers.get(kopt.Lion(0.01)), model, deltas)
    context = MergeContext("asynchronous", share=0.25)
    quarter = moved(optimizers.get(kopt.Lion(0.01)), model, deltas, context)
    np.testing.assert_allclose(quarter - start, (whole - start) / 4, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_weights_change_in_place_and_the_delta_does_not(dtype, share):
    whole, delta = np.arange(6, dtype=dtype), np.array([1, -2, 0.5], dtype)
    rule = optimizers.get(kopt.SGD(0.5))
    rule.build(3, dtype)
    rule.apply(whole[:3], delta, MergeContext("asynchronous", share=share))
    np.testing.assert_allclose(whole, [0.5 * share, 1 - share, 2 + 0.25 * share, 3, 4, 5])
    np.testing.assert_array_equal(delta, [1, -2, 0.5])


@pytest.mark.parametrize("delta", [np.ones(1, "float32"), np.ones(3, "float64")], ids=str)
def test_a_delta_of_another_shape_or_dtype_changes_nothing(delta):
    weights, rule = np.zeros(3, "float32"), optimizers.get(kopt.Adam())
    rule.build(3, "float32")
    with pytest.raises(IncompatibleDeltaError):
        rule.apply(weights, delta, SYNCHRONOUS)
    assert weights.tolist() == [0, 0, 0]
    assert rule.get_state() == {}


def test_a_model_without_trainable_weights_is_left_alone():
    rule = optimizers.get(kopt.Adam())
    rule.lay_out(())
    rule.build(0, "float32")
    rule.apply(np.zeros(0, "float32"), np.zeros(0, "float32"), SYNCHRONOUS)
    assert rule.get_state() == {}


def test_statistics_take_the_mean_and_not_a_step_of_the_optimizer():
    model = model_of_kinds()
    spec = weight_spec(model)
    vector = np.zeros(spec.size, "float32")
    aggregator = Aggregator(spec, vector, optimizers.get(kopt.SGD(0.5)), "synchronous")
    aggregator.merge(
        [
            Delta(0, np.ones(spec.size, "float32"), 1),
            Delta(1, np.full(spec.size, 5, "float32"), 3),
        ]
    )
    cut = spec.trainable_size
    assert cut < spec.size
    assert set(vector[:cut]) == {np.float32(2.0)}
    assert set(vector[cut:]) == {np.float32(4.0)}


# -- state -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["AdamW", "SGD", *sorted({"Muon", "ScheduleFreeAdamW"} & set(KINDS))]
)
def test_a_rule_with_saved_state_continues_exactly(name):
    schedule = kopt.schedules.ExponentialDecay(0.1, 1, 0.5)
    model = model_of_kinds()
    deltas = [flat(step) for step in walk(model, 6)]
    rule = built(optimizers.get(getattr(kopt, name)(schedule)), model)
    straight, weights = trained_values(model), trained_values(model)
    one = built(rule.clone(), model)
    for delta in deltas:
        one.apply(straight, delta, SYNCHRONOUS)
    for delta in deltas[:3]:
        rule.apply(weights, delta, SYNCHRONOUS)
    config = json.loads(json.dumps(optimizers.serialize(rule)))
    resumed = built(optimizers.deserialize(config), model)
    resumed.set_state(rule.get_state())
    for delta in deltas[3:]:
        resumed.apply(weights, delta, SYNCHRONOUS)
    np.testing.assert_array_equal(weights, straight)


def momentum(rate: float = 0.5) -> KerasOptimizer:
    rule = optimizers.get(kopt.SGD(rate, momentum=0.5))
    rule.build(3, "float32")
    return rule


def steps(rule: KerasOptimizer, count: int) -> np.ndarray:
    weights = np.zeros(3, "float32")
    for _ in range(count):
        rule.apply(weights, np.ones(3, "float32"), SYNCHRONOUS)
    return weights


def test_the_state_is_copied_and_independent_of_names_and_backends():
    rule = momentum()
    steps(rule, 2)
    state = rule.get_state()
    assert set(state) == {"SGD/0", "SGD/1"}
    assert (state["SGD/0"].dtype, int(state["SGD/0"])) == (np.dtype("int64"), 2)
    other = momentum()
    other.set_state(state)
    state["SGD/1"][:] = 99
    for each in (rule, other):
        np.testing.assert_allclose(each.get_state()["SGD/1"], 0.75, rtol=1e-6)


def test_the_learning_rate_belongs_to_the_configuration_and_not_to_the_state():
    rule, faster = momentum(0.5), momentum(1.0)
    steps(rule, 1)
    faster.set_state(rule.get_state())
    np.testing.assert_allclose(steps(faster, 1), 0.5 * 0.5 + 1.0, rtol=1e-6)


def test_an_empty_state_is_that_before_the_first_delta():
    rule = momentum()
    first = steps(rule, 2)
    rule.set_state({})
    assert rule.get_state() == {}
    np.testing.assert_array_equal(steps(rule, 2), first)


def test_state_of_another_optimizer_is_refused_and_changes_nothing():
    rule, other = momentum(), optimizers.get(kopt.Lion(0.5))
    other.build(3, "float32")
    steps(rule, 1)
    steps(other, 1)
    before = rule.get_state()
    with pytest.raises(ValueError, match="`state` must be the arrays .*SGD/0.*Received: .*Lion/0"):
        rule.set_state(other.get_state())
    for name, array in rule.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_building_for_another_vector_is_refused():
    with pytest.raises(ValueError, match=r"`\(size, dtype\)` must be \(3, float32\)"):
        momentum().build(4, "float32")


def test_a_clone_has_the_configuration_and_no_state():
    rule = optimizers.get(excluding())
    rule.build(3, "float32")
    steps(rule, 1)
    clone = rule.clone()
    assert clone.get_config() == rule.get_config()
    assert clone.get_state() == {}


def test_the_given_optimizer_does_not_change():
    """It may be the one that the model is compiled with."""
    given = kopt.SGD(0.5, momentum=0.9)
    before = (given.get_config(), [v.path for v in given.variables], set(vars(given)))
    rule = optimizers.get(given)
    rule.build(3, "float32")
    steps(rule, 2)
    assert (given.get_config(), [v.path for v in given.variables], set(vars(given))) == before
    assert not given.built
    assert int(given.iterations) == 0


# -- configuration ---------------------------------------------------------------------------


class OwnRate(kopt.schedules.LearningRateSchedule):
    """A schedule that is not registered."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.rate = rate

    def __call__(self, step):
        return keras.ops.cast(self.rate, "float32")

    def get_config(self):
        return {"rate": self.rate}


class OwnOptimizer(kopt.SGD):
    """An optimizer that is not registered, and walks backwards."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(-gradient, variable, learning_rate)


def test_own_classes_need_not_be_registered_in_the_same_process():
    rule = optimizers.get(OwnOptimizer(OwnRate(0.25)))
    rule.build(3, "float32")
    assert steps(rule, 1).tolist() == [-0.25] * 3
    clone = rule.clone()
    clone.build(3, "float32")
    assert steps(clone, 1).tolist() == [-0.25] * 3


def test_own_classes_in_a_configuration_are_custom_objects():
    config = optimizers.serialize(optimizers.get(OwnOptimizer(OwnRate())))
    objects = {"OwnOptimizer": OwnOptimizer, "OwnRate": OwnRate}
    rule = optimizers.get(json.loads(json.dumps(config)), objects)
    rule.check_mode("synchronous")
    rule.build(3, "float32")
    assert steps(rule, 1).tolist() == [-0.5] * 3
    with keras.saving.custom_object_scope(objects):
        optimizers.get(config).check_mode("synchronous")


def test_a_configuration_of_unknown_classes_is_refused_when_it_is_used():
    """Stages store it before they know the custom objects."""
    config = optimizers.serialize(optimizers.get(OwnOptimizer(OwnRate())))
    rule = optimizers.get(config, {"OwnOptimizer": OwnOptimizer})
    assert optimizers.serialize(rule) == config
    with pytest.raises(ValueError, match="`custom_objects` must be a mapping that has .*OwnRate"):
        rule.check_mode("synchronous")


def test_a_configuration_of_keras_is_accepted():
    config = keras.optimizers.serialize(kopt.AdamW(0.5))
    rule = optimizers.get(config)
    assert type(rule) is KerasOptimizer
    assert repr(rule) == "KerasOptimizer(AdamW)"
    assert rule.get_config()["exclude_from_weight_decay"] == []
    assert rule.get_config()["optimizer"]["config"] == config["config"]


@pytest.mark.parametrize("backend", ["torch", "another"])
def test_a_configuration_names_the_public_class_and_not_that_of_a_backend(backend):
    schedule = kopt.schedules.CosineDecay(0.5, 10)
    config = keras.optimizers.serialize(kopt.SGD(schedule))
    public = {**config, "module": "keras.optimizers", "registered_name": None}
    own = {"module": f"keras.src.backend.{backend}.optimizers.sgd", "registered_name": "SGD"}
    rule = optimizers.get({**config, **own})
    assert rule.get_config()["optimizer"] == public
    rule.build(3, "float32")
    assert steps(rule, 1).tolist() == [0.5] * 3


def test_names_to_exclude_from_weight_decay_add_up():
    rule = KerasOptimizer(excluding(), exclude_from_weight_decay=["beta"])
    names = rule.get_config()["exclude_from_weight_decay"]
    assert names[0] == "beta"
    assert set(names[1].split("|")) == {"bias", "gamma"}
    again = optimizers.deserialize(optimizers.serialize(rule))
    assert again.get_config() == rule.get_config()


def test_a_rule_of_ones_own_cannot_take_the_name():
    with pytest.raises(ValueError, match="another name than kspark.optimizers.keras_optimizer"):
        optimizers.register(type("KerasOptimizer", (optimizers.Average,), {}))


# -- refusals --------------------------------------------------------------------------------


def used() -> keras.optimizers.Optimizer:
    optimizer = kopt.AdamW()
    optimizer.build([keras.Variable(np.zeros(3))])
    return optimizer


def without_one_variable() -> keras.optimizers.Optimizer:
    optimizer = kopt.AdamW()
    optimizer.exclude_from_weight_decay(var_list=[keras.Variable(np.zeros(3))])
    return optimizer


def named_rate() -> float:
    return 0.1


def wrapped(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    return kopt.MultiOptimizer(kopt.OptimizerMap(optimizer))


REFUSED = {
    "built": (used, "a Keras optimizer that was not used before"),
    "var_list": (without_one_variable, r"exclude_from_weight_decay\(var_names=...\)"),
    "function": (lambda: kopt.SGD(named_rate), "a Keras optimizer without functions"),
    "ema": (lambda: kopt.SGD(use_ema=True), "a Keras optimizer without `use_ema`"),
    "accumulation": (
        lambda: kopt.SGD(gradient_accumulation_steps=2),
        "a Keras optimizer without `gradient_accumulation_steps`",
    ),
    "loss scale": (lambda: kopt.SGD(loss_scale_factor=8.0), "without a loss scale"),
    "dynamic loss scale": (lambda: kopt.LossScaleOptimizer(kopt.SGD()), "without a loss scale"),
}
if HAS_SEVERAL:
    REFUSED |= {
        "ema inside": (lambda: wrapped(kopt.SGD(use_ema=True)), "without `use_ema`"),
        "names inside": (lambda: wrapped(excluding()), "or inside of a `MultiOptimizer`"),
    }


@pytest.mark.parametrize(("make_optimizer", "rule"), REFUSED.values(), ids=REFUSED)
def test_an_optimizer_that_cannot_be_a_rule_is_refused(make_optimizer, rule):
    with pytest.raises(ValueError, match=f"`server_optimizer` must be .*{rule}.*Received: server"):
        optimizers.get(make_optimizer())


PUBLIC = {"module": "keras.optimizers", "class_name": "SGD", "config": {}, "registered_name": None}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"config": {"rate": 1}}, "an optimizer that Keras can make from its configuration"),
        ({"class_name": "NoSuch"}, "an optimizer that Keras can make from its configuration"),
        (
            {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}},
            "the configuration of a Keras optimizer",
        ),
    ],
)
def test_a_malformed_configuration_is_refused(part, message):
    with pytest.raises(ValueError, match=f"`server_optimizer` must be {message}"):
        optimizers.get({**PUBLIC, **part})


def test_the_rule_cannot_be_made_by_its_name():
    with pytest.raises(ValueError, match="must be a `keras.optimizers.Optimizer` instead of the n"):
        optimizers.get("keras_optimizer")
    with pytest.raises(ValueError, match="must be one of") as refused:
        optimizers.get("adamm")
    assert "keras_optimizer" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "adam"}, "`optimizer` must be a `keras.optimizers.Optimizer` or its conf"),
        (
            {"optimizer": kopt.SGD(), "exclude_from_weight_decay": [3]},
            "`exclude_from_weight_decay` must be a sequence of strings",
        ),
        (
            {"optimizer": kopt.SGD(), "exclude_from_weight_decay": "bias"},
            "a sequence of strings. Received: exclude_from_weight_decay='bias'",
        ),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        KerasOptimizer(**arguments)


def test_a_push_without_a_lock_is_refused_with_the_reason():
    rule = optimizers.get(kopt.SGD())
    for mode in ("synchronous", "asynchronous"):
        rule.check_mode(mode)
    with pytest.raises(ValueError, match='mode="hogwild"; .*must change together, under a lock'):
        rule.check_mode("hogwild")


def test_parts_of_a_configuration_are_found_in_lists():
    with pytest.raises(ValueError, match="without functions"):
        make({**PUBLIC, "more": [{"class_name": "__lambda__"}]}, [], {})
