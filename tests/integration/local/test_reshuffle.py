"""Rows that are mixed between the workers again and again, on `local[2]`."""

import logging
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.plan import Mixing

SEED, BATCH = 5, 8


@keras.saving.register_keras_serializable("tests")
class Ids(keras.metrics.Metric):
    """Counts rows, and sums their ids and the squares of these, which are the labels."""

    def __init__(self, name="ids", **kwargs):
        super().__init__(name=name, **kwargs)
        self.sums = self.add_variable((3,), "zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        ids = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), self.dtype)
        powers = [keras.ops.sum(ids**power) for power in range(3)]
        self.sums.assign_add(keras.ops.stack(powers))

    def result(self):
        return {"rows": self.sums[0], "ids": self.sums[1], "squares": self.sums[2]}


def network(optimizer="adam"):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def partitions(sizes):
    """Arrays of partitions, each of which has labels of its own."""
    random = np.random.default_rng(0)
    made = [
        (random.normal(size=(n, 6)) + np.eye(3, 6)[k % 3], np.full(n, k % 3))
        for k, n in enumerate(sizes)
    ]
    return [(x.astype("float32"), y.astype("int32")) for x, y in made]


def rdd_of(spark, parts):
    rows = [list(zip(x, y, strict=True)) for x, y in parts]
    return spark.sparkContext.parallelize(rows, len(rows)).flatMap(lambda part: part)


def mixed(parts, period):
    """Mix by hand: deal the shuffled rows of each partition, and shuffle those of each shard."""
    mixing = Mixing(SEED, period, {k: len(y) for k, (_, y) in enumerate(parts)})
    hands = [[] for _ in parts]
    for k, (x, y) in enumerate(parts):
        order = mixing.reading(k).permutation(len(y))
        for shard, part, chosen in mixing.dealt(k, 0, len(y)):
            assert part == 0
            hands[shard] += [(x[i], y[i]) for i in order[chosen]]
    shards = []
    for shard, hand in enumerate(hands):
        order = mixing.writing(shard, 0).permutation(len(hand))
        x, y = zip(*[hand[i] for i in order], strict=True)
        shards.append((np.stack(x), np.array(y)))
    return shards


def averaged(parts, held_out, epochs, every):
    """Federated averaging in plain Keras. Returns the model, and its losses on `held_out`."""
    copies, model, losses = [network() for _ in parts], network(), []
    for epoch in range(epochs):
        trained, counts = [], []
        for copy, (x, y) in zip(copies, mixed(parts, epoch // every), strict=True):
            copy.set_weights(model.get_weights())
            copy.fit(x, y, BATCH, shuffle=False, verbose=0)
            trained.append(copy.get_weights())
            counts.append(len(y))
        model.set_weights(
            [np.average(w, axis=0, weights=counts) for w in zip(*trained, strict=True)]
        )
        losses.append(model.evaluate(*held_out, verbose=0))
    return model, losses


@pytest.mark.parametrize(("road", "sizes"), [("rounds", (40, 0, 20)), ("live", (40, 20))])
def test_mixed_rows_are_trained_as_in_plain_keras(spark, road, sizes, caplog):
    """Sorted and uneven partitions. The state of Adam stays with the number of the shard."""
    parts = partitions(sizes)
    cuts = [n * 4 // 5 for n in sizes]
    train = [(x[:cut], y[:cut]) for (x, y), cut in zip(parts, cuts, strict=True)]
    held_out = [
        np.concatenate([part[i][cut:] for part, cut in zip(parts, cuts, strict=True)])
        for i in (0, 1)
    ]
    expected, losses = averaged(train, held_out, 3, 2)
    model = network()
    spark_model = SparkModel(model, road=road, seed=SEED, batch_size=BATCH)
    history = spark_model.fit(
        rdd_of(spark, parts),
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_split=0.2,
        reshuffle=2,
    )
    assert spark_model.last_fit.road == road
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(history.history["val_loss"], losses, atol=1e-5)
    for workers in spark_model.last_fit.workers:
        counts = [worker["num_examples"] for worker in workers]
        assert counts == [-(-(sum(cuts) - k) // len(sizes)) for k in range(len(sizes))]
    assert "uneven" not in caplog.text


@pytest.mark.parametrize(
    ("mode", "frequency"), [("synchronous", "batch"), ("asynchronous", 2), ("hogwild", 2)]
)
def test_every_row_counts_once_per_epoch_in_all_modes(spark, mode, frequency):
    ids = np.arange(40, dtype="float32")
    rows = spark.sparkContext.parallelize([ids[:3], ids[3:]], 2).flatMap(
        lambda part: [(np.array([i], "float32"), np.array([i], "float32")) for i in part]
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[Ids()])
    spark_model = SparkModel(model, mode, frequency, batch_size=BATCH)
    history = spark_model.fit(rows, epochs=3, verbose=0, reshuffle="epoch").history
    assert history["rows"] == [40] * 3
    assert history["ids"] == [ids.sum()] * 3
    assert history["squares"] == [(ids**2).sum()] * 3
    for workers in spark_model.last_fit.workers:
        assert [worker["num_examples"] for worker in workers] == [20, 20]
        assert all(worker["state_kept"] for worker in workers)


def test_one_shard_equals_plain_fit(spark, caplog):
    (x, y), plain, ours = partitions([30])[0], network(), network()
    plain.fit(x, y, BATCH, 2, shuffle=False, verbose=0)
    with caplog.at_level(logging.INFO, "kspark"):
        SparkModel(ours, num_workers=1).fit(
            x, y, BATCH, 2, shuffle=False, verbose=0, reshuffle="epoch"
        )
    assert "mixed" not in caplog.text
    for a, b in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


class Folders(keras.callbacks.Callback):
    """Counts the folders of shards on the disk after each epoch, and removes them after some."""

    def __init__(self, folders, lost=()):
        super().__init__()
        self.folders, self.lost, self.counts = folders, lost, []

    def found(self):
        return [path for one in self.folders for path in Path(one).glob("kspark-*/shard-*")]

    def on_epoch_end(self, epoch, logs=None):
        self.counts.append(len(self.found()))
        for path in self.found() if epoch in self.lost else ():
            shutil.rmtree(path)


def test_lost_files_another_road_and_a_later_beginning_change_no_byte(spark):
    """With SGD, because a second `fit` begins with the mean of the workers' states."""
    folders = spark.sparkContext.parallelize([0], 1).map(lambda _: os.environ["SPARK_LOCAL_DIRS"])
    folders = folders.first().split(",")
    parts, models, disks = partitions((30, 30)), [], []
    for road, lost, ends in (
        ("live", (), [4]),
        ("rounds", (), [4]),
        ("live", (0, 1), [4]),
        ("live", (), [3, 4]),
    ):
        model, disk = network(keras.optimizers.SGD(0.1)), Folders(folders, lost)
        spark_model = SparkModel(model, road=road, seed=SEED, batch_size=BATCH)
        for first, end in zip([0, *ends], ends, strict=False):
            spark_model.fit(
                *map(np.concatenate, zip(*parts, strict=True)),
                epochs=end,
                initial_epoch=first,
                verbose=0,
                callbacks=[disk],
                reshuffle=2,
            )
        models.append(model)
        disks.append(disk)
        assert disk.found() == []
    for other in models[1:]:
        for a, b in zip(other.get_weights(), models[0].get_weights(), strict=True):
            assert a.tobytes() == b.tobytes()
    # Two shards as they were spooled, and two of the period.
    assert [disk.counts for disk in disks] == [[4] * 4] * 4
