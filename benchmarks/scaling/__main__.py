"""How far each road scales: seconds per epoch for 2 to 1,024 workers, from measured costs.

    python benchmarks/scale_model.py
    python benchmarks/scale_model.py --picture docs/scaling.png
    python benchmarks/scale_model.py --measure

Without `--measure` the costs are those of `benchmarks/scale_costs.json`. With it they
are measured on this machine, the model is checked against epochs of 1, 2 and 4 workers,
and both are written into that file; a few minutes. Where other things run, let `--repeats`
or a later `--more` measure again: what took least counts. What is printed:

* costs: what was measured.
* model against measurement: predicted and measured seconds of an epoch. All workers share
  this machine's cores there.
* where each road stops: for every model, the most workers of which each is still at least
  half as useful as one alone, and what the epoch is spent on beyond that; then the fastest
  epoch that any number of workers reaches, as a speed-up. "!" is where the driver's
  `--memory` ends, "2 GB" a delta that Spark cannot carry.
* with `--seconds`: seconds per epoch for all numbers of workers, models and networks.

An epoch is `--batches` batches of 64, shared out among the workers: seconds per epoch, not
seconds until the model is good. More workers mean larger steps or fewer merges.

The equations are in `scale_costs.py`, the queue in `scale_queue.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from scale_costs import Cluster, Costs, Job
from scale_roads import WORKERS, Study, predict, reach, ways

HERE = Path(__file__).resolve().parent
BATCH_SIZE = 64
BITS = 8e-9  # gigabits in a byte
PICTURED_GIGABITS, PICTURED_MEGABYTES = 10, (1, 100, 10000)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure the costs here")
    parser.add_argument("--repeats", type=int, default=1, help="of all fits; the least counts")
    parser.add_argument("--more", action="store_true", help="beside what the file has")
    parser.add_argument("--costs", type=Path, default=HERE / "scale_costs.json")
    parser.add_argument("--picture", type=Path, help="where to save the picture")
    parser.add_argument("--seconds", action="store_true", help="all seconds, in long tables")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1, 10, 100, 1000, 10000])
    parser.add_argument("--gigabits", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--speeds", type=float, nargs="+", default=[1, 100])
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--frequency", type=int, default=50, help="steps between two pushes")
    parser.add_argument("--memory", type=float, default=256.0, help="the driver's, in GB")
    return parser.parse_args()


def read(path: Path) -> tuple[Costs, list[dict[str, Any]]]:
    """Costs, and the epochs that were measured with them."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Costs.from_dict(document["costs"]), document["checks"]


def costs_table(costs: Costs) -> list[str]:
    """What was measured, in units that can be read."""
    rows = [
        *[(f"a step, {m / 1e6:.1f} MB", seconds, 0.0) for m, seconds in costs.step.points],
        ("a round", costs.round.fixed, costs.round.per_byte),
        ("a task of a round, per byte sent", costs.task.fixed, costs.task.per_byte),
        ("a second stage", costs.stage, 0.0),
        ("one delta more in a round's mean", 0.0, costs.merge),
        ("one gradient more in a meeting's mean", 0.0, costs.mean),
        ("the end of a live epoch", costs.live_epoch, 0.0),
        ("a gradient exchange, worker", costs.gradient.fixed, costs.gradient.per_byte),
        ("a delta exchange, worker", costs.delta.fixed, costs.delta.per_byte),
        ("a message's round trip; per byte, one way", costs.message, costs.wire),
        ("the driver's time in it", costs.message_driver, 0.0),
        ("adding and copying in the lock", 0.0, costs.lock),
    ]
    for name, used in costs.codecs.items():
        if used.encode:
            rows += [(f"{name}, encode", 0.0, used.encode), (f"{name}, decode", 0.0, used.decode)]
    lines = [f"| cost ({costs.machine}) | ms | ms per MB |", "|---|--:|--:|"]
    return lines + [
        f"| {name} | {1e3 * fixed:.2f} | {1e9 * each:.3f} |" for name, fixed, each in rows
    ]


def check_table(costs: Costs, checks: list[dict[str, Any]]) -> list[str]:
    """Predicted beside measured seconds, all processes on one machine."""
    lines = [
        "| road | workers | measured, s | predicted, s | ratio |",
        "|---|--:|--:|--:|--:|",
    ]
    for check in checks:
        cluster = Cluster(float("inf"), 0.0, driver_cores=1, cores=check["cores"])
        job = Job(check["weight_bytes"], check["batches"])
        study = Study(costs, cluster, job, check["frequency"], float("inf"))
        found = predict(study, check["road"], check["workers"]).seconds
        cells = (check["seconds"], found, found / check["seconds"])
        numbers = " | ".join(f"{cell:.2f}" for cell in cells)
        lines.append(f"| {road_in_words(check)} | {check['workers']} | {numbers} |")
    return lines


def road_in_words(check: dict[str, Any]) -> str:
    """A road as the tables call it."""
    return f"{check['road']}, {check['frequency']}" if check["frequency"] > 1 else check["road"]


def reach_table(study: Study, megabytes: list[float]) -> list[str]:
    """Where each road stops: a row per road and compression, a column per model."""
    heads = [f"{size:,g} MB" for size in megabytes]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    for road, codec in ways(study.costs):
        cells = [
            cell(replace(study, job=Job(size * 1e6, study.job.batches)), road, codec)
            for size in megabytes
        ]
        lines.append(f"| {road}, {codec} | {' | '.join(cells)} |")
    return lines


def cell(study: Study, road: str, codec: str) -> str:
    """How far one road scales, in a few characters."""
    found = reach(study, road, codec)
    half = "< 2" if not found.half else f"{found.half:,}"
    half = f"≥ {half}" if found.half == WORKERS[-1] else f"{half} {found.limit}"
    digits = 0 if found.speed_up >= 10 else 1 if found.speed_up >= 1 else 2
    text = f"{half}; × {found.speed_up:.{digits}f}"
    if found.barred is None:
        return text
    why, workers = found.barred
    return f"{text}; 2 GB" if why == "record" else f"{text}; ! {workers:,}"


def seconds_table(study: Study) -> list[str]:
    """Seconds per epoch: a row per road and compression, a column per number of workers."""
    lines = [f"| | {' | '.join(f'{k:,}' for k in WORKERS)} |", f"|---|{'--:|' * len(WORKERS)}"]
    for road, codec in ways(study.costs):
        seconds = [f"{predict(study, road, k, codec).seconds:.3g}" for k in WORKERS]
        lines.append(f"| {road}, {codec} | {' | '.join(seconds)} |")
    return lines


def measure(path: Path, repeats: int, more: bool) -> None:
    """Measure costs and the epochs to check, and keep both."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import scale_measure  # it needs Keras and Spark; the tables do not

    earlier = json.loads(path.read_text(encoding="utf-8")) if more else None
    document = scale_measure.measured(repeats, earlier)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def show(title: str, lines: list[str]) -> None:
    print("\n".join([f"\n## {title}\n", *lines]), flush=True)


def main() -> None:
    args = arguments()
    if args.measure:
        measure(args.costs, args.repeats, args.more)
    costs, checks = read(args.costs)
    show("Costs", costs_table(costs))
    show("Model against measurement", check_table(costs, checks))
    job, memory = Job(0.0, args.batches), args.memory * 1e9
    for speed in args.speeds:
        for gigabits in args.gigabits:
            cluster = Cluster(gigabits / BITS, speed=speed)
            study = Study(costs, cluster, job, args.frequency, memory)
            where = f"{gigabits:g} Gbit/s, workers {speed:g} times as fast as a core here"
            show(f"Where each road stops: {where}", reach_table(study, args.megabytes))
            for size in args.megabytes if args.seconds else []:
                each = replace(study, job=Job(size * 1e6, args.batches))
                show(f"Seconds per epoch: {size:,g} MB, {where}", seconds_table(each))
    if args.picture:
        import scale_plot  # it needs matplotlib

        study = Study(costs, Cluster(PICTURED_GIGABITS / BITS), job, args.frequency, memory)
        scale_plot.draw(args.picture, study, PICTURED_MEGABYTES, args.speeds, BATCH_SIZE)


if __name__ == "__main__":
    main()
