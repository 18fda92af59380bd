"""Check the `worker_callbacks` argument of `fit`, and pickle it for the workers."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import keras

from kspark.errors import invalid_type
from kspark.replica.callbacks import (
    NAME,
    check_belongs_to_workers,
    dump_callbacks,
    flattened,
    overridden_hooks,
)

logger = logging.getLogger("kspark")

OTHER_HOOKS = (
    *("on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end"),
    *("on_predict_begin", "on_predict_end", "on_predict_batch_begin", "on_predict_batch_end"),
)
"""Hooks that are not called on workers."""


def pickled_callbacks(given: Any) -> bytes | None:
    """Check and pickle the `worker_callbacks` argument of `fit`.

    A function is not called here: it may need what only workers have. They check its result.

    Returns:
        Bytes for the workers; `None` if there are no callbacks.

    Raises:
        TypeError: If it is no callback, no list of callbacks and no function without arguments.
        ValueError: If it is a callback of Keras that belongs to the driver, or cannot be pickled.
    """
    if given is None or given == [] or given == ():
        return None
    if callable(given) and not isinstance(given, keras.callbacks.Callback):
        check_takes_nothing(given)
        return dump_callbacks(given)
    callbacks = flattened(given)
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            rule = "a list of `keras.callbacks.Callback`, or a function that returns one"
            raise invalid_type(NAME, rule, given)
        check_belongs_to_workers(callback)
        warn_of_other_hooks(callback)
    return dump_callbacks(callbacks)


def check_takes_nothing(function: Any) -> None:
    """Check that a function can be called without arguments.

    Raises:
        TypeError: If it needs some.
    """
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise invalid_type(NAME, "a function without arguments", function) from error


def warn_of_other_hooks(callback: keras.callbacks.Callback) -> None:
    """Log a warning if a callback has hooks that are not called on workers."""
    silent = overridden_hooks(callback, OTHER_HOOKS)
    if silent:
        logger.warning(
            "%s of %s will not be called: workers call the hooks of training only.",
            ", ".join(f"`{name}`" for name in silent),
            type(callback).__name__,
        )
