"""What a fit tells about itself, as data and as a picture."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from kspark.job.report import EpochFacts, FitReport, Workload, worker_figures
from kspark.shards import Usage


def worker(shard, seconds, waiting):
    return {"shard": shard, "host": "h", "seconds": seconds, "waiting": waiting}


REPORT = FitReport(
    "asynchronous",
    2,
    (
        EpochFacts(0, 3, (worker(0, 3.0, 1.0), worker(1, 2.0, 0.0)), (0, 0, 3)),
        EpochFacts(1, 2, (worker(0, 1.0, 5.0), worker(1, 2.0, 0.5)), (0, 1), 0.25),
    ),
    Workload(30, 2, 4, 8),
    server_optimizer="downpour",
)

STEADY = replace(
    REPORT,
    epochs=(*REPORT.epochs, EpochFacts(2, 1, (worker(0, 1.5, 0.0), worker(1, 1.5, 0.0)))),
)
"""The first epoch is less than twice as long as the longest later one."""


def test_an_epoch_has_the_mean_and_the_maximum_of_its_staleness():
    assert (REPORT.epochs[0].staleness_mean, REPORT.epochs[0].staleness_max) == (1.0, 3)
    assert REPORT.staleness_counts() == {0: 3, 1: 1, 3: 1}
    nobody_counts = EpochFacts(0, 1)
    assert nobody_counts.staleness_mean is None and nobody_counts.staleness_max is None


def test_usage_after_a_report_is_added_to_the_epoch():
    facts = EpochFacts(4, 3, (worker(0, 3.0, 1.0), worker(1, 2.0, 0.0)), (0, 0, 3), 0.5)
    facts = facts.with_rest({1: Usage(0.25, 0.125, 7, 5)})
    whole = {**worker(1, 2.25, 0.125), "bytes_sent": 7, "bytes_received": 5}
    assert facts == EpochFacts(4, 3, (worker(0, 3.0, 1.0), whole), (0, 0, 3), 0.5)


@pytest.mark.parametrize("late", [None, 0, 2])
def test_the_figures_of_a_worker_are_those_of_its_shard_in_their_order(tools, late):
    """`rounds_late` is set only with a `straggler_timeout`."""
    facts = tools.facts(host="h", pid=7, batches=3, seconds=1.5, num_examples=9, rounds_late=late)
    expected = {
        "shard": 4,
        "host": "h",
        "pid": 7,
        "batches": 3,
        "seconds": 1.5,
        "num_examples": 9,
        "state_kept": True,
        "waiting": 0.0,
        "bytes_sent": 0,
        "bytes_received": 0,
    }
    expected |= {} if late is None else {"rounds_late": late}
    assert list(worker_figures(4, facts).items()) == list(expected.items())


def test_the_history_has_sums_of_bytes_and_means_of_seconds():
    first = ({**worker(0, 3.0, 1.0), "bytes_sent": 7, "bytes_received": 1}, worker(1, 2.0, 0.0))
    second = ({**worker(0, 1.0, 0.5), "bytes_sent": 2}, {**worker(1, 2.0, 0.5), "bytes_sent": 3})
    epochs = (EpochFacts(0, 3, first, (0, 0, 3)), EpochFacts(1, 2, second))
    columns = {
        "merges": [3, 2],
        "bytes_sent": [7, 5],
        "bytes_received": [1, 0],
        "computing_seconds": [2.0, 1.0],
        "waiting_seconds": [0.5, 0.5],
        "staleness_mean": [1.0, 0.0],
        "staleness_max": [3, 0],
    }
    assert FitReport("hogwild", "batch", epochs).exchanges() == columns
    del columns["staleness_mean"], columns["staleness_max"]
    nobody_counts = tuple(replace(facts, staleness=()) for facts in epochs)
    assert FitReport("synchronous", 20, nobody_counts).exchanges() == columns
    assert FitReport("synchronous", "epoch", nobody_counts).exchanges() == {}
    assert FitReport("asynchronous", "epoch").exchanges() == {}
    assert EpochFacts(0, 1).exchange(False)["waiting_seconds"] == 0


def test_the_report_is_json_data():
    data = json.loads(json.dumps(REPORT.to_dict()))
    assert (data["mode"], data["frequency"]) == ("asynchronous", 2)
    assert data["epochs"][1] == {
        "epoch": 1,
        "merges": 2,
        "staleness_mean": 0.5,
        "staleness_max": 1,
        "stragglers": [],
        "late": [],
        "learning_rate": 0.25,
        "workers": [worker(0, 1.0, 5.0), worker(1, 2.0, 0.5)],
    }
    assert data["workload"] == {
        "num_examples": 30, "num_workers": 2, "batch_size": 4, "updates": 8, "global_batch": 8,
    }  # fmt: skip
    assert FitReport("synchronous", "epoch").to_dict()["workload"] is None
    assert REPORT.workers[0] == [worker(0, 3.0, 1.0), worker(1, 2.0, 0.0)]


def test_there_is_one_row_per_epoch_and_worker():
    rows = REPORT.rows()
    assert [(r["epoch"], r["shard"], r["merges"]) for r in rows] == [
        (0, 0, 3), (0, 1, 3), (1, 0, 2), (1, 1, 2),
    ]  # fmt: skip
    assert rows[2] == {
        **worker(0, 1.0, 5.0), "epoch": 1, "merges": 2, "staleness_mean": 0.5, "staleness_max": 1,
        "learning_rate": 0.25,
    }  # fmt: skip


def test_a_report_is_one_line_where_it_is_not_printed():
    assert repr(REPORT) == (
        "FitReport(mode='asynchronous', frequency=2, server_optimizer='downpour', workers=2, "
        "epochs=2)"
    )
    assert repr(FitReport("hogwild", "batch")) == (
        "FitReport(mode='hogwild', frequency='batch', server_optimizer='average', workers=None, "
        "epochs=0)"
    )


def test_a_printed_report_is_a_table_of_80_characters():
    sent = {"bytes_sent": 2_500_000, "bytes_received": 1_000_000, "num_examples": 12_345}
    facts = EpochFacts(0, 1, ({**worker(0, 3.0, 1.0), **sent}, {**worker(1, 2.0, 0.0), **sent}))
    report = FitReport("synchronous", "epoch", (facts, *REPORT.epochs[1:]), REPORT.workload)
    assert (
        str(report)
        == """\
synchronous, 'epoch', rule 'average': 30 examples with 2 workers, 4 examples per
batch and worker, global batch 8, 8 updates of the weights per epoch
epoch  examples  computing s  waiting s  MB sent  MB received      rate  staleness
    1    24,690         2.00       0.50        5            2  schedule
    2         0         0.75       0.75        0            0      0.25        0.5"""
    )
    nothing = "hogwild, 'batch', rule 'average': no epoch was trained"
    assert str(FitReport("hogwild", "batch")) == nothing


def test_a_report_counts_in_the_singular_and_the_plural():
    assert str(Workload(0, 2, 4, 0)) == "rows as they come, 2 workers"
    assert str(Workload(9, 2, 4, 1, (4, 5))).startswith("9 examples (4 + 5) with 2 workers, ")
    assert str(Workload(45, 9, 4, 1, (9, 4, *[5] * 7))).startswith("45 examples (4 to 9 each) with")
    assert Workload(9, 2, 4, 1, (4, 5)).to_dict()["by_worker"] == (4, 5)
    assert str(Workload(1, 1, 1, 1)) == (
        "1 example with 1 worker, 1 example per batch and worker, global batch 1, "
        "1 update of the weights per epoch"
    )
    apart = FitReport(
        "synchronous", "epoch", (), Workload(30, 2, 4, 0), server_optimizer="one_shot"
    )
    text = " ".join(str(apart).split())
    assert text.startswith("synchronous, 'epoch', rule 'one_shot': 30 examples with 2 workers, ")
    assert text.endswith("global batch 8, weights averaged when the fit ends")
    assert "rule &#x27;one_shot&#x27;: 30 examples" in apart._repr_html_()


def test_a_notebook_shows_a_report_as_a_table():
    html = REPORT._repr_html_()
    assert html.count("<tr>") == 3
    assert "<caption>asynchronous, 2, rule &#x27;downpour&#x27;: 30 examples with 2 workers" in html
    assert "<tr><td>2</td><td>0</td><td>0.75</td><td>0.75</td>" in html


def test_stragglers_are_in_the_epochs_but_not_in_the_rows():
    facts = EpochFacts(0, 1, (worker(0, 1.0, 0.0),), stragglers=(1, 4), late=(2,))
    report = FitReport("synchronous", "epoch", (facts,))
    (told,) = json.loads(json.dumps(report.to_dict()))["epochs"]
    assert (told["stragglers"], told["late"]) == ([1, 4], [2])
    assert not {"stragglers", "late"} & set(report.rows()[0])


def bars_of(axes):
    """Shard, start and length of each bar."""
    return [(b.get_y() + b.get_height() / 2, b.get_x(), b.get_width()) for b in axes.patches]


def test_the_timeline_puts_a_shards_epochs_end_to_end():
    pytest.importorskip("matplotlib")
    timeline, staleness = STEADY.plot().axes
    # shard, start, length: computing, then waiting; no longer waiting than there were seconds
    assert bars_of(timeline) == [
        (0, 0, 2), (0, 2, 1), (0, 3, 0), (0, 3, 1), (0, 4, 1.5), (0, 5.5, 0),
        (1, 0, 2), (1, 2, 0), (1, 2, 1.5), (1, 3.5, 0.5), (1, 4, 1.5), (1, 5.5, 0),
    ]  # fmt: skip
    heights = {b.get_x() + b.get_width() / 2: b.get_height() for b in staleness.patches}
    assert heights == pytest.approx({0: 3, 1: 1, 3: 1})


def test_computing_and_waiting_have_the_colours_of_the_legend():
    pytest.importorskip("matplotlib")
    timeline = STEADY.plot().axes[0]
    legend = timeline.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["computing", "waiting"]
    shown = [patch.get_facecolor() for patch in legend.get_patches()]
    assert shown[0] != shown[1]
    assert [bar.get_facecolor() for bar in timeline.patches] == shown * (len(timeline.patches) // 2)


def test_the_legend_covers_no_bar():
    pytest.importorskip("matplotlib")
    figure = STEADY.plot()
    figure.draw_without_rendering()
    timeline = figure.axes[0]
    legend = timeline.get_legend().get_window_extent()
    assert not any(legend.overlaps(bar.get_window_extent()) for bar in timeline.patches)
    assert not any(legend.overlaps(axes.bbox) for axes in figure.axes)


def test_the_start_of_a_worker_is_left_of_zero_and_does_not_squeeze_the_epochs():
    pytest.importorskip("matplotlib")
    epochs = tuple(
        EpochFacts(e, 1, (worker(0, 91.0 if e == 0 else 1.0, 0.0), worker(1, 1.5, 0.0)))
        for e in range(6)
    )
    timeline = FitReport("synchronous", "epoch", epochs).plot().axes[0]
    computed = [bar for bar in bars_of(timeline) if bar[2]]
    assert computed[:-1] == [
        *((0, start, 1) for start in range(6)),
        *((1, 1.5 * epoch, 1.5) for epoch in range(6)),
    ]
    # A quarter of the axis; the seconds are written.
    assert computed[-1] == (0, -3, 3)
    assert timeline.get_xlim() == pytest.approx((-3, 9 * 1.02))
    assert [text.get_text() for text in timeline.texts] == ["90.0 s"]
    legend = timeline.get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["starting", "computing", "waiting"]


def test_an_only_epoch_has_no_start_that_can_be_told_apart():
    pytest.importorskip("matplotlib")
    facts = EpochFacts(0, 1, (worker(0, 9.0, 1.0),))
    timeline = FitReport("synchronous", "epoch", (facts,)).plot().axes[0]
    assert bars_of(timeline) == [(0, 0, 8), (0, 8, 1)]


def test_a_report_without_epochs_has_an_empty_plot():
    pytest.importorskip("matplotlib")
    assert bars_of(FitReport("synchronous", "epoch").plot().axes[0]) == []


def test_without_staleness_there_is_only_the_timeline():
    pytest.importorskip("matplotlib")
    rounds = FitReport("synchronous", "epoch", (EpochFacts(0, 1, ({"shard": 0, "seconds": 2.0},)),))
    assert len(rounds.plot().axes) == 1


def test_plot_names_the_package_when_matplotlib_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        REPORT.plot()


def test_a_table_has_the_rate_of_each_optimizer():
    facts = EpochFacts(0, 1, (worker(0, 3.0, 1.0),), learning_rate=(0.5, None))
    assert "0.5, schedule" in facts.table_row()
    assert "0.5, schedule" in str(FitReport("synchronous", "epoch", (facts,)))
