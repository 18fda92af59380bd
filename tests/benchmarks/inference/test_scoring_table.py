"""The table that compares kspark's scoring with functions of Spark."""

from benchmarks.inference.__main__ import cases, file_lines, measure, scoring_table


def test_every_kind_of_rows_is_scored_in_a_process_of_its_own(monkeypatch):
    started = []
    monkeypatch.setattr(
        "benchmarks.inference.__main__.run_case", lambda name, *_: started.append(name) or {}
    )
    chosen = {name: case for name, case in cases().items() if name.startswith("scoring/")}
    assert list(chosen) == [f"scoring/{rows}" for rows in ("narrow", "arrays", "vectors", "files")]
    for case in chosen.values():
        measure(3, 60.0, case)
    assert started == ["benchmarks.inference.scoring"] * 3 + ["benchmarks.inference.files"]


def test_medians_are_divided_by_those_of_the_other_functions():
    warm = {"kspark": 2.0, "noop": 1.6, "products": 2.5, "predict_on_batch": 4.0, "predict": 8.0}
    repeats = [{"first": first, **warm} for first in (5.0, 6.0, 100.0)]
    *_, row = scoring_table({"kspark": [{}], "scoring/narrow": repeats})
    figures = [
        "6.00",
        "3.00",
        "2.00",
        "1.60",
        "1.25",
        "2.50",
        "0.80",
        "4.00",
        "0.50",
        "8.00",
        "0.25",
    ]
    assert row == f"| scoring/narrow | {' | '.join(figures)} |"


def test_a_failure_is_told_in_a_row_of_full_width():
    header, _, row = scoring_table({"scoring/arrays": [{"failed": "no result after 1 s"}]})
    assert row.startswith("| scoring/arrays | failed: no result after 1 s |")
    assert row.count("|") == header.count("|")


def test_nothing_is_printed_without_a_case_of_scoring():
    assert scoring_table({"keras": [{}]}) == []
    assert file_lines({"keras": [{}]}) == []


def test_files_are_compared_with_dataframes():
    seconds = {"files": 1.0, "transform": 4.0, "files_start": 0.5, "frame_start": 2.0}
    both = file_lines({"scoring/files": [seconds]})
    assert both == [
        "Files, Parquet to Parquet: 1.00 s, a DataFrame: 4.00 s, ratio 0.25.",
        "Files, start of the first epoch: 0.50 s, a DataFrame: 2.00 s, ratio 0.25.",
    ]
    assert scoring_table({"scoring/files": [seconds]}) == []
    failed = file_lines({"scoring/files": [{"failed": "no result after 1 s"}]})
    assert failed == ["Files: failed: no result after 1 s"]
