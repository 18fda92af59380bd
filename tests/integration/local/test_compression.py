"""Compressed deltas and gradients on `local[2]`: the same accuracy with fewer bytes."""

import keras
import numpy as np
import pytest

from kspark import SparkModel, load_spark_model
from kspark.compression import TopK
from kspark.errors import NonFiniteError
from kspark.live import sharing

ROADS = [("synchronous", "epoch"), ("synchronous", "batch"), ("asynchronous", 4)]
QUARTER = TopK(0.25)
CASES = [("synchronous", "epoch", "int8"), ("synchronous", "batch", "int8")]
CASES += [("synchronous", "batch", QUARTER), ("asynchronous", 4, "bfloat16")]
FURTHER = [("asynchronous", 4, "int8"), ("asynchronous", 4, QUARTER)]
FURTHER += [("synchronous", "epoch", "float16")]
CASES += [pytest.param(*case, marks=pytest.mark.thorough) for case in FURTHER]
EPOCHS, BATCH = 5, 25
EXCHANGES = {"epoch": 1, "batch": 24, 4: 6}
TRAINABLE, STATE = 868, 64


def made():
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(32, activation="tanh"),  # "relu" turns NaN into 0 on some processors
            keras.layers.BatchNormalization(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(1600, 20)).astype("float32")
    y = (x @ random.normal(size=(20, 4))).argmax(axis=1).astype("int32")
    return x[:1200], y[:1200], x[1200:], y[1200:]


def trained(mode, frequency, data, **more):
    """Train without a part that chance decides: asynchronous replicas go in lock-step."""
    x, y = data[:2]
    if mode == "asynchronous":
        more["max_staleness"] = 0
    spark_model = SparkModel(made(), mode, frequency, num_workers=2, seed=1, **more)
    spark_model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return spark_model


def accuracy(spark_model, data):
    return spark_model.master_network.evaluate(*data[2:], verbose=0, return_dict=True)["accuracy"]


def per_epoch(spark_model, name):
    """Bytes of all workers in an epoch: the second one, which the handshake is not in."""
    return sum(worker[name] for worker in spark_model.last_fit.workers[1])


@pytest.fixture(scope="module")
def plain(spark, data):
    """Fits without compression, one per road, which all send what they exchange."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "MAX_BYTES", 0)
        return {(mode, f): trained(mode, f, data) for mode, f in ROADS}


def compressed_bytes(codec, size):
    """What the documents say of each codec."""
    by_codec = {"float16": 2 * size, "bfloat16": 2 * size, "int8": size + 4, QUARTER: 8 * 217}
    return by_codec[codec]


@pytest.mark.parametrize(("mode", "frequency", "codec"), CASES)
def test_compression_keeps_the_accuracy_and_sends_fewer_bytes(
    spark, data, plain, mode, frequency, codec
):
    without = plain[mode, frequency]
    compressed = trained(mode, frequency, data, compression=codec)
    slack = 0.1 if codec is QUARTER else 0.06
    assert accuracy(compressed, data) > accuracy(without, data) - slack
    gradients = (mode, frequency) == ("synchronous", "batch")
    count = 2 * EXCHANGES[frequency]
    less = count * (4 * TRAINABLE - compressed_bytes(codec, TRAINABLE))
    # Besides these bytes only figures travel: a few digits of the seconds more or less; and
    # with an answer the driver's learning rate, as soon as it has one.
    saved = per_epoch(without, "bytes_sent") - per_epoch(compressed, "bytes_sent")
    assert saved == pytest.approx(less, abs=200)
    saved = per_epoch(without, "bytes_received") - per_epoch(compressed, "bytes_received")
    assert saved == pytest.approx(less if gradients else 0, abs=200 + 50 * count)
    if frequency == "epoch":
        size = compressed_bytes(codec, TRAINABLE) + 4 * STATE
        assert per_epoch(compressed, "bytes_sent") == 2 * size


@pytest.mark.parametrize(
    ("mode", "frequency", "codec"),
    [
        pytest.param("synchronous", "epoch", QUARTER, marks=pytest.mark.thorough),
        pytest.param("synchronous", "batch", QUARTER, marks=pytest.mark.thorough),
        ("synchronous", 4, "int8"),
    ],
)
def test_the_same_seed_gives_the_same_bytes(spark, data, mode, frequency, codec):
    runs = [trained(mode, frequency, data, compression=codec) for _ in range(2)]
    first, second = (run.master_network.get_weights() for run in runs)
    assert [w.tobytes() for w in first] == [w.tobytes() for w in second]


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [
        ("asynchronous", 4),
        pytest.param("synchronous", "epoch", marks=pytest.mark.thorough),
        pytest.param("synchronous", "batch", marks=pytest.mark.thorough),
    ],
)
def test_a_loss_that_is_not_finite_raises_an_error(spark, data, mode, frequency):
    x, y = data[0].copy(), data[1]
    x[7] = np.nan
    with pytest.raises(NonFiniteError):
        trained(mode, frequency, (x, y), compression="int8")


def test_the_compression_is_saved_and_loaded(spark, tmp_path):
    SparkModel(made(), compression=TopK(0.2)).save(str(tmp_path / "model.keras"))
    loaded = load_spark_model(str(tmp_path / "model.keras"))
    assert loaded.compression == TopK(0.2)
