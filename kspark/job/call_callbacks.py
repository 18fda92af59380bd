"""Keras callbacks around an evaluation or a prediction, which run on the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kspark.cluster.interrupts import interruptible
from kspark.errors import invalid_type
from kspark.job.display import Display
from kspark.replica.callbacks import flattened
from kspark.shards import num_batches

TEST, PREDICT = "test", "predict"
"""In the names of the hooks: `on_test_begin`, `on_predict_begin` and so on."""


class CallCallbacks:
    """Runs the hooks of an evaluation or a prediction.

    The workers compute the batches, so the hooks of batches are called as Keras calls them for a
    model that is compiled with all batches as `steps_per_execution`: once, around all of them.

    Args:
        kind: String, `TEST` or `PREDICT`.
        model: `keras.Model`.
        callbacks: As in `keras.Model.evaluate`.

    Raises:
        TypeError: If `callbacks` is not a list of Keras callbacks.
    """

    def __init__(self, kind: str, model: keras.Model, callbacks: Any) -> None:
        given = [] if callbacks is None else flattened(callbacks)
        if not all(isinstance(one, keras.callbacks.Callback) for one in given):
            raise invalid_type("callbacks", "a list of `keras.callbacks.Callback`", callbacks)
        self._kind, self._given = kind, given
        self._hooks = keras.callbacks.CallbackList(given, model=model) if given else None
        self._display: Display | None = None

    def __bool__(self) -> bool:
        """Whether there are callbacks."""
        return bool(self._given)

    def begin(
        self, display: Display, num_examples: int | None, batch_size: int, verbose: str | int
    ) -> None:
        """Run the hooks of the beginning.

        Args:
            display: `Display`, which is cleared before hooks run, because they may write.
            num_examples: Integer, number of rows, or `None` if the driver does not know it yet.
            batch_size: Integer.
            verbose: As in `keras.Model.evaluate`.
        """
        if self._hooks is None:
            return
        self._display = display
        steps = None if num_examples is None else num_batches(num_examples, batch_size)
        self._hooks.set_params({"verbose": verbose, "epochs": 1, "steps": steps})
        self._run("begin")
        self._run("batch_begin", 0)

    def end(self, num_examples: int, batch_size: int, logs: Mapping[str, Any]) -> None:
        """Run the hooks of the end.

        Args:
            num_examples: Integer, number of rows.
            batch_size: Integer.
            logs: Mapping, the metrics, or the outputs as `"outputs"`.
        """
        self._run("batch_end", num_batches(num_examples, batch_size) - 1, dict(logs))
        self._run("end", *([dict(logs)] if self._kind == TEST else []))

    def _run(self, hook: str, *arguments: Any) -> None:
        if self._hooks is not None and self._display is not None:
            self._display.clear()
            with interruptible():
                getattr(self._hooks, f"on_{self._kind}_{hook}")(*arguments)
