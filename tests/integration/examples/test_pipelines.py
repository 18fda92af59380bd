"""Each example reaches the result that it describes. All of them run in one Spark session."""

from __future__ import annotations

import gzip
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from kspark.ml import KerasClassificationModel

Example = Callable[[str], dict[str, Any]]


@pytest.fixture
def example(project: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """An example's names, where `KSPARK_DATA` is not set."""
    monkeypatch.delenv("KSPARK_DATA", raising=False)
    return lambda name: runpy.run_path(str(project / "examples" / f"{name}.py"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("adult_pipeline", "adult.data"),
        ("elephas_classic", "t10k-images-idx3-ubyte.gz"),
        ("mnist_mlp", "t10k-images-idx3-ubyte"),
    ],
)
def test_a_missing_data_file_is_named_in_the_error(
    example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, file: str
) -> None:
    main = example(name)["main"]
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    monkeypatch.setenv("KSPARK_DATA", str(tmp_path))

    with pytest.raises(FileNotFoundError, match=f"must hold .*`{re.escape(file)}`.*{tmp_path}"):
        main()


def test_no_example_uses_the_path_of_its_own_file(project: Path) -> None:
    scripts = sorted((project / "examples").glob("*.py"))
    assert scripts
    assert [path.name for path in scripts if "__file__" in path.read_text(encoding="utf-8")] == []


def test_a_tuned_pipeline_classifies_tumours_before_and_after_loading(
    spark: SparkSession, example: Example, tmp_path: Path
) -> None:
    choices = [(1, 64), (6, 16)]

    found = example("adult_pipeline")["main"](spark, saved=tmp_path / "pipeline", choices=choices)

    assert found["auc"] > 0.97
    assert found["largest_difference_after_loading"] == 0.0
    assert found["best_cross_validated_auc"] > found["lowest_cross_validated_auc"]
    assert (found["best_epochs"], found["best_batch_size"]) == (6, 16)
    (*_, stage) = PipelineModel.load(str(tmp_path / "pipeline")).stages
    assert type(stage) is KerasClassificationModel
    assert len(stage.history["loss"]) == found["best_epochs"]


def test_the_census_file_is_read_in_its_published_format(
    spark: SparkSession, example: Example, tmp_path: Path
) -> None:
    lines = (
        "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, "
        "Male, 2174, 0, 40, United-States, <=50K\n"
        "52, ?, 209642, HS-grad, 9, Married-civ-spouse, ?, Husband, White, "
        "Male, 0, 0, 45, United-States, >50K\n\n"
    )
    path = tmp_path / "adult.data.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    names = example("adult_pipeline")

    rows = names["read_adult"](spark, path)

    first, second = rows.collect()
    assert (first.label, first.age, first.workclass) == (0.0, 39.0, "State-gov")
    assert (second.label, second.workclass, second.occupation) == (1.0, None, None)
    vectors = names["preparation"](rows).fit(rows).transform(rows).select("features").collect()
    # Of five numbers' means and deviations two rows know only the sign, or nothing.
    assert np.abs(vectors[0].features.toArray()[-5:]).round(3).tolist() == [
        *(0.707, 0.707, 0.707, 0.0, 0.707)
    ]


def test_features_of_an_inner_layer_classify_digits_the_network_never_saw(
    spark: SparkSession, example: Example
) -> None:
    found = example("image_features")["main"](spark, count=700)

    assert found["network"] > 0.9
    assert found["regression_on_its_features"] > 0.8
    assert found["num_features"] == 32


def test_the_recommender_predicts_ratings_better_than_their_mean(
    spark: SparkSession, example: Example
) -> None:
    found = example("recommender")["main"](spark)

    assert found["rmse"] < 0.3 * found["rmse_of_the_mean"]
    assert found["likes_recommended"] > found["likes_all"] + 1


def test_the_text_classifier_works_on_a_dataframe_and_in_sql(
    spark: SparkSession, example: Example
) -> None:
    found = example("text_classifier")["main"](spark)

    assert found["accuracy"] > 0.85 > found["accuracy_of_the_largest_class"] + 0.3
    assert found["answer"] == 1


def test_a_stream_scores_every_file_once(spark: SparkSession, example: Example) -> None:
    found = example("streaming_scoring")["main"](spark)

    assert found["scored_at_first"] > 0
    assert found["scored_then"] > 0
    assert found["scored_at_first"] + found["scored_then"] == found["arrived"]
    assert found["different_ids"] == found["arrived"]
    assert found["accuracy"] > 0.9


@pytest.mark.parametrize("as_files", [False, True])
def test_a_program_written_for_elephas_runs(
    spark: SparkSession, example: Example, as_files: bool
) -> None:
    main = example("elephas_classic")["main"]

    found = main(spark, count=400, batch_size=16, as_files=as_files)

    assert found["accuracy"] > 0.8


def test_texts_are_prepared_on_the_workers(spark: SparkSession, example: Example) -> None:
    found = example("preprocess_text")["main"](spark)

    assert found["accuracy"] > 0.85
    assert found["accuracy_of_the_loaded_pipeline"] == found["accuracy"]


def test_images_are_prepared_on_the_workers(spark: SparkSession, example: Example) -> None:
    found = example("preprocess_images")["main"](spark)

    assert found["accuracy"] > 0.85
