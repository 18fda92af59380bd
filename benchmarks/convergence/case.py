"""The cases of the benchmark: each describes a fit as plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

BATCH_SIZE = 25
FREQUENCY = 20
CODECS = ("float16", "bfloat16", "int8", "top_k")


@dataclass(frozen=True)
class Case:
    """One fit, apart from its seed.

    Attributes:
        dataset: `"mnist"` or `"adult"`.
        mode: A mode of `SparkModel`, or `"keras"` for plain Keras.
        frequency: The argument `frequency` of `SparkModel`.
        rule: Class name of the server optimizer.
        rule_config: Names and values of its arguments.
        compression: Name of the codec, or `None`.
        shards: Number of workers.
        epochs: Number of passes over the data.
        batch_size: Rows per batch and worker.
        optimizer: The replicas' optimizer, `"adam"` or `"sgd"`.
        learning_rate: The learning rate of that optimizer.
        scale_lr: The argument `scale_lr` of `fit`, with one epoch of warm-up.
        reshuffle: The argument `reshuffle` of `fit`.
        rows: `"mixed"`, `"sorted"` (by label), `"skewed"` (each shard has its own classes) or
            `"spoiled"` (the first shard has noise).
        slow: Whether the first worker takes ten times as long per batch.
        tuning: Whether accuracy is measured on rows held out of training instead of the test
            rows.
    """

    dataset: str = "mnist"
    mode: str = "synchronous"
    frequency: str | int = "epoch"
    rule: str = "Average"
    rule_config: tuple[tuple[str, Any], ...] = ()
    compression: str | None = None
    shards: int = 4
    epochs: int = 5
    batch_size: int = BATCH_SIZE
    optimizer: str = "adam"
    learning_rate: float = 0.001
    scale_lr: str | None = None
    reshuffle: str | int | None = None
    rows: str = "mixed"
    slow: bool = False
    tuning: bool = False

    def key(self, seed: int) -> str:
        """The text that identifies the fit of a seed in the file of results."""
        return json.dumps({**asdict(self), "seed": seed}, sort_keys=True)


def with_rule(case: Case, rule: str, **config: Any) -> Case:
    """The same case with another server optimizer."""
    return replace(case, rule=rule, rule_config=tuple(sorted(config.items())))


SYNCHRONOUS_RULES = {
    "SGD, momentum 0.9": ("SGD", {"learning_rate": 0.3, "momentum": 0.9}),
    "SGD, DiLoCo": ("SGD", {"learning_rate": 0.7, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {}),
    "Adam": ("Adam", {}),
    "Adam, 0.01": ("Adam", {"learning_rate": 0.01}),
    "Yogi": ("Yogi", {}),
    "Yogi, 0.01": ("Yogi", {"learning_rate": 0.01}),
    "ElasticAverage": ("ElasticAverage", {}),
    "ElasticAverage, momentum 0.5": ("ElasticAverage", {"momentum": 0.5}),
    "Median": ("Median", {}),
    "TrimmedMean": ("TrimmedMean", {}),
}
ASYNCHRONOUS_RULES = {
    "SGD, momentum 0.5": ("SGD", {"learning_rate": 0.5, "momentum": 0.5}),
    "SGD, DiLoCo": SYNCHRONOUS_RULES["SGD, DiLoCo"],
    "Adagrad": ("Adagrad", {}),
    "Adam": ("Adam", {}),
    "Adam, 0.01": ("Adam", {"learning_rate": 0.01}),
    "Adam, 0.003": ("Adam", {"learning_rate": 0.003}),
    "Yogi": ("Yogi", {}),
    "Yogi, 0.01": ("Yogi", {"learning_rate": 0.01}),
    "Yogi, 0.003": ("Yogi", {"learning_rate": 0.003}),
    "ElasticAverage": ("ElasticAverage", {}),
    "ElasticAverage, momentum 0.5": ("ElasticAverage", {"momentum": 0.5}),
    "Downpour": ("Downpour", {}),
    "ADAG": ("ADAG", {}),
    "ADAG, 5": ("ADAG", {"learning_rate": 5.0}),
    "StalenessAware": ("StalenessAware", {}),
}
HOGWILD_RULES = {
    "SGD, momentum 0.5": ASYNCHRONOUS_RULES["SGD, momentum 0.5"],
    "Downpour": ("Downpour", {}),
    "ADAG, 5": ASYNCHRONOUS_RULES["ADAG, 5"],
}
RULES = {
    "synchronous": SYNCHRONOUS_RULES,
    "asynchronous": ASYNCHRONOUS_RULES,
    "hogwild": HOGWILD_RULES,
}


EXCHANGES = (
    ("synchronous", "epoch"),
    ("synchronous", FREQUENCY),
    ("synchronous", "batch"),
    ("asynchronous", FREQUENCY),
    ("hogwild", FREQUENCY),
)
"""The modes and frequencies in which the default rule is measured."""


def sorted_cases(dataset: str, shards: list[int], epochs: int) -> dict[str, Case]:
    """The cases of `--sorted` by name: the default rule, with rows that are sorted by label.

    Each mode is measured without mixing, with mixing before every epoch and before the first one
    only, and with rows in random order for comparison.
    """
    cases = {}
    for count in shards:
        base = Case(dataset=dataset, epochs=epochs, shards=count)
        for mode, frequency in EXCHANGES:
            case = replace(base, mode=mode, frequency=frequency)
            name = f"{count}/{mode}/{frequency}"
            cases[f"{name}/random order"] = case
            case = replace(case, rows="sorted")
            cases[f"{name}/sorted"] = case
            cases[f"{name}/sorted, mixed once"] = replace(case, reshuffle=epochs)
            cases[f"{name}/sorted, mixed every epoch"] = replace(case, reshuffle="epoch")
    return cases


def cases(dataset: str, shards: list[int], epochs: int) -> dict[str, Case]:
    """The cases of the table by name.

    The rule `Average` has cases for every number of shards; everything else is measured with
    the middle one.
    """
    base = Case(dataset=dataset, epochs=epochs)
    cases = {}
    for batch in sorted({BATCH_SIZE, *(BATCH_SIZE * k for k in shards)}):
        cases[f"keras/batch {batch}"] = replace(base, mode="keras", shards=1, batch_size=batch)
    for count in shards:
        cases.update(averages(replace(base, shards=count)))
    middle = replace(base, shards=sorted(shards)[len(shards) // 2])
    cases.update(other_frequencies(middle))
    cases.update(other_rules(middle))
    cases.update(compressions(middle))
    return cases


def averages(base: Case) -> dict[str, Case]:
    """Cases of the default rule in every mode."""
    cases = {}
    for mode, frequency in EXCHANGES:
        case = replace(base, mode=mode, frequency=frequency)
        cases[f"{base.shards}/{mode}/{frequency}/Average"] = case
    for scale in ("linear", "sqrt"):
        case = replace(base, frequency="batch", scale_lr=scale)
        cases[f"{base.shards}/synchronous/batch/Average, scale_lr {scale}"] = case
    return cases


def other_frequencies(base: Case) -> dict[str, Case]:
    """Cases of the default rule in asynchronous mode with the other frequencies."""
    return {
        f"{base.shards}/asynchronous/{frequency}/Average": replace(
            base, mode="asynchronous", frequency=frequency
        )
        for frequency in ("epoch", "batch")
    }


def other_rules(base: Case) -> dict[str, Case]:
    """Cases of all other rules in their modes, without compression and with int8."""
    cases = {}
    for mode, rules in RULES.items():
        for label, (rule, config) in rules.items():
            case = replace(base, mode=mode, frequency=FREQUENCY)
            name = f"{base.shards}/{mode}/{FREQUENCY}/{label}"
            cases[name] = with_rule(case, rule, **config)
            if mode != "hogwild" and rule != "ElasticAverage":  # These take no codec.
                cases[f"{name}/int8"] = replace(cases[name], compression="int8")
    return cases


def compressions(base: Case) -> dict[str, Case]:
    """Cases of all codecs, with many exchanges and with few."""
    cases = {}
    for mode, frequency in (
        ("synchronous", "epoch"),
        ("synchronous", "batch"),
        ("asynchronous", FREQUENCY),
    ):
        for codec in CODECS:
            case = replace(base, mode=mode, frequency=frequency, compression=codec)
            cases[f"{base.shards}/{mode}/{frequency}/Average/{codec}"] = case
    return cases
