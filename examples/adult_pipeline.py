"""A Keras model in a Spark ML pipeline: CSV, categories, cross-validation, save and load.

    python adult_pipeline.py [folder]

`folder` holds UCI's census data `adult.data`, gzipped or not: whose income is
above 50,000? It defaults to the environment variable `KSPARK_DATA`. Without a
folder, the example uses scikit-learn's breast cancer data: which tumours are
malignant? It fits nine networks, which takes about two minutes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kspark.ml import KerasClassifier
from kspark.session import local_session

import keras
import numpy as np
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder, StandardScaler, StringIndexer, VectorAssembler
from pyspark.ml.tuning import CrossValidator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

# Passes over the data, and examples per batch, to choose from.
CHOICES = tuple((epochs, size) for epochs in (1, 6) for size in (16, 64))

ADULT_COLUMNS = """
    age double, workclass string, fnlwgt double, education string, education_num double,
    marital_status string, occupation string, relationship string, race string, sex string,
    capital_gain double, capital_loss double, hours_per_week double, native_country string,
    income string
"""


def find_adult(folder: Path) -> Path:
    """The path of the census data, gzipped or not."""
    paths = (folder / "adult.data.gz", folder / "adult.data")
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"The data folder must hold `adult.data.gz` or `adult.data`. Received: {folder}. "
        "Unset `KSPARK_DATA` to use scikit-learn's breast cancer data."
    )


def read_adult(spark: SparkSession, path: Path) -> DataFrame:
    """The census, "?" as null, with a label of 1.0 for incomes above 50,000."""
    rows = spark.read.csv(
        str(path), schema=ADULT_COLUMNS, nullValue="?", ignoreLeadingWhiteSpace=True
    )
    is_rich = (F.col("income") == ">50K").cast("double")
    return rows.dropna(subset=["income"]).withColumn("label", is_rich).drop("income", "fnlwgt")


def read_tumours(spark: SparkSession, folder: Path) -> DataFrame:
    """569 tumours by way of a CSV file, one column of which holds words."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True).frame
    data.columns = [name.replace(" ", "_") for name in data.columns]
    size = data.pop("mean_area")
    data["size"] = ["small" if a < 400 else "large" if a > 800 else "medium" for a in size]
    data["label"] = 1.0 - data.pop("target")
    data.to_csv(folder / "tumours.csv", index=False)
    return spark.read.csv(str(folder / "tumours.csv"), header=True, inferSchema=True)


def preparation(frame: DataFrame) -> Pipeline:
    """From columns of words and numbers to one vector."""
    kinds = {name: kind for name, kind in frame.dtypes if name != "label"}
    words = [name for name, kind in kinds.items() if kind == "string"]
    numbers = [name for name, kind in kinds.items() if kind == "double"]
    places, flags = ([f"{name}_{end}" for name in words] for end in ("place", "flags"))
    return Pipeline(
        stages=[
            StringIndexer(inputCols=words, outputCols=places, handleInvalid="keep"),
            OneHotEncoder(inputCols=places, outputCols=flags, handleInvalid="keep"),
            VectorAssembler(inputCols=numbers, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
            VectorAssembler(inputCols=[*flags, "scaled"], outputCol="features"),
        ]
    )


def build_model(num_features: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((num_features,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy")
    return model


def main(
    spark: SparkSession | None = None,
    data: str | Path | None = None,
    saved: str | Path | None = None,
    choices: Sequence[tuple[int, int]] = CHOICES,
) -> dict[str, float]:
    """Train, cross-validate, save, load. Returns what it found.

    Args:
        spark: `SparkSession`; one on this machine by default.
        data: Folder of the census data. Defaults to `KSPARK_DATA`.
        saved: Folder to save the fitted pipeline in; a temporary one by default.
        choices: Pairs of epochs and batch size.
    """
    folder = data or os.environ.get("KSPARK_DATA")
    adult = find_adult(Path(folder)) if folder else None
    spark = spark or local_session()
    with tempfile.TemporaryDirectory() as temporary:
        rows = read_adult(spark, adult) if adult else read_tumours(spark, Path(temporary))
        train, test = rows.repartition(2).cache().randomSplit([0.8, 0.2], seed=1)
        path = Path(saved or Path(temporary) / "pipeline")
        found = run(train.cache(), test.cache(), path, choices)
    print("census" if adult else "tumours", found)
    return found


def run(
    train: DataFrame, test: DataFrame, saved: Path, choices: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Fit on some rows, and compare the predictions of the fitted pipeline and the loaded one."""
    prepare = preparation(train)
    (row,) = prepare.fit(train).transform(train).take(1)
    # So few rows need no more than one worker; two fits run at the same time.
    classifier = KerasClassifier(build_model(row.features.size), seed=0, numWorkers=1)
    grid = [{classifier.epochs: e, classifier.batchSize: size} for e, size in choices]
    auc = BinaryClassificationEvaluator(metricName="areaUnderROC")
    # The categories and scales are learned once, the network for every fold and choice.
    search = CrossValidator(
        estimator=classifier,
        estimatorParamMaps=grid,
        evaluator=auc,
        numFolds=2,
        parallelism=2,
        seed=1,
    )
    print(f"Comparing {len(grid)} choices of epochs and batch size, each on two folds ...")
    fitted = Pipeline(stages=[*prepare.getStages(), search]).fit(train)
    tuned: Any = fitted.stages[-1]
    pipeline = PipelineModel([*fitted.stages[:-1], tuned.bestModel])
    pipeline.write().overwrite().save(str(saved))
    loaded = PipelineModel.load(str(saved))
    scored = pipeline.transform(test)
    before, after = (probabilities(frame) for frame in (scored, loaded.transform(test)))
    best_epochs, best_size = choices[tuned.avgMetrics.index(max(tuned.avgMetrics))]
    return {
        "auc": auc.evaluate(scored),
        "largest_difference_after_loading": float(np.abs(after - before).max()),
        "lowest_cross_validated_auc": float(min(tuned.avgMetrics)),
        "best_cross_validated_auc": float(max(tuned.avgMetrics)),
        "best_epochs": best_epochs,
        "best_batch_size": best_size,
    }


def probabilities(scored: DataFrame) -> np.ndarray:
    """The probabilities of the classes, in the order of the rows."""
    return np.array([row.probability.toArray() for row in scored.select("probability").collect()])


if __name__ == "__main__":
    main(data=sys.argv[1] if len(sys.argv) > 1 else None)
