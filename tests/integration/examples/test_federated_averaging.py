"""`examples/federated_averaging.py` computes what kspark's default mode computes."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from pyspark.sql import SparkSession

from kspark import SparkModel

Arrays = list[np.ndarray]
Shards = list[tuple[np.ndarray, np.ndarray]]
Rounds = Callable[..., Iterator[Arrays]]

EPOCHS = 3
BATCH_SIZE = 8


@pytest.fixture
def federated_averaging(project: Path) -> Rounds:
    """The example's function."""
    return runpy.run_path(str(project / "examples" / "federated_averaging.py"))[
        "federated_averaging"
    ]


def network() -> keras.Model:
    """Statistics that are averaged, and an optimizer with state that is not."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def cut(x: np.ndarray, y: np.ndarray, sizes: list[int]) -> Shards:
    """Consecutive rows as shards of these sizes."""
    stops = np.cumsum(sizes)[:-1]
    return list(zip(np.split(x, stops), np.split(y, stops), strict=True))


def last_weights(rounds: Rounds, shards: Shards) -> Arrays:
    """The weights that the example has after its last round."""
    *_, weights = rounds(network(), shards, EPOCHS, BATCH_SIZE, shuffle=False)
    return weights


def fit(*data: object, num_workers: int | None = None) -> Arrays:
    """The weights of the same network after kspark's fit in the default mode."""
    spark_model = SparkModel(network(), num_workers=num_workers)
    spark_model.fit(*data, epochs=EPOCHS, batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    return spark_model.master_network.get_weights()


def assert_same(found: Arrays, expected: Arrays) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_slices_of_arrays_give_the_weights_of_the_example(
    spark: SparkSession, federated_averaging: Rounds
) -> None:
    x, y = rows(83)

    found = fit(x, y, num_workers=3)

    assert_same(found, last_weights(federated_averaging, cut(x, y, [28, 28, 27])))


def test_unequal_partitions_give_the_weights_of_the_example(
    spark: SparkSession, federated_averaging: Rounds
) -> None:
    shards = cut(*rows(58), [3, 37, 18])
    partitions = [list(zip(x, y, strict=True)) for x, y in shards]
    rdd = spark.sparkContext.parallelize(partitions, len(partitions)).flatMap(lambda part: part)

    found = fit(rdd)

    assert_same(found, last_weights(federated_averaging, shards))


def test_the_script_prints_the_accuracy_of_each_round(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(project / "examples" / "federated_averaging.py"), run_name="__main__")

    lines = capsys.readouterr().out.splitlines()
    accuracy = dict(
        re.fullmatch(r"Round (\d+): accuracy ([01]\.\d+)", line).groups() for line in lines
    )
    assert list(accuracy) == [str(n) for n in range(1, 11)]
    assert float(accuracy["10"]) > 0.85
    assert float(accuracy["10"]) > float(accuracy["1"])
