"""What `SparkModel` and its `fit` are given: a model, callbacks, Elephas' arguments."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import keras
from pyspark.sql import SparkSession

from kspark.cluster.remote import is_connect
from kspark.errors import invalid, invalid_type
from kspark.optimizers import ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.plan.checks import check_fraction
from kspark.replica.backends import MERGING

logger = logging.getLogger("kspark")


def compiled_model(model: Any) -> keras.Model:
    """The model itself, made by the function if one was given.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If it is not compiled.
    """
    made = model
    if not isinstance(model, keras.Model) and callable(model):
        made = model()
    if not isinstance(made, keras.Model):
        raise invalid_type("model", "a compiled `keras.Model` or a function that returns one", made)
    if not made.compiled:
        raise invalid("model", "compiled: call `model.compile(...)` first", made.name)
    return made


def refuse_unknown(arguments: Mapping[str, Any]) -> None:
    """Accept Elephas' arguments that mean nothing here, with a warning; refuse all others."""
    unknown = sorted(set(arguments) - {"parameter_server_mode"})
    if unknown:
        raise TypeError(f"Argument(s) not recognized: {', '.join(unknown)}")
    if "parameter_server_mode" in arguments:
        warnings.warn(
            "`parameter_server_mode` is not used: kspark has one aggregator of its own.",
            DeprecationWarning,
            stacklevel=3,
        )


def check_rule(rule: ServerOptimizer, plan: TrainingPlan) -> None:
    """Refuse a server optimizer that the plan would not use as it is meant.

    Raises:
        ValueError: If it would not.
    """
    rule.check_mode(plan.mode)
    if plan.merges_gradients and rule.name != "average":
        reason = (
            '"average" with mode="synchronous" and frequency="batch": the gradients of all '
            "replicas are merged there, and the model's own optimizer makes the step; with "
            "frequency=1 their deltas are merged by this rule"
        )
        raise invalid("server_optimizer", reason, rule)
    if rule.keeps_replica_weights and plan.mode == "hogwild":
        reason = 'a rule whose replicas go on from the merged weights in mode="hogwild"'
        raise invalid("server_optimizer", reason, rule)
    check_compression(rule, plan)
    check_stragglers(rule, plan)


def check_compression(rule: ServerOptimizer, plan: TrainingPlan) -> None:
    """Refuse a compression that a server optimizer cannot work with.

    Raises:
        ValueError: If it cannot.
    """
    codec = plan.compression
    if codec is None:
        return
    if rule.keeps_replica_weights:
        reason = (
            f'None with server_optimizer="{rule.name}": its replicas send how far they are from '
            "the global weights, which is no sum of changes that could be made up for later"
        )
        raise invalid("compression", reason, codec)
    if codec.sparse and rule.needs_all_deltas:
        reason = (
            f'None, "float16", "bfloat16" or "int8" with server_optimizer="{rule.name}", which '
            "compares the replicas' values: most of those that this one brings are zero"
        )
        raise invalid("compression", reason, codec)


def check_stragglers(rule: ServerOptimizer, plan: TrainingPlan) -> None:
    """Refuse to merge rounds without their slowest shards where all of them count.

    Raises:
        ValueError: If they do.
    """
    if plan.straggler_timeout is None or (rule.averages_deltas and not rule.keeps_replica_weights):
        return
    reason = "which compares changes that were made from the same weights, and a late one was not"
    if rule.keeps_replica_weights:
        reason = (
            "whose replicas have moved already by what they bring: the global weights must move by "
            "as much in the same round"
        )
    told = f'None with server_optimizer="{rule.name}", {reason}'
    raise invalid("straggler_timeout", told, plan.straggler_timeout)


def check_backend(plan: TrainingPlan) -> None:
    """Refuse to merge gradients with a Keras backend that does not show them.

    Raises:
        ValueError: If the plan would.
    """
    name = keras.backend.backend()
    if plan.merges_gradients and name not in MERGING:
        known = " or ".join(repr(merging) for merging in sorted(MERGING))
        rule = (
            f'"epoch" or a number of batches with the Keras backend {name!r}: '
            f'mode="synchronous" with frequency="batch" merges gradients, which needs {known}'
        )
        raise invalid("frequency", rule, plan.frequency)


def check_schedule(plan: TrainingPlan, learning_rate: float | None) -> None:
    """Refuse to scale a learning rate that is set anew at every step.

    Args:
        plan: `TrainingPlan`.
        learning_rate: Float, the optimizer's, or `None` if a schedule decides.

    Raises:
        ValueError: If a schedule decides.
    """
    if plan.scaling is not None and learning_rate is None:
        rule = (
            "None when a `LearningRateSchedule` or a function sets the optimizer's learning rate: "
            "scale what it returns, or compile the model with a number"
        )
        raise invalid("scale_lr", rule, plan.scaling.rule)


def check_class_weight(class_weight: Any, num_targets: int) -> None:
    """Refuse weights of classes where it is not one target whose classes are meant.

    Raises:
        ValueError: If there are several targets, or none.
    """
    if class_weight is not None and num_targets != 1:
        kind = "with several outputs" if num_targets else "without targets"
        raise invalid("class_weight", f"`None` for a model {kind}", class_weight)


def check_exclusive(
    validation_split: float, validation_data: Any, class_weight: Any, sample_weight: Any
) -> None:
    """Refuse arguments of `fit` that contradict each other.

    Raises:
        ValueError: If they do.
    """
    check_fraction("validation_split", validation_split)
    if validation_split and validation_data is not None:
        raise invalid("validation_split", "0 when `validation_data` is given", validation_split)
    if class_weight is not None and sample_weight is not None:
        raise invalid("class_weight", "`None` when `sample_weight` is given", class_weight)


def check_road(spark: SparkSession, plan: TrainingPlan) -> None:
    """Refuse a plan that Spark Connect cannot run: all but rounds need a server on the driver.

    Raises:
        ValueError: If `spark` is a session of Spark Connect and the plan is not for it.
    """
    if not is_connect(spark):
        return
    if plan.straggler_timeout is not None:
        rule = "None over Spark Connect, where no job can be for one partition alone"
        raise invalid("straggler_timeout", rule, plan.straggler_timeout)
    if plan.in_rounds:
        return
    where = "over Spark Connect, whose workers cannot reach a server in this process"
    if plan.mode != "synchronous":
        raise invalid("mode", f'"synchronous" {where}', plan.mode)
    raise invalid("frequency", f'"epoch" {where}', plan.frequency)
