"""Number of workers, held out examples, checks of labels, the log; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kspark.errors import NotEnoughSlotsError
from kspark.job import preparing
from kspark.job.fit import Fit
from kspark.job.preparing import divide, log_plan, placed
from kspark.plan import TrainingPlan
from kspark.shards import LabelStats, ShardHandle, StoredArray


def timed_plan(**more):
    return TrainingPlan.create(mode="synchronous", frequency="epoch", straggler_timeout=2.5, **more)


def labelled(*labels):
    """Spooled examples with so many rows as there are labels."""
    facts = LabelStats.of(np.array(labels))
    stored = StoredArray("y0", "int64", (), "y0.bin", 8 * len(labels))
    info = ShardHandle(0, len(labels), "", "", 0, y=(stored,), stats=(facts,))
    return SimpleNamespace(infos=[info], counts={0: len(labels)}, num_examples=len(labels))


@pytest.mark.parametrize(
    ("train", "held_out", "start"),
    [([0, 1], [0, 2], "In `validation_data`: `y` must be class"), ([2], [0], "`y` must be class")],
)
def test_labels_that_do_not_fit_say_whose_they_are(train, held_out, start):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(loss="sparse_categorical_crossentropy")
    monitor = SimpleNamespace(replica=SimpleNamespace(model=model))
    parts = {"train": labelled(*train), "held_out": labelled(*held_out)}
    fit = SimpleNamespace(validation_split=0.0, monitor=monitor, num_examples=1, **parts)
    with pytest.raises(ValueError) as caught:
        divide(fit)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("examples", "first", "logged"),
    [([1, 1, 1], 0, False), ([1, 1, 0], 0, True), ([1, 1, 1], 2, True)],
)
def test_a_timeout_that_has_no_effect_is_logged(caplog, examples, first, logged):
    plan = timed_plan(epochs=3, initial_epoch=first)
    fit = Fit(None, None, plan, None, None, 0.0, None, None)
    fit.num_train = dict(enumerate(examples))
    log_plan(fit)
    assert ("straggler_timeout has no effect" in caplog.text) == logged


@pytest.mark.parametrize(("wanted", "found"), [(None, 4), (3, 3), (5, None)])
def test_every_shard_needs_a_slot(monkeypatch, wanted, found):
    """A shard that waits for a slot would be taken for a slow one."""
    monkeypatch.setattr(preparing, "task_slots", lambda spark: 4)
    examples = SimpleNamespace(num_partitions=6, repartition=lambda n: n)
    fit = SimpleNamespace(plan=timed_plan(num_workers=wanted), spark=None)
    if found is not None:
        assert placed(fit, examples) == found
        return
    with pytest.raises(NotEnoughSlotsError, match=r"^straggler_timeout=2\.5 runs all .* is 5"):
        placed(fit, examples)
