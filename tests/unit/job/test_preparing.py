"""Number of workers, held out examples, checks of labels, the log; without Spark."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.adapters.files import FileExamples
from kspark.errors import NotEnoughSlotsError
from kspark.job.fit import Fit
from kspark.job.preparing import check_steps, divide, divide_validation, log_plan, placed
from kspark.optimizers import Average
from kspark.plan import TrainingPlan
from kspark.shards import LabelStats, ShardHandle, StoredArray


def timed_plan(**more):
    return TrainingPlan.create(mode="synchronous", frequency="epoch", straggler_timeout=2.5, **more)


def four_slots():
    """Stand for a session whose number of task slots does not change."""
    context = SimpleNamespace(master="local[4]", getConf=dict)
    return SimpleNamespace(sparkContext=context, conf={})


def labelled(*labels):
    """Spooled examples with these labels."""
    facts = LabelStats.of(np.array(labels))
    stored = StoredArray("y0", "int64", (), "y0.bin", 8 * len(labels))
    info = ShardHandle(0, len(labels), "", "", 0, y=(stored,), stats=(facts,))
    return SimpleNamespace(infos=[info], counts={0: len(labels)}, num_examples=len(labels))


@pytest.mark.parametrize(
    ("train", "held_out", "start"),
    [([0, 1], [0, 2], "In `validation_data`: `y` must be class"), ([2], [0], "`y` must be class")],
)
def test_the_error_for_unfit_labels_says_which_data_has_them(train, held_out, start):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(loss="sparse_categorical_crossentropy")
    monitor = SimpleNamespace(replica=SimpleNamespace(model=model))
    parts = {"train": labelled(*train), "held_out": labelled(*held_out)}
    facts = {"validation_split": 0.0, "num_examples": 1, "plan": TrainingPlan.create()}
    fit = SimpleNamespace(monitor=monitor, **facts, **parts)
    with pytest.raises(ValueError) as caught:
        divide(fit)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("examples", "first", "logged"),
    [([1, 1, 1], 0, False), ([1, 1, 0], 0, True), ([1, 1, 1], 2, True)],
)
def test_a_timeout_that_has_no_effect_is_logged(caplog, examples, first, logged):
    plan = timed_plan(epochs=3, initial_epoch=first)
    merging = SimpleNamespace(optimizer=Average())
    fit = Fit(None, None, plan, None, None, 0.0, merging, None)
    fit.num_train = dict(enumerate(examples))
    log_plan(fit)
    assert ("straggler_timeout has no effect" in caplog.text) == logged


@pytest.mark.parametrize(
    ("examples", "counts", "logged"),
    [
        (FileExamples(None, None, None, 3), [5, 0, 5], True),
        (FileExamples(None, None, None, 2), [5, 5], False),
        (None, [5, 0, 5], False),
    ],
)
def test_workers_of_files_without_rows_are_counted(caplog, examples, counts, logged):
    merging = SimpleNamespace(optimizer=Average())
    fit = Fit(None, None, TrainingPlan.create(), examples, None, 0.0, merging, None)
    fit.examples, fit.num_train = examples, dict(enumerate(counts))
    log_plan(fit)
    assert ("1 of 3 workers have no rows, because `filters`" in caplog.text) == logged


@pytest.mark.parametrize(("counts", "logged"), [([1, 0, 1, 0], True), ([4, 0, 4], False)])
def test_workers_that_outnumber_the_rows_are_counted(caplog, counts, logged):
    merging = SimpleNamespace(optimizer=Average())
    fit = Fit(None, None, TrainingPlan.create(), None, None, 0.0, merging, None)
    fit.num_train = dict(enumerate(counts))
    log_plan(fit)
    assert ("2 of 4 workers have no rows, because there are only 2." in caplog.text) == logged


@pytest.mark.parametrize(("wanted", "found"), [(None, 4), (3, 3), (5, None)])
def test_every_shard_needs_a_slot(wanted, found):
    """A shard that waits for a slot would be taken for a slow one."""
    examples = SimpleNamespace(num_partitions=6, num_examples=None, repartition=lambda n: n)
    fit = SimpleNamespace(plan=timed_plan(num_workers=wanted), spark=four_slots())
    if found is not None:
        assert placed(fit, examples) == found
        return
    with pytest.raises(NotEnoughSlotsError, match=r"^straggler_timeout=2\.5 runs all .* is 5"):
        placed(fit, examples)


@pytest.mark.parametrize(("wanted", "found"), [(None, 4), (6, 6)])
def test_dynamic_allocation_makes_slots_for_a_number_that_is_given_only(wanted, found):
    """Without one, Spark would start an executor for each partition."""
    conf = {"spark.dynamicAllocation.enabled": "true"}
    context = SimpleNamespace(master="yarn", getConf=lambda: conf, defaultParallelism=4)
    spark = SimpleNamespace(sparkContext=context, conf=conf)
    examples = SimpleNamespace(num_partitions=200, num_examples=None, repartition=lambda n: n)
    fit = SimpleNamespace(plan=timed_plan(num_workers=wanted), spark=spark)
    assert placed(fit, examples) == found


@pytest.mark.parametrize(
    ("workers", "rows", "fits"), [(None, 99, False), (2, 99, True), (6, 2, True)]
)
def test_steps_are_compared_with_the_shards_that_the_driver_knows(workers, rows, fits):
    plan = TrainingPlan.create(steps_per_epoch=3, num_workers=workers)
    examples = SimpleNamespace(num_partitions=4, num_examples=rows)
    if fits:
        check_steps(plan, examples)
        return
    with pytest.raises(ValueError, match="`steps_per_epoch` must be >= 4, .*smaller `num_workers`"):
        check_steps(plan, examples)


@pytest.mark.parametrize(
    ("counts", "fraction", "train"),
    [
        ({0: 10}, 0.0, {0: 10}),
        ({0: 10}, 0.25, {0: 7}),  # as Keras: int(10 * 0.75) = 7 train
        ({0: 50, 1: 50}, 0.1, {0: 45, 1: 45}),
        ({0: 30, 1: 10}, 0.5, {0: 15, 1: 5}),
        ({0: 3, 1: 3, 2: 3}, 0.34, {0: 1, 1: 2, 2: 2}),  # 4 held out, one each and one left
        ({0: 1, 1: 8}, 0.34, {0: 1, 1: 4}),  # 4 * 8/9 = 3.56 has the larger remainder
        ({0: 0, 1: 4}, 0.25, {0: 0, 1: 3}),
        ({}, 0.5, {}),
    ],
)
def test_held_out_rows_by_hand(counts, fraction, train):
    assert divide_validation(counts, fraction) == train


counts_of_shards = st.dictionaries(st.integers(0, 20), st.integers(0, 5000), min_size=1)


@given(counts_of_shards, st.floats(0, 0.999))
def test_as_many_are_held_out_as_keras_would_and_spread_by_size(counts, fraction):
    total = sum(counts.values())
    train = divide_validation(counts, fraction)
    held_out = {shard: counts[shard] - train[shard] for shard in counts}
    # Keras trains on the first int(math.floor(n * (1.0 - validation_split))) examples.
    assert sum(train.values()) == int(np.floor(total * (1.0 - fraction)))
    assert all(0 <= held_out[s] <= counts[s] for s in counts)
    for shard, n in counts.items():
        exact = Fraction(n * sum(held_out.values()), total or 1)
        assert abs(held_out[shard] - exact) < 1


def test_callbacks_every_needs_a_slot_for_every_shard():
    examples = SimpleNamespace(num_partitions=6, num_examples=None, repartition=lambda n: n)
    fit = SimpleNamespace(plan=TrainingPlan.create(callbacks_every=7), spark=four_slots())
    with pytest.raises(NotEnoughSlotsError, match=r"^callbacks_every=7 runs all workers .* is 6"):
        placed(fit, examples)


@pytest.mark.parametrize(
    ("settings", "connect", "told"),
    [
        (
            {},
            False,
            'set `reshuffle="epoch"` in `fit`, which also mixes the rows, set `num_workers',
        ),
        ({}, True, "To divide the work evenly, set `num_workers`, or repartition the data."),
        ({"steps_per_epoch": 6}, False, "evenly, set `num_workers`, or repartition the data."),
        ({"straggler_timeout": 2.5}, False, "evenly, set `num_workers`, or repartition the data."),
    ],
)
def test_uneven_shards_are_told_with_what_the_fit_allows(caplog, settings, connect, told):
    spark = SimpleNamespace() if connect else SimpleNamespace(sparkContext=object())
    merging = SimpleNamespace(optimizer=Average())
    plan = TrainingPlan.create(epochs=3, **settings)
    fit = Fit(spark, None, plan, None, None, 0.0, merging, None)
    fit.num_train = {0: 4, 1: 9, 2: 5}
    log_plan(fit)
    assert "The shards are uneven: from 4 to 9 examples." in caplog.text
    assert told in caplog.text
