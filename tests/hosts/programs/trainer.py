"""Runs on the driver's host: starts a Spark session, and does what lines on stdin say.

Each line is a JSON object: `do` is the name of a function below, the rest are its arguments. The
answers are JSON lines, too: what happens in the meantime, and `done` with a result or an error.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import keras
from models import MODELS, Slow
from pyspark.sql import SparkSession

from kspark import SparkModel  # before Keras

MODES_OF_ONE_COUNT = 3
"""Workers of a fit, unless it says otherwise."""


def main() -> None:
    """Start the session, then do one thing after the other until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Whatever else writes to stdout goes to the log.
    builder = SparkSession.builder.appName("hosts")
    for name, value in json.loads(sys.argv[1]).items():
        builder = builder.config(name, value)
    trainer = Trainer(builder.getOrCreate(), answers)
    logging.getLogger("kspark").setLevel(logging.INFO)
    logging.getLogger("kspark").addHandler(Lines(trainer.send))
    trainer.send("done")
    for line in sys.stdin:
        order = json.loads(line)
        job: Callable[..., dict[str, Any]] = getattr(trainer, order.pop("do"))
        try:
            trainer.send("done", result=job(**order))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            trainer.send("done", error=type(error).__name__, message=str(error))
    trainer.spark.stop()


class Trainer:
    """The functions that lines on stdin name.

    Args:
        spark: `SparkSession`.
        answers: File to write answers to.
    """

    def __init__(self, spark: SparkSession, answers: TextIO) -> None:
        self.spark = spark
        self._answers = answers
        self._cached: Any = None

    def send(self, event: str, **facts: Any) -> None:
        """Write an answer."""
        self._answers.write(json.dumps({"event": event, **facts}) + "\n")

    def executors(self, number: int) -> dict[str, Any]:
        """Wait until there are exactly that many executors, for at most a minute and a half."""
        end = time.monotonic() + 90
        while self.num_executors() != number:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.num_executors()} executors instead of {number}")
            time.sleep(0.2)
        return {}

    def num_executors(self) -> int:
        """The number of executors that the driver knows."""
        return self.spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1

    def cache(self, model: str = "counting", workers: int = 3, rows: int = 120) -> dict[str, Any]:
        """Cache rows on the executors that are there now. Later fits on `cached` use them."""
        x, y = MODELS[model][1](rows)
        pairs = list(zip(x, y, strict=True))
        self._cached = self.spark.sparkContext.parallelize(pairs, workers).cache()
        self._cached.count()
        return {}

    def fit(
        self,
        model: str = "counting",
        epochs: int = 4,
        batches: int = 10,
        batch_size: int = 4,
        seconds: float = 0.1,
        slow_host: str | None = None,
        slow_shard: int | None = None,
        workers: int = MODES_OF_ONE_COUNT,
        cached: bool = False,
        pause: float = 0.0,
        **settings: Any,
    ) -> dict[str, Any]:
        """Train one of the models.

        Args:
            model: String, a key of `MODELS`.
            epochs: Integer.
            batches: Integer, batches of each worker in an epoch.
            batch_size: Integer.
            seconds: Float, how long a batch takes.
            slow_host: String, the only host where it takes that long. Defaults to `None`, all.
            slow_shard: Integer, the only shard. Defaults to `None`, all.
            workers: Integer, number of shards.
            cached: Boolean, whether to train on the rows of `cache`.
            pause: Float, seconds between two epochs.
            **settings: Arguments of `SparkModel`.
        """
        make_model, make_rows = MODELS[model]
        keras_model = make_model(Slow(seconds, slow_host, slow_shard))
        rows = workers * batches * batch_size
        data = (self._cached,) if cached else make_rows(rows)
        # Lists are pairs of ports.
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        spark_model = SparkModel(
            keras_model,
            num_workers=None if cached else workers,
            batch_size=batch_size,
            **{"seed": 1, **settings},
        )
        callbacks = [Watch(self, pause)]
        history = spark_model.fit(*data, epochs=epochs, verbose=0, callbacks=callbacks)
        weights = keras_model.get_weights()
        report = spark_model.last_fit
        return {
            "model": model,
            "weight": float(weights[0].ravel()[0]),
            "expected": batches * epochs,
            "rows": [int(count) for count in history.history["rows"]],
            "num_rows": rows,
            "digest": hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()[:12],
            "road": report.road,
            "hosts": [[worker["host"] for worker in epoch] for epoch in report.workers],
            "state_kept": all(w.get("state_kept", True) for epoch in report.workers for w in epoch),
        }


class Watch(keras.callbacks.Callback):
    """Tells when epochs begin, and may wait between them."""

    def __init__(self, trainer: Trainer, pause: float) -> None:
        super().__init__()
        self._trainer, self._pause = trainer, pause

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        executors = self._trainer.num_executors()
        self._trainer.send("epoch", epoch=epoch, executors=executors)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        time.sleep(self._pause)


class Lines(logging.Handler):
    """Sends what kspark logs."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send("log", line=f"{record.levelname} {record.getMessage()}")


if __name__ == "__main__":
    main()
