"""Run the benchmark and print its tables in Markdown."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

from benchmarks import scaling
from benchmarks.common.options import new_parser
from benchmarks.common.runs import environment
from benchmarks.scaling.costs import FILE, read
from benchmarks.scaling.equations import Cluster, Job
from benchmarks.scaling.roads import Study
from benchmarks.scaling.tables import check_table, costs_table, reach_table, seconds_table

BATCH_SIZE = 64
BYTES_PER_GIGABIT = 1e9 / 8
PICTURED_GIGABITS, PICTURED_MEGABYTES = 10, (1, 100, 10000)


def arguments() -> argparse.Namespace:
    parser = new_parser(scaling.__doc__)
    add = parser.add_argument
    add("--measure", action="store_true", help="measure the costs on this machine first")
    add("--repeats", type=int, default=1, help="fits per case with --measure; default: 1")
    add("--more", action="store_true", help="with --measure, keep shorter times of the file")
    add("--costs", type=Path, default=FILE, help="file of costs; default: costs.json")
    add("--picture", type=Path, help="file to save a picture to")
    add("--seconds", action="store_true", help="print the seconds per epoch, too")
    add(
        "--megabytes",
        type=float,
        nargs="+",
        default=[1, 10, 100, 1000, 10000],
        help="sizes of the weights; default: 1 10 100 1000 10000",
    )
    add(
        "--gigabits",
        type=float,
        nargs="+",
        default=[1, 10, 100],
        help="bandwidths of the network per second; default: 1 10 100",
    )
    add(
        "--speeds",
        type=float,
        nargs="+",
        default=[1, 100],
        help="speeds of a worker relative to a core of the measured machine; default: 1 100",
    )
    add("--batches", type=int, default=100_000, help="batches per epoch; default: 100000")
    add("--frequency", type=int, default=50, help="steps between two pushes; default: 50")
    add("--memory", type=float, default=256.0, help="the driver's gigabytes; default: 256")
    return parser.parse_args()


def measure(path: Path, repeats: int, more: bool) -> None:
    """Measure costs and epochs, and write both to a file."""
    os.environ.update(environment())
    from benchmarks.scaling.measure import measured  # The tables need neither Keras nor Spark.

    earlier = json.loads(path.read_text(encoding="utf-8")) if more else None
    document = measured(repeats, earlier)
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
            cluster = Cluster(gigabits * BYTES_PER_GIGABIT, speed=speed)
            study = Study(costs, cluster, job, args.frequency, memory)
            where = f"{gigabits:g} Gbit/s, workers {speed:g} times as fast as a core here"
            show(f"Where each road stops: {where}", reach_table(study, args.megabytes))
            for size in args.megabytes if args.seconds else []:
                each = replace(study, job=Job(size * 1e6, args.batches))
                show(f"Seconds per epoch: {size:,g} MB, {where}", seconds_table(each))
    if args.picture:
        from benchmarks.scaling.plot import draw  # The tables do not need matplotlib.

        cluster = Cluster(PICTURED_GIGABITS * BYTES_PER_GIGABIT)
        study = Study(costs, cluster, job, args.frequency, memory)
        draw(args.picture, study, PICTURED_MEGABYTES, args.speeds, BATCH_SIZE)


if __name__ == "__main__":
    main()
