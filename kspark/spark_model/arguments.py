"""Check arguments of `SparkModel` and `fit` that depend on each other or on the model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
from pyspark.sql import SparkSession

from kspark.cluster.remote import is_connect
from kspark.cluster.slots import has_speculation
from kspark.errors import Described, invalid, invalid_type, unknown_argument
from kspark.optimizers import OneShot, ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.plan.checks import check_fraction
from kspark.plan.settings import SETTINGS
from kspark.replica import Replica, check_gradient_merging
from kspark.shards import LearningRate
from kspark.spark_model.keras_attributes import KerasAttributes
from kspark.spark_model.positional_metrics import correct_positional_metrics

OUTPUT_COL = "prediction"
"""The usual name of the column that a prediction adds."""


def compiled_model(model: Any) -> keras.Model:
    """Return a compiled model; call `model` first if it is a function, or take that of a wrapper.

    A model that was compiled with metrics in place of `loss_weights` is compiled again.

    Raises:
        TypeError: If `model` is not a Keras model, or does not return one.
        ValueError: If the model is not compiled.
    """
    made = model
    if isinstance(model, KerasAttributes):
        made = model.master_network
    elif not isinstance(model, keras.Model) and callable(model):
        made = model()
    if not isinstance(made, keras.Model):
        raise invalid_type("model", "a compiled `keras.Model` or a function that returns one", made)
    if not made.compiled:
        raise invalid(
            "model",
            "compiled: call `model.compile(...)` first",
            Described(f"the model {made.name!r}"),
        )
    correct_positional_metrics(made)
    return made


def refuse_unknown(arguments: Mapping[str, Any]) -> None:
    """Warn about `parameter_server_mode`, an argument of Elephas without effect; refuse others.

    Raises:
        TypeError: If there is any other argument.
    """
    for name in arguments:
        if name != "parameter_server_mode":
            raise unknown_argument(name, ("model", "custom_objects", *SETTINGS))
    if "parameter_server_mode" in arguments:
        warnings.warn(
            "`parameter_server_mode` is not used: kspark has one aggregator of its own.",
            DeprecationWarning,
            stacklevel=3,
        )


def check_rule(rule: ServerOptimizer, plan: TrainingPlan) -> None:
    """Refuse a server optimizer that does not work with the settings of a plan.

    Raises:
        ValueError: If it does not.
    """
    rule.check_mode(plan.mode)
    if plan.merges_gradients and rule.name != "average":
        reason = (
            '"average" with mode="synchronous" and frequency="batch", where the optimizer of the '
            "model applies the mean gradient of all replicas; set frequency=1 to merge deltas by "
            "this rule"
        )
        raise invalid("server_optimizer", reason, rule)
    if rule.keeps_replica_weights and plan.mode == "hogwild":
        reason = 'a rule whose replicas continue with the merged weights in mode="hogwild"'
        raise invalid("server_optimizer", reason, rule)
    if isinstance(rule, OneShot) and plan.frequency != "epoch":
        reason = '"epoch" with server_optimizer="one_shot", whose replicas train apart'
        raise invalid("frequency", reason, plan.frequency)
    check_rule_takes_compression(rule, plan)
    check_stragglers(rule, plan)


def check_rule_takes_compression(rule: ServerOptimizer, plan: TrainingPlan) -> None:
    """Refuse a codec that does not work with a server optimizer.

    Raises:
        ValueError: If it does not.
    """
    codec = plan.compression
    if codec is None:
        return
    if rule.keeps_replica_weights:
        reason = (
            f'None with server_optimizer="{rule.name}": its replicas send their distance from the '
            "global weights, and later exchanges cannot correct what a codec loses of a distance"
        )
        raise invalid("compression", reason, codec)
    if codec.sparse and rule.needs_all_deltas:
        reason = (
            f'None, "float16", "bfloat16" or "int8" with server_optimizer="{rule.name}", which '
            "compares the values of all replicas: this codec sets most of them to zero"
        )
        raise invalid("compression", reason, codec)


def check_stragglers(rule: ServerOptimizer, plan: TrainingPlan) -> None:
    """Refuse `straggler_timeout` with a server optimizer that needs all deltas of a round.

    Raises:
        ValueError: If it needs them.
    """
    if plan.straggler_timeout is None or (rule.averages_deltas and not rule.keeps_replica_weights):
        return
    reason = (
        "which compares deltas that were made from the same weights: a late delta was made from "
        "older ones"
    )
    if rule.keeps_replica_weights:
        reason = (
            "whose replicas have already applied their part of the exchange: the global weights "
            "must change by the same amount in the same round"
        )
    requirement = f'None with server_optimizer="{rule.name}", {reason}'
    raise invalid("straggler_timeout", requirement, plan.straggler_timeout)


def check_gradients(model: keras.Model, plan: TrainingPlan) -> None:
    """Refuse to merge gradients of a model whose gradients are not means over the batch.

    Raises:
        ValueError: If the plan merges gradients, and the model's own `train_step` or the reduction
            of its loss makes that inexact.
    """
    if plan.merges_gradients:
        check_gradient_merging(model)


def check_fit(spark: SparkSession, plan: TrainingPlan, replica: Replica, class_weight: Any) -> None:
    """Refuse a plan that the session, or the model with its class weights, does not allow.

    Raises:
        ValueError: See `check_schedule`, `check_single_target` and `check_session`.
    """
    check_schedule(plan, replica.learning_rate)
    check_single_target(class_weight, len(replica.inputs.targets))
    check_session(spark, plan)


def check_schedule(plan: TrainingPlan, learning_rate: LearningRate) -> None:
    """Refuse `scale_lr` if a schedule sets the learning rate.

    Args:
        plan: `TrainingPlan`.
        learning_rate: `LearningRate` of the optimizer.

    Raises:
        ValueError: If the plan scales the learning rate and a schedule sets it.
    """
    rates = learning_rate if isinstance(learning_rate, tuple) else (learning_rate,)
    if plan.scaling is not None and None in rates:
        rule = (
            "None when a `LearningRateSchedule` or a function sets the optimizer's learning rate: "
            "scale what it returns, or compile the model with a number"
        )
        raise invalid("scale_lr", rule, plan.scaling.rule)


def check_single_target(class_weight: Any, num_targets: int) -> None:
    """Refuse `class_weight` unless the model has exactly one target.

    Raises:
        ValueError: If it has several targets, or none.
    """
    if class_weight is not None and num_targets != 1:
        kind = "with several outputs" if num_targets else "without targets"
        raise invalid("class_weight", f"`None` for a model {kind}", class_weight)


def check_exclusive(validation_split: float, class_weight: Any, sample_weight: Any) -> None:
    """Refuse arguments of `fit` that exclude each other.

    Raises:
        ValueError: If two of them do, or `validation_split` is out of range.
        TypeError: If `validation_split` is not a number.
    """
    check_fraction("validation_split", validation_split)
    if class_weight is not None and sample_weight is not None:
        raise invalid("class_weight", "`None` when `sample_weight` is given", class_weight)


def check_collects(callbacks: Any, *, collects: bool) -> None:
    """Refuse callbacks of a prediction whose outputs do not come to the driver.

    Args:
        callbacks: Anything that is true if there are callbacks.
        collects: Boolean, whether the outputs come to the driver.

    Raises:
        ValueError: If there are callbacks, and the outputs do not come.
    """
    if callbacks and not collects:
        rule = "`None` for a DataFrame, and with `output`: the outputs stay with the workers"
        raise invalid("callbacks", rule, Described("callbacks"))


def check_output_col(output_col: Any, *, adds: bool) -> None:
    """Refuse the name of a column where a prediction adds none.

    Args:
        output_col: The argument of `predict`.
        adds: Boolean, whether a column is added.

    Raises:
        ValueError: If it is named, but not added.
    """
    if not adds and not (isinstance(output_col, str) and output_col == OUTPUT_COL):
        rule = "left out unless `x` is a DataFrame of Spark, or files are written to `output`"
        raise invalid("output_col", rule, output_col)


def check_session(spark: SparkSession, plan: TrainingPlan) -> None:
    """Refuse a plan that the session cannot run.

    Over Spark Connect, live training would need a server that its workers cannot reach, and
    `straggler_timeout` a job for each shard, and `reshuffle` a shuffle of the workers' results.

    Raises:
        ValueError: If the plan needs one of them; see also `check_speculation`.
    """
    check_speculation(spark)
    if not is_connect(spark):
        return
    if plan.straggler_timeout is not None:
        rule = "None over Spark Connect, which cannot run a job for a single partition"
        raise invalid("straggler_timeout", rule, plan.straggler_timeout)
    if plan.reshuffle is not None:
        rule = "None over Spark Connect, which cannot shuffle what the workers hold"
        raise invalid("reshuffle", rule, plan.reshuffle)
    where = "over Spark Connect, whose workers cannot reach a server in this process"
    if plan.mode != "synchronous":
        raise invalid("mode", f'"synchronous" {where}', plan.mode)
    if plan.frequency != "epoch":
        raise invalid("frequency", f'"epoch" {where}', plan.frequency)
    if plan.road == "live":
        raise invalid("road", f'"auto" or "rounds" {where}', plan.road)
    if plan.callbacks_every is not None:
        raise invalid("callbacks_every", f"None {where}", plan.callbacks_every)


def check_speculation(spark: SparkSession) -> None:
    """Refuse fits while Spark starts second tasks beside slow ones.

    The second task is on another host, which does not have the files of the shard. It ends at
    once, and Spark takes it for the faster one and ends the task that was training. In a live fit,
    it also takes the place of the replica that was training.

    Raises:
        ValueError: If the session has `spark.speculation`.
    """
    if has_speculation(spark):
        rule = (
            '"false" in a fit on a cluster. A second task on another host has none of the files of '
            "its shard, and would end the task that is training. Start the session with "
            "spark.speculation=false"
        )
        raise invalid("spark.speculation", rule, Described("spark.speculation=true"))
