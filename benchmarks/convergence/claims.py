"""Claims of papers, each as fits and a verdict that is computed from their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from convergence_case import Case, with_rule
from convergence_results import Result, Summary, summary

POINT = 0.01
FEWER_BYTES = 100
CLIENT_RATES = (0.02, 0.1, 0.5)
SERVER_RATES = (0.01, 0.03, 0.1)
"""The grid for skewed shards: learning rates of the replicas' SGD, and of the server's rule."""

Cases = dict[str, Case]
Summaries = Mapping[str, Summary]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, and the numbers that say so."""

    holds: bool
    because: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'does not hold'}: {self.because}"


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        text: What is claimed.
        cases: Fits by name.
        judge: From their summaries to the verdict.
        grid: Fits that rules are tuned with, by the rule's name and any other.
    """

    text: str
    cases: Cases
    judge: Callable[[Summaries], Verdict]
    grid: Mapping[str, Cases] | None = None


def beats(one: Summary, other: Summary) -> bool:
    """Whether a mean is higher by more than either spread."""
    return one.accuracy - other.accuracy > max(one.spread or 0.0, other.spread or 0.0)


def claims() -> dict[str, Claim]:
    """All of them, by name."""
    return {
        "few-bytes": few_bytes(10),
        "few-bytes-longer": few_bytes(30),
        "skewed-shards": skewed_shards(),
        "slow-worker": slow_worker(5, "sgd", 0.1),
        "slow-worker-long": slow_worker(20, "adam", 0.001),
        "bad-replica": bad_replica(),
    }


def few_bytes(rounds: int) -> Claim:
    """200 batches of 10 are an epoch of a shard, and a round."""
    base = Case(batch_size=10, epochs=rounds)
    every = replace(base, frequency=200)
    found = {
        "exact, batch": replace(base, frequency="batch"),
        "Average, 200": every,
        "DiLoCo, 200": with_rule(every, "SGD", learning_rate=0.7, momentum=0.9, nesterov=True),
    }

    def judge(of: Summaries) -> Verdict:
        exact, rare = of["exact, batch"], of["DiLoCo, 200"]
        ratio = (exact.bytes or 0.0) / (rare.bytes or 1.0)
        near = rare.accuracy >= exact.accuracy - POINT / 2
        told = f"{rare} beside {exact}, with {ratio:.0f} times fewer bytes"
        return Verdict(near and ratio >= FEWER_BYTES, told)

    text = (
        "DiLoCo, SGD(0.7, momentum=0.9, nesterov=True) every 200 batches, is within 0.5 point "
        f'of exact synchronous "batch" with at least {FEWER_BYTES} times fewer bytes, '
        f"after {rounds} rounds"
    )
    return Claim(text, found, judge)


def skewed_shards() -> Claim:
    """Five shards of two classes each; the rates are chosen on rows held out of training."""
    base = Case(rows="skewed", shards=5, epochs=15, optimizer="sgd")
    grid: dict[str, Cases] = {rule: {} for rule in ("Average", "Adam", "Yogi")}
    for rate in CLIENT_RATES:
        local = replace(base, learning_rate=rate, tuning=True)
        grid["Average"][f"{rate:g}"] = local
    for rule, rate, server in product(("Adam", "Yogi"), CLIENT_RATES, SERVER_RATES):
        local = replace(base, learning_rate=rate, tuning=True)
        grid[rule][f"{rate:g}, server {server:g}"] = with_rule(local, rule, learning_rate=server)

    def judge(of: Summaries) -> Verdict:
        average = of["Average"]
        better = [rule for rule in ("Adam", "Yogi") if beats(of[rule], average)]
        told = f"Adam {of['Adam']} and Yogi {of['Yogi']} beside Average {average}"
        return Verdict(bool(better), told)

    return Claim("Adam or Yogi beat Average if each shard sees two classes", {}, judge, grid)


def slow_worker(frequency: int, optimizer: str, rate: float) -> Claim:
    """The first worker takes ten times as long for each batch."""
    base = Case(mode="asynchronous", frequency=frequency, slow=True)
    base = replace(base, optimizer=optimizer, learning_rate=rate)
    rules = ("Average", "Downpour", "StalenessAware")
    found = {rule: with_rule(base, rule) for rule in rules}

    def judge(of: Summaries) -> Verdict:
        aware, average, whole = of["StalenessAware"], of["Average"], of["Downpour"]
        told = f"{aware} beside Average {average} and Downpour {whole}"
        return Verdict(beats(aware, average) and beats(aware, whole), told)

    text = (
        "StalenessAware beats plain asynchronous training with one worker ten times slower, "
        f"and {frequency} batches per push"
    )
    return Claim(text, found, judge)


def bad_replica() -> Claim:
    """One of four shards holds noise; beside it, the same without noise."""
    base = Case(rows="spoiled", optimizer="sgd", learning_rate=0.05)
    found = {"without noise, Average": replace(base, rows="mixed")}
    found.update({rule: with_rule(base, rule) for rule in ("Average", "TrimmedMean", "Median")})

    def judge(of: Summaries) -> Verdict:
        clean, trimmed = of["without noise, Average"], of["TrimmedMean"]
        near = trimmed.accuracy >= clean.accuracy - 2 * POINT
        told = (
            f"TrimmedMean {trimmed}, Median {of['Median']}, Average {of['Average']}; "
            f"{clean} without noise"
        )
        return Verdict(near and beats(trimmed, of["Average"]), told)

    text = "TrimmedMean survives one replica that sends noise: within 2 points of none that does"
    return Claim(text, found, judge)


def best(grid: Cases, results: Mapping[str, list[Result]]) -> Case:
    """The case of a grid with the highest accuracy, as it is scored on test rows."""
    scores = {name: summary(results[name]) for name in grid}
    known = {name: s.accuracy for name, s in scores.items() if isinstance(s, Summary)}
    return replace(grid[max(known, key=lambda name: known[name])], tuning=False)


def judged(claim: Claim, results: Mapping[str, list[Result]]) -> str:
    """The verdict as text, or what failed."""
    found = {name: summary(fits) for name, fits in results.items()}
    failed = [f"{name} {told}" for name, told in found.items() if isinstance(told, str)]
    if failed:
        return "not judged: " + "; ".join(failed)
    return str(claim.judge({n: s for n, s in found.items() if isinstance(s, Summary)}))
