"""A recommender: two inputs, an embedding each, from three plain columns.

    python recommender.py

Ratings are made up: every user and item has hidden tastes, and a rating is how
well they go together. The network sees only (user, item, rating).
"""

from __future__ import annotations

from kspark.ml import KerasModel, KerasRegressor
from kspark.session import local_session

import keras
import numpy as np
import pandas as pd
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

NUM_USERS, NUM_ITEMS, NUM_TASTES = 200, 100, 3


def tastes() -> tuple[np.ndarray, np.ndarray]:
    """The hidden truth: one row per user, one row per item."""
    random = np.random.default_rng(0)
    return random.normal(size=(NUM_USERS, NUM_TASTES)), random.normal(size=(NUM_ITEMS, NUM_TASTES))


def read_ratings(spark: SparkSession) -> DataFrame:
    """Every second pair of user and item, with a rating that is a little off."""
    users, items = tastes()
    random = np.random.default_rng(1)
    ratings = 3 + users @ items.T + random.normal(scale=0.1, size=(NUM_USERS, NUM_ITEMS))
    user, item = np.nonzero(random.random(ratings.shape) < 0.5)
    columns = {"user": user, "item": item, "rating": ratings[user, item]}
    return spark.createDataFrame(pd.DataFrame(columns))


def build_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((), name=name, dtype="int32") for name in ("user", "item")]
    vectors, offsets = [], []
    for number, size in zip(inputs, (NUM_USERS, NUM_ITEMS), strict=True):
        vectors.append(keras.layers.Embedding(size, 4)(number))
        offsets.append(keras.layers.Embedding(size, 1, "zeros")(number))
    match = keras.layers.Dot(axes=1)(vectors)
    total = keras.layers.Add()([match, *offsets])
    rating = keras.layers.Dense(1, kernel_initializer="ones", name="rating")(total)
    model = keras.Model(dict(zip(("user", "item"), inputs, strict=True)), rating)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


def recommended(fitted: KerasModel, ratings: DataFrame, user: int, count: int) -> list[int]:
    """The items a user has not rated yet and would like best."""
    known = ratings.filter(F.col("user") == user)
    items = ratings.select("item").distinct().join(known, "item", "left_anti")
    scored = fitted.transform(items.withColumn("user", F.lit(user)))
    best = scored.orderBy(F.desc("prediction")).limit(count).collect()
    return [row.item for row in best]


def main(spark: SparkSession | None = None, user: int = 7) -> dict[str, float]:
    """Train, compare with the mean rating, recommend to a user. Returns what it found.

    Args:
        spark: `SparkSession`; one on this machine by default.
        user: Integer, whom to recommend items to.
    """
    spark = spark or local_session()
    ratings = read_ratings(spark).repartition(2).cache()
    train, test = ratings.randomSplit([0.9, 0.1], seed=1)
    regressor = KerasRegressor(
        build_model(),
        inputCols={"user": "user", "item": "item"},
        labelCol="rating",
        epochs=15,
        batchSize=64,
        numWorkers=2,
        seed=0,
    )
    fitted = regressor.fit(train)
    rmse = RegressionEvaluator(labelCol="rating", metricName="rmse").evaluate(
        fitted.transform(test)
    )
    best = recommended(fitted, ratings, user, 5)
    (spread,) = test.select(F.stddev_pop("rating")).collect()
    users, items = tastes()
    found = {
        "rmse": rmse,
        "rmse_of_the_mean": spread[0],
        "likes_recommended": float((users[user] @ items[best].T).mean()),
        "likes_all": float((users[user] @ items.T).mean()),
    }
    print(f"user {user} would like the items {best}", found)
    return found


if __name__ == "__main__":
    main()
