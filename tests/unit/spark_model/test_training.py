"""What one fit leaves behind, also if it fails; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark import optimizers
from kspark.errors import ClusterError
from kspark.job.report import EpochFacts, FitReport
from kspark.plan import TrainingPlan
from kspark.spark_model.checkpointing import Checkpointing
from kspark.spark_model.training import Outcome, keep_constraints, train


def test_a_fit_that_fails_at_once_reports_no_epochs_and_keeps_the_rule_state(monkeypatch):
    def refuse(spark, backend, watch):
        raise ClusterError("no workers")

    monkeypatch.setattr("kspark.spark_model.training.check_cluster_once", refuse)
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch")
    source, spec = SimpleNamespace(spark=None, replica=None), SimpleNamespace(backend="tensorflow")
    before, none = {"m": np.ones(2)}, Checkpointing(None, False, 2, None)
    outcome = Outcome(before, FitReport("hogwild", 3, (EpochFacts(0, 1),)))
    with pytest.raises(ClusterError):
        train(source, plan, spec, None, optimizers.get("average"), outcome, [], 0, none)
    assert outcome.report == FitReport("synchronous", "epoch")
    assert outcome.server_state is before


@pytest.mark.parametrize(
    ("workers", "rule", "codec", "applied"),
    [
        (1, "average", None, False),
        (2, "average", None, True),
        (1, "average", "int8", True),
        (1, "adam", None, True),
        (1, "elastic_average", None, True),
    ],
)
def test_constraints_are_applied_unless_merges_change_nothing(workers, rule, codec, applied):
    kept = []
    fit = SimpleNamespace(
        plan=TrainingPlan.create(compression=codec),
        aggregator=SimpleNamespace(optimizer=optimizers.get(rule), keep_constraints=kept.append),
        monitor=SimpleNamespace(replica=SimpleNamespace(projection="project")),
        workload=SimpleNamespace(num_workers=workers),
    )
    keep_constraints(fit)
    assert kept == (["project"] if applied else [])
    fit.monitor.replica.projection = None  # the model has no constraints
    kept.clear()
    keep_constraints(fit)
    assert not kept
