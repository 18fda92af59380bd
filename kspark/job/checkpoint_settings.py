"""What a fit must have in common with the fit whose checkpoint it goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import keras

from kspark import compression, optimizers
from kspark.errors import invalid
from kspark.optimizers import ServerOptimizer
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.replica.compile_arguments import compile_arguments
from kspark.replica.digest import lasting_digest, unnumbered
from kspark.replica.model_bytes import read_config

SETTINGS = (
    *("mode", "frequency", "batch_size", "shuffle", "reshuffle", "max_staleness"),
    *("initial_epoch", "steps_per_epoch"),
)
"""Attributes of a `TrainingPlan` that decide what a fit computes, and that are JSON data."""

LOSSES = ("loss", "loss_weights", "metrics", "weighted_metrics")

QUOTE = "'"

SHOWN = 60
"""Characters of a value in an error."""


def settings_of(
    model: keras.Model,
    spec: ReplicaSpec,
    plan: TrainingPlan,
    rule: ServerOptimizer,
    seed: int | None,
    callbacks: list[str],
) -> dict[str, Any]:
    """Return what decides how a fit goes on, as JSON data by dotted names.

    Settings that do not change the result, such as `port`, are not in it, and neither is `epochs`.

    Args:
        model: The compiled `keras.Model`, before training.
        spec: `ReplicaSpec` of it.
        plan: `TrainingPlan`.
        rule: `ServerOptimizer`.
        seed: Integer, the seed that the user has set, or `None` if `fit` has drawn one.
        callbacks: List of strings, the classes of callbacks whose state is kept.
    """
    arguments, compilation, scaling = compile_arguments(model), spec.model.compilation, plan.scaling
    settings = {name: getattr(plan, name) for name in SETTINGS}
    settings |= {name: described(arguments[name]) for name in LOSSES}
    return flat(
        settings
        | {
            "backend": spec.backend,
            "model": architecture_of(spec, model),
            "optimizer": unnumbered(json.loads(compilation.optimizer.config))
            if compilation
            else {},
            "server_optimizer": described(optimizers.serialize(rule)),
            "compression": compression.serialize(plan.compression),
            "class_weight": described(plan.class_weight),
            "scale_lr": None if scaling is None else scaling.rule,
            "warmup_epochs": None if scaling is None else scaling.warmup_epochs,
            "seed": seed,
            "callbacks": callbacks,
            # They are pickled by now. Checkpoints of fits without them need not know of them.
            "worker_callbacks": None if plan.worker_callbacks is None else "some",
            "preprocessing": steps_of(spec),
        }
    )


def steps_of(spec: ReplicaSpec) -> dict[str, str] | None:
    """Describe `preprocess` and `augment` in a line each: name, and a digest."""
    if spec.preprocessing is None:
        return None
    steps = (spec.preprocessing.preprocess, spec.preprocessing.augment)
    return {
        step.argument: f"{unnumbered(step.title.replace(QUOTE, ''))}, {lasting_digest(step)}"
        for step in steps
        if step is not None
    }


def architecture_of(spec: ReplicaSpec, model: keras.Model) -> str:
    """Describe the architecture of a model in a line: class, number of weights, and a digest."""
    text = json.dumps(unnumbered(read_config(spec.model.model_bytes)), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{type(model).__name__} of {spec.weights.size:,} weights, {digest}"


def described(value: Any) -> Any:
    """Turn a value into JSON data: functions and objects become the names of their classes."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): described(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return str(getattr(value, "__name__", type(value).__name__))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the names of nested dictionaries with dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def check_same(path: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of a fit with other settings, another model or other data.

    Args:
        path: String, the checkpoint.
        saved: Mapping, the result of `settings_of` of the fit that wrote the checkpoint.
        now: Mapping, that of this fit.

    Raises:
        ValueError: If they differ. The message names the differences.
    """
    now = json.loads(json.dumps(now))  # as `saved` has been written and read
    differences = [
        f"{name} was {shown(saved.get(name))} and is {shown(now.get(name))}"
        for name in sorted(saved.keys() | now.keys())
        if saved.get(name) != now.get(name)
    ]
    if differences:
        rule = (
            "a folder with checkpoints of the same model, data and settings. "
            f"{'; '.join(differences)}. Use the same ones, or another folder"
        )
        raise invalid("checkpoint", rule, path)


def shown(value: Any) -> str:
    """Return a value as a short text."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
