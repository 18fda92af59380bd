"""Generates compiled models, as people write them, from the seed of a random generator.

A sentence of the grammar is an input, some layers (with constraints, regularizers, wrappers, frozen
parts, LoRA or quantization), an optimizer, a loss and metrics. Much of it has no `get_config`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark.errors import WorkerError

layers, ops = keras.layers, keras.ops

ROWS, WIDTH = 20, 4
FACTOR = 0.5


@dataclass(frozen=True)
class Sentence:
    """A compiled model with data to train it.

    Attributes:
        model: Compiled `keras.Model`.
        x: Array of the features.
        y: Array of the labels.
        words: List of the choices that made the model.
    """

    model: keras.Model
    x: np.ndarray
    y: np.ndarray
    words: list[str] = field(default_factory=list)


def sentence(seed: int) -> Sentence:
    """Make the model of a seed. Equal seeds give equal models."""
    return Writer(seed).write()


# -- the words ----------------------------------------------------------------------------------


class Pinball(keras.losses.Loss):
    def __init__(self, q=0.5, **kwargs):
        super().__init__(**kwargs)
        self.q = q

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.q * error, (self.q - 1) * error), axis=-1)


class Scheduled(keras.losses.Loss):
    """A loss with a variable of its own, and an argument without a default."""

    def __init__(self, weight):
        super().__init__(name="scheduled")
        self.weight = keras.Variable(weight, trainable=False)

    def call(self, y_true, y_pred):
        return self.weight * ops.mean(ops.abs(y_true - y_pred), axis=-1)


class Share(keras.metrics.Metric):
    def __init__(self, above, **kwargs):
        super().__init__(**kwargs)
        self.above = above
        self.hits = self.add_weight((), "zeros", name="hits")
        self.seen = self.add_weight((), "zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.hits.assign_add(ops.sum(ops.cast(y_pred > self.above, "float32")))
        self.seen.assign_add(ops.cast(ops.size(y_pred), "float32"))

    def result(self):
        return self.hits / self.seen


class Bounded(keras.constraints.Constraint):
    def __init__(self, limit=9.0):
        self.limit = limit

    def __call__(self, value):
        return ops.clip(value, -self.limit, self.limit)


class Pull(keras.regularizers.Regularizer):
    def __init__(self, strength=0.0):
        self.strength = strength

    def __call__(self, value):
        return self.strength * ops.sum(ops.square(value - 1.0))

    def get_config(self):
        return {}


class Scaled(layers.Layer):
    """A layer whose attribute changes after it was made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1.0

    def call(self, x):
        return x * self.factor


class Rise(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak):
        self.peak = peak

    def __call__(self, step):
        return self.peak * ops.minimum(ops.cast(step + 1, "float32") / 5.0, 1.0)


class Damped(keras.optimizers.SGD):
    def __init__(self, damping=1.0, **kwargs):
        super().__init__(**kwargs)
        self.damping = damping

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.damping)


class Block(keras.Model):
    """A subclassed model."""

    def __init__(self, units=3, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rate = units, rate
        self.dense = layers.Dense(units, "tanh")
        self.dropout = layers.Dropout(rate)

    def call(self, x, training=False):
        return self.dropout(self.dense(x), training=training)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.built = True

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rate": self.rate}


def power(exponent):
    def loss(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** exponent, axis=-1)

    return loss


def softsign(x):
    return x / (FACTOR + ops.abs(x))


def leaky(slope):
    def activation(x):
        return ops.maximum(x, slope * x)

    return activation


# -- the grammar --------------------------------------------------------------------------------


class Writer:
    """Writes one sentence.

    Args:
        seed: Integer.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.words: list[str] = []
        keras.utils.set_random_seed(seed)

    def write(self) -> Sentence:
        """Build, change and compile a model, and make its data."""
        before = keras.config.dtype_policy()
        policy = self.choose(["float32"] * 6 + ["mixed_bfloat16", "mixed_float16"])
        keras.config.set_dtype_policy(policy)
        try:
            x, model = self.build()
            self.change(model)
            self.compile(model)
        finally:
            keras.config.set_dtype_policy(before)
        y = self.numbers.normal(size=(ROWS, *model.output_shape[1:])).astype("float32")
        return Sentence(model, x, y, self.words)

    def choose(self, options):
        """Choose one of some options, and note it."""
        chosen = self.random.choice(options)
        self.words.append(getattr(chosen, "__name__", None) or str(chosen))
        return chosen

    def maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    # -- architecture ---------------------------------------------------------------------------

    def build(self):
        kind = self.choose(["vector", "vector", "sequence", "tokens", "image"])
        first = getattr(self, f"{kind}_input")
        x, start, layer_list = first()
        body = [self.inner() for _ in range(self.random.randint(1, 3))]
        last = layers.Dense(self.random.randint(1, 2), dtype="float32")
        if self.choose(["sequential", "functional"]) == "sequential":
            return x, keras.Sequential([start, *layer_list, *body, last])
        tensor = start
        for layer in layer_list:
            tensor = layer(tensor)
        for layer in body:
            tensor = layer(tensor)
        if self.maybe(0.4):
            self.words.append("residual")
            width = int(tensor.shape[-1])
            tensor = layers.Add()([tensor, layers.Dense(width)(tensor)])
        return x, keras.Model(start, last(tensor))

    def vector_input(self):
        return self.numbers.normal(size=(ROWS, WIDTH)).astype("float32"), keras.Input((WIDTH,)), []

    def sequence_input(self):
        x = self.numbers.normal(size=(ROWS, 3, WIDTH)).astype("float32")
        recurrent = self.choose([layers.LSTM, layers.GRU, layers.SimpleRNN])(3)
        if self.maybe(0.3):
            recurrent = layers.Bidirectional(recurrent)
        timed = [layers.TimeDistributed(layers.Dense(3))] if self.maybe(0.3) else []
        return x, keras.Input((3, WIDTH)), [*timed, recurrent]

    def tokens_input(self):
        x = self.numbers.integers(0, 9, size=(ROWS, 5))
        pool = self.choose([layers.GlobalAveragePooling1D, layers.Flatten])()
        return x, keras.Input((5,), dtype="int64"), [layers.Embedding(9, 3), pool]

    def image_input(self):
        x = self.numbers.normal(size=(ROWS, 5, 5, 1)).astype("float32")
        convolution = self.choose([layers.Conv2D, layers.SeparableConv2D])(2, 3, padding="same")
        return x, keras.Input((5, 5, 1)), [convolution, layers.GlobalAveragePooling2D()]

    def inner(self):
        makers = [
            *[self.dense] * 4,
            *(self.own_layer, self.lambda_layer, self.normalized, self.noisy),
            *(self.nested, self.subclassed, self.wrapped),
        ]
        return self.choose(makers)()

    def dense(self):
        kernels = [Bounded(0.3), keras.constraints.NonNeg(), keras.constraints.UnitNorm()]
        return layers.Dense(
            self.random.randint(2, 4),
            self.choose(["relu", "tanh", softsign, leaky(0.1), leaky(0.3)]),
            kernel_constraint=self.random.choice([None] * 3 + kernels),
            bias_constraint=self.random.choice([None, None, Bounded(0.2)]),
            kernel_regularizer=self.random.choice([None, None, "l2", Pull(0.1)]),
        )

    def own_layer(self):
        layer = Scaled()
        layer.factor = self.random.choice([0.5, 2.0])
        return layer

    def lambda_layer(self):
        return layers.Lambda(self.random.choice([lambda x: x * FACTOR, lambda x: x + 1.0]))

    def normalized(self):
        """A normalization. No bias comes right before `BatchNormalization`.

        It would be subtracted again, so that its gradient is nothing but rounding, of which Adam
        makes whole steps.
        """
        kind = self.choose([layers.BatchNormalization, layers.LayerNormalization])
        if kind is layers.LayerNormalization:
            return kind()
        return keras.Sequential([layers.Activation("softsign"), kind()])

    def noisy(self):
        kind = self.choose([layers.Dropout, layers.GaussianNoise])
        return kind(0.3, seed=self.random.choice([None, 7]))

    def nested(self):
        return keras.Sequential([layers.Dense(3), self.noisy(), layers.Dense(2, softsign)])

    def subclassed(self):
        return Block(self.random.randint(2, 3), self.random.choice([0.0, 0.3]))

    def wrapped(self):
        return layers.SpectralNormalization(layers.Dense(3))

    # -- changes after the model was made -------------------------------------------------------

    def change(self, model) -> None:
        dense = [layer for layer in model.layers if type(layer) is layers.Dense][:-1]
        plain = [layer for layer in dense if layer.kernel_constraint is None]
        if plain and self.maybe(0.3):
            self.words.append("lora")
            plain[0].enable_lora(2)
        elif plain and self.maybe(0.15) and plain[0].compute_dtype != "float16":
            self.words.append("int8")  # Keras refuses it for float16.
            plain[0].quantize("int8")
        if self.maybe(0.25) and len(model.layers) > 2:
            self.words.append("frozen layer")
            model.layers[1].trainable = False
        if self.maybe(0.25) and len(model.trainable_variables) > 2:
            self.words.append("frozen variable")
            model.trainable_variables[0].trainable = False

    # -- compilation ----------------------------------------------------------------------------

    def compile(self, model) -> None:
        optimizer = self.choose(OPTIMIZERS)()
        if hasattr(optimizer, "weight_decay") and optimizer.weight_decay and self.maybe(0.5):
            self.words.append("exclusions")
            optimizer.exclude_from_weight_decay(var_list=model.trainable_variables[:1])
        loss = self.choose(LOSSES)()
        metrics = [make() for make in self.random.sample(METRICS, self.random.randint(0, 2))]
        if self.maybe(0.2):
            self.words.append("compiled twice")
            model.compile("sgd", "mse", metrics=["mae"])
            metrics = metrics or None
        model.compile(optimizer, loss, metrics=metrics, run_eagerly=True, jit_compile=False)


def adam_w():
    return keras.optimizers.AdamW(0.05, weight_decay=0.3)


def decaying():
    return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5), 0.9)


def rising():
    return keras.optimizers.Adam(Rise(0.05))


def accumulating():
    return keras.optimizers.Adam(0.02, gradient_accumulation_steps=2)


def averaged():
    return keras.optimizers.SGD(0.02, use_ema=True, ema_overwrite_frequency=2)


def clipped():
    return keras.optimizers.RMSprop(0.01, global_clipnorm=0.5)


def lion():
    return keras.optimizers.Lion(0.005)


def damped():
    return Damped(0.5, learning_rate=0.05, momentum=0.5)


def pinball():
    return Pinball(0.8)


def scheduled():
    return Scheduled(0.7)


def cubed():
    return power(3)


def huber():
    return keras.losses.Huber(0.4)


def summed():
    return keras.losses.MeanAbsoluteError(reduction="sum")


def mean_squared():
    return "mse"


def as_lambda():
    return lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred) * FACTOR, axis=-1)


OPTIMIZERS = [adam_w, adam_w, decaying, rising, accumulating, averaged, clipped, lion, damped]
LOSSES = [pinball, scheduled, cubed, huber, summed, mean_squared, as_lambda]
METRICS = [
    lambda: "mae",
    lambda: Share(0.2, name="share"),
    lambda: power(1),
    lambda: keras.metrics.RootMeanSquaredError(),
    lambda: Pinball(0.3, name="pinball"),
]


# -- comparison ---------------------------------------------------------------------------------

FIT = {"epochs": 2, "shuffle": False, "verbose": 0}
BATCH = 8


def check_trains_as_in_keras(way, seeds) -> None:
    """Train the models of some seeds with Keras and in another way, and compare both.

    At most 5 % of the models may be refused, and only those of which no copy can be made, so that
    all ways refuse the same ones. Where Keras' loss is not finite, the other way must say so.
    At most 5 % may be models that Keras itself cannot train.

    Args:
        way: Function of a `Sentence`. It returns the trained model and the history.
        seeds: Sequence of integers.
    """
    refused, failed = {}, {}
    for seed in seeds:
        expected, made = sentence(seed), sentence(seed)
        print(f"model {seed}: {made.words}")  # shown if the test fails
        try:
            kept = expected.model.fit(expected.x, expected.y, batch_size=BATCH, **FIT).history
        except tf.errors.InvalidArgumentError as error:  # float32 and bfloat16 in one sum
            failed[seed] = str(error)
            continue
        if not np.isfinite(kept["loss"]).all():
            with pytest.raises(WorkerError, match="The loss is NaN or infinite"):
                way(made)
            continue
        try:
            model, history = way(made)
        except ValueError as error:
            refused[seed] = str(error)
            continue
        for ours, theirs in zip(model.variables, expected.model.variables, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6, err_msg=theirs.path)
        assert history.keys() == kept.keys()
        for name, values in history.items():
            np.testing.assert_allclose(values, kept[name], rtol=1e-4, atol=1e-6)
    assert len(refused) <= 0.05 * len(seeds), refused
    assert len(failed) <= 0.05 * len(seeds), failed
    assert all("cannot be" in message for message in refused.values()), refused
