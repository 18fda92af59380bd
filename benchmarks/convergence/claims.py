"""Claims of papers: the fits that test each claim, and the verdict from their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from benchmarks.convergence.case import Case, with_rule
from benchmarks.convergence.results import Result, Summary, summary

POINT = 0.01
FEWER_BYTES = 100
CLIENT_RATES = (0.02, 0.1, 0.5)
SERVER_RATES = (0.01, 0.03, 0.1)
"""Learning rates tried with skewed shards: of the replicas' SGD, and of the server's rule."""

Cases = dict[str, Case]
Summaries = Mapping[str, Summary]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, and the figures that show it."""

    holds: bool
    because: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'does not hold'}: {self.because}"


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        text: The claim in words.
        cases: Cases to measure, by name.
        judge: Function from the summaries of the cases to the verdict.
        grid: Cases to tune a rule with, by the rule's name. The best of them is measured, too.
    """

    text: str
    cases: Cases
    judge: Callable[[Summaries], Verdict]
    grid: Mapping[str, Cases] | None = None


def beats(one: Summary, other: Summary) -> bool:
    """Whether the first mean is higher by more than either standard deviation."""
    return one.accuracy - other.accuracy > max(one.spread or 0.0, other.spread or 0.0)


def claims() -> dict[str, Claim]:
    """All claims by name."""
    return {
        "few-bytes": few_bytes(10),
        "few-bytes-longer": few_bytes(30),
        "skewed-shards": skewed_shards(),
        "slow-worker": slow_worker(5, "sgd", 0.1),
        "slow-worker-long": slow_worker(20, "adam", 0.001),
        "bad-replica": bad_replica(),
    }


def few_bytes(rounds: int) -> Claim:
    """Few exchanges against one per batch. 200 batches of 10 are one epoch of a shard."""
    base = Case(batch_size=10, epochs=rounds)
    every = replace(base, frequency=200)
    cases = {
        "exact, batch": replace(base, frequency="batch"),
        "Average, 200": every,
        "DiLoCo, 200": with_rule(every, "SGD", learning_rate=0.7, momentum=0.9, nesterov=True),
    }

    def judge(of: Summaries) -> Verdict:
        exact, rare = of["exact, batch"], of["DiLoCo, 200"]
        ratio = (exact.bytes or 0.0) / (rare.bytes or 1.0)
        near = rare.accuracy >= exact.accuracy - POINT / 2
        figures = f"{rare} beside {exact}, with {ratio:.0f} times fewer bytes"
        return Verdict(near and ratio >= FEWER_BYTES, figures)

    text = (
        "DiLoCo, SGD(0.7, momentum=0.9, nesterov=True) every 200 batches, is within 0.5 point "
        f'of exact synchronous "batch" with at least {FEWER_BYTES} times fewer bytes, '
        f"after {rounds} rounds"
    )
    return Claim(text, cases, judge)


def skewed_shards() -> Claim:
    """Five shards of two classes each, with rates tuned on rows held out of training."""
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
        figures = f"Adam {of['Adam']} and Yogi {of['Yogi']} beside Average {average}"
        return Verdict(bool(better), figures)

    return Claim("Adam or Yogi beat Average if each shard sees two classes", {}, judge, grid)


def slow_worker(frequency: int, optimizer: str, rate: float) -> Claim:
    """One worker that takes ten times as long per batch."""
    base = Case(mode="asynchronous", frequency=frequency, slow=True)
    base = replace(base, optimizer=optimizer, learning_rate=rate)
    rules = ("Average", "Downpour", "StalenessAware")
    cases = {rule: with_rule(base, rule) for rule in rules}

    def judge(of: Summaries) -> Verdict:
        aware, average, whole = of["StalenessAware"], of["Average"], of["Downpour"]
        figures = f"{aware} beside Average {average} and Downpour {whole}"
        return Verdict(beats(aware, average) and beats(aware, whole), figures)

    text = (
        "StalenessAware beats plain asynchronous training with one worker ten times slower, "
        f"and {frequency} batches per push"
    )
    return Claim(text, cases, judge)


def bad_replica() -> Claim:
    """One of four shards with noise, against the same shards without noise."""
    base = Case(rows="spoiled", optimizer="sgd", learning_rate=0.05)
    cases = {"without noise, Average": replace(base, rows="mixed")}
    cases.update({rule: with_rule(base, rule) for rule in ("Average", "TrimmedMean", "Median")})

    def judge(of: Summaries) -> Verdict:
        clean, trimmed = of["without noise, Average"], of["TrimmedMean"]
        near = trimmed.accuracy >= clean.accuracy - 2 * POINT
        figures = (
            f"TrimmedMean {trimmed}, Median {of['Median']}, Average {of['Average']}; "
            f"{clean} without noise"
        )
        return Verdict(near and beats(trimmed, of["Average"]), figures)

    text = (
        "TrimmedMean with one replica that sends noise is within 2 points of Average without "
        "noise, and better than Average with it"
    )
    return Claim(text, cases, judge)


def best(grid: Cases, results: Mapping[str, list[Result]]) -> Case:
    """The case of a grid with the highest accuracy, to be measured on the test rows."""
    scores = {name: summary(results[name]) for name in grid}
    known = {name: s.accuracy for name, s in scores.items() if isinstance(s, Summary)}
    return replace(grid[max(known, key=lambda name: known[name])], tuning=False)


def judged(claim: Claim, results: Mapping[str, list[Result]]) -> str:
    """The verdict on a claim as text, or the fits that failed."""
    summaries = {name: summary(fits) for name, fits in results.items()}
    failed = [f"{name} {reason}" for name, reason in summaries.items() if isinstance(reason, str)]
    if failed:
        return "not judged: " + "; ".join(failed)
    return str(claim.judge({n: s for n, s in summaries.items() if isinstance(s, Summary)}))
