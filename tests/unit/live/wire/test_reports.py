"""Reports of replicas are dataclasses on both ends, and JSON in between."""

from __future__ import annotations

import json

import pytest

from kspark.errors import AggregationError, Failure, ProtocolError
from kspark.live.wire.reports import (
    KINDS,
    EpochEnd,
    FailureReport,
    MetricsReport,
    MissingFilesReport,
    ObstacleReport,
    OrderRequest,
    ProgressReport,
    ResultReport,
    StateReport,
    StateRequest,
    WaitingReport,
    read_report,
)
from kspark.shards import ShardFacts

FACTS = ShardFacts("host", 7, 3, 0.5, 12, True, 0.25, 100, 200)
REPORTS = [
    EpochEnd(4),
    EpochEnd(4, sequence=9),
    EpochEnd(4, generation=1, last=False),
    FailureReport(Failure(2, "host", 0, "ValueError", "a mistake", "traceback")),
    MetricsReport(3, FACTS),
    MetricsReport(3, FACTS, (8, 0, 8)),
    MissingFilesReport(strayed=True),
    MissingFilesReport(strayed=False, stateless=True),
    ObstacleReport("It is too large."),
    OrderRequest(3),
    ProgressReport(2, 640, 6400),
    ResultReport(1, 8, True, 2),
    ResultReport(1, 8, False, 2, num_optimizer=4, facts=FACTS, counters=(3, 0)),
    StateReport(1),
    StateRequest(0),
    WaitingReport(0, found=True),
]


def test_every_kind_of_report_is_tried_here():
    assert {type(report) for report in REPORTS} == set(KINDS.values())


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_survives_json(report):
    assert read_report(json.loads(json.dumps(report.to_json()))) == report


def test_fields_that_are_none_are_not_sent():
    assert EpochEnd(4, sequence=9).to_json() == {"kind": "epoch", "epoch": 4, "sequence": 9}
    assert "rounds_late" not in MetricsReport(3, FACTS).to_json()["facts"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"kind": "epoch"}, "EpochEnd must have the fields"),
        ({"kind": "epoch", "epoch": "4"}, "`epoch` of EpochEnd must be of type int"),
        ({"kind": "epoch", "epoch": 4, "last": 1}, "`last` of EpochEnd must be of type bool"),
        ({"kind": "state", "epoch": 1, "more": 2}, "StateReport must have the fields"),
        ({"kind": "metrics", "epoch": 1, "facts": []}, "ShardFacts must have the fields"),
        ({"kind": "progress", "epoch": 1, "total": 2}, "ProgressReport must have the fields"),
        (
            {"kind": "progress", "epoch": 1, "num_examples": 0.5, "total": 2},
            "`num_examples` of ProgressReport must be of type int",
        ),
        ({"kind": "failure", "failure": None}, "Failure must have the fields"),
        (
            {"kind": "metrics", "epoch": 1, "facts": vars(FACTS), "counters": [1, "2"]},
            r"`counters` of MetricsReport must be of type tuple",
        ),
        (
            {"kind": "metrics", "epoch": 1, "facts": vars(FACTS), "counters": 1},
            r"`counters` of MetricsReport must be of type tuple",
        ),
    ],
)
def test_a_malformed_report_is_refused(document, reason):
    with pytest.raises(ProtocolError, match=reason):
        read_report(document)


@pytest.mark.parametrize("document", [{}, {"kind": "gossip"}, {"kind": ["epoch"]}])
def test_a_report_of_an_unknown_kind_is_refused(document):
    with pytest.raises(AggregationError, match="A report of kind .* is unknown"):
        read_report(document)
