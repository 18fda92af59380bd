"""A vocabulary that a callback sets goes to the workers, or is refused while they train."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kspark.job.epochs import open_epoch
from kspark.job.progress import Progress
from kspark.job.vocabularies import Vocabularies
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec

ROWS = keras.ops.convert_to_tensor([["a"], ["b"], ["c"]])


def a_model():
    entry = keras.Input((1,), dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot", name="words")
    model = keras.Model(entry, keras.layers.Dense(1)(lookup(entry)))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


class OneFit:
    """A fit whose callback sets a vocabulary at the beginning of the second epoch."""

    def __init__(self, **settings):
        self.model = a_model()
        self.plan = TrainingPlan.create(seed=0, epochs=3, **settings)
        self.spec = ReplicaSpec.of(self.model)
        self.monitor = SimpleNamespace(
            replica=SimpleNamespace(model=self.model, counters=()), begin_epoch=self.begin_epoch
        )
        self.shown_counters = ()
        self.vocabularies, self.progress = Vocabularies(self.model), Progress(0, 3, 0)
        self.shared = []

    def begin_epoch(self, epoch):
        if epoch == 1:
            self.model.get_layer("words").set_vocabulary(["c", "b"])

    def share(self, spec):
        self.spec = spec
        self.shared.append(spec)


def test_rounds_use_a_new_vocabulary_from_the_next_epoch_on():
    fit = OneFit()
    first = fit.spec
    open_epoch(fit, 0)
    assert fit.shared == []
    open_epoch(fit, 1)
    assert len(fit.shared) == 1
    assert fit.spec.digest != first.digest
    copy = fit.spec.model.make()
    assert copy.get_layer("words").get_vocabulary() == ["[UNK]", "c", "b"]
    np.testing.assert_array_equal(copy.predict(ROWS, verbose=0), fit.model.predict(ROWS, verbose=0))
    open_epoch(fit, 2)
    assert len(fit.shared) == 1


@pytest.mark.parametrize(
    "settings",
    [{"frequency": "batch"}, {"mode": "asynchronous"}, {"straggler_timeout": 5.0}],
)
def test_a_new_vocabulary_is_refused_while_workers_train(settings):
    fit = OneFit(**settings)
    open_epoch(fit, 0)
    with pytest.raises(ValueError, match="`callbacks` must be free of callbacks that set a vocab"):
        open_epoch(fit, 1)


def test_a_vocabulary_may_be_set_before_the_first_epoch_in_every_mode():
    fit = OneFit(mode="asynchronous")
    fit.plan = replace(fit.plan, initial_epoch=1)
    open_epoch(fit, 1)
    assert len(fit.shared) == 1


def test_a_model_without_lookup_layers_is_never_sent_again():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    vocabularies = Vocabularies(model)
    model.layers[0].bias.assign([1.0])
    assert not vocabularies.changed()
    assert vocabularies.digest == ""
