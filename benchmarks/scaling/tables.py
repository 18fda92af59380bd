"""The tables of the benchmark, as lines of Markdown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.scaling.costs import Costs
from benchmarks.scaling.equations import Cluster, Job
from benchmarks.scaling.roads import WORKERS, Study, predict, reach, ways


def costs_table(costs: Costs) -> list[str]:
    """The costs in milliseconds, and in milliseconds per megabyte."""
    rows = [
        *[(f"a step, {m / 1e6:.1f} MB", seconds, 0.0) for m, seconds in costs.step.points],
        ("a round", costs.round.fixed, costs.round.per_byte),
        ("a task of a round, per byte sent", costs.task.fixed, costs.task.per_byte),
        ("a second stage", costs.stage, 0.0),
        ("one more delta in a round's mean", 0.0, costs.merge),
        ("one more gradient in a batch's mean", 0.0, costs.mean),
        ("the end of a live epoch", costs.live_epoch, 0.0),
        ("a gradient exchange, worker", costs.gradient.fixed, costs.gradient.per_byte),
        ("a delta exchange, worker", costs.delta.fixed, costs.delta.per_byte),
        ("a message's round trip; per byte, one way", costs.message, costs.wire),
        ("the driver's time in it", costs.message_driver, 0.0),
        ("adding and copying under the lock", 0.0, costs.lock),
    ]
    for name, used in costs.codecs.items():
        if used.encode:
            rows += [(f"{name}, encode", 0.0, used.encode), (f"{name}, decode", 0.0, used.decode)]
    lines = [f"| cost ({costs.machine}) | ms | ms per MB |", "|---|--:|--:|"]
    return lines + [
        f"| {name} | {1e3 * fixed:.2f} | {1e9 * each:.3f} |" for name, fixed, each in rows
    ]


def check_table(costs: Costs, checks: list[dict[str, Any]]) -> list[str]:
    """Predicted and measured seconds, with all processes on one machine."""
    lines = ["| road | workers | measured, s | predicted, s | ratio |", "|---|--:|--:|--:|--:|"]
    for check in checks:
        road, workers, measured = check["road"], check["workers"], check["seconds"]
        cluster = Cluster(float("inf"), 0.0, driver_cores=1, cores=check["cores"])
        job = Job(check["weight_bytes"], check["batches"])
        study = Study(costs, cluster, job, check["frequency"], float("inf"))
        predicted = predict(study, road, workers).seconds
        name = f"{road}, {check['frequency']}" if check["frequency"] > 1 else road
        ratio = predicted / measured
        lines.append(f"| {name} | {workers} | {measured:.2f} | {predicted:.2f} | {ratio:.2f} |")
    return lines


def reach_table(study: Study, megabytes: list[float]) -> list[str]:
    """Where each road stops: a row per road and codec, a column per model size."""
    lines = header([f"{size:,g} MB" for size in megabytes])
    for road, codec in ways(study.costs):
        studies = [replace(study, job=Job(size * 1e6, study.job.batches)) for size in megabytes]
        lines.append(row(road, codec, [reach_cell(each, road, codec) for each in studies]))
    return lines


def reach_cell(study: Study, road: str, codec: str) -> str:
    """A cell of `reach_table`."""
    result = reach(study, road, codec)
    half = f"{result.half:,}" if result.half else "< 2"
    half = f"≥ {half}" if result.half == WORKERS[-1] else f"{half} {result.limit}"
    digits = 0 if result.speed_up >= 10 else 1 if result.speed_up >= 1 else 2
    text = f"{half}; × {result.speed_up:.{digits}f}"
    if result.obstacle is None:
        return text
    reason, workers = result.obstacle
    return f"{text}; 2 GB" if reason == "record" else f"{text}; ! {workers:,}"


def seconds_table(study: Study) -> list[str]:
    """Seconds per epoch: a row per road and codec, a column per number of workers."""
    lines = header([f"{workers:,}" for workers in WORKERS])
    for road, codec in ways(study.costs):
        seconds = [f"{predict(study, road, k, codec).seconds:.3g}" for k in WORKERS]
        lines.append(row(road, codec, seconds))
    return lines


def header(titles: list[str]) -> list[str]:
    """The first two lines of a table with a column of names."""
    return [f"| | {' | '.join(titles)} |", f"|---|{'--:|' * len(titles)}"]


def row(road: str, codec: str, cells: list[str]) -> str:
    """A line of a table, named by road and codec."""
    return f"| {road}, {codec} | {' | '.join(cells)} |"
