"""Check functions of `(worker, num_workers)` that a call gets in place of data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kspark import adapters
from kspark.adapters import Factory
from kspark.adapters.factories import check_signature, is_factory
from kspark.errors import invalid
from kspark.plan import TrainingPlan
from kspark.replica.data_function import DataFunction


def readable(value: Any, *, limited: bool = False) -> Any:
    """Return data of the user that can be adapted, if it is of a kind that can be converted.

    Args:
        value: The data, or a function of `(worker, num_workers)` that makes it.
        limited: Boolean, see `kspark.adapters.readable`. Defaults to `False`.

    Raises:
        TypeError: If a function does not take these two arguments.
        ValueError: If `value` gives batches, and the first one is not usable; or if it is a
            function that cannot be pickled.
    """
    if is_factory(value):
        check_signature(value)
        return Factory(DataFunction.of(value))
    return adapters.readable(value, limited=limited)


def take_batches(x: Factory, plan: TrainingPlan, batch_size: int | None) -> None:
    """Note what `fit` says about the batches of a function.

    Raises:
        ValueError: If the plan needs to know the rows of the function.
    """
    check_streamable(plan)
    x.batch_size = batch_size


def take_validation(data: Factory, plan: TrainingPlan, batch_size: int | None) -> TrainingPlan:
    """Note what `fit` says about the batches of a function that makes the validation data.

    Returns:
        `TrainingPlan` for the rows that the function makes, all of which validate.
    """
    data.batch_size, data.steps, data.seed = batch_size, plan.validation_steps, plan.seed
    return replace(plan, validation_steps=None)


def check_streamable(plan: TrainingPlan) -> None:
    """Refuse settings that need to know the rows of a function of `(worker, num_workers)`.

    Raises:
        ValueError: If there is one.
    """
    function = "with a function of (worker, num_workers)"
    if plan.reshuffle is not None:
        rule = f"None {function}, whose rows are not kept: let the function mix them"
        raise invalid("reshuffle", rule, plan.reshuffle)
    if plan.callbacks_every is not None and plan.steps_per_epoch is None:
        rule = f"None {function} and no `steps_per_epoch`, so that the last batch is not known"
        raise invalid("callbacks_every", rule, plan.callbacks_every)
