"""Run the benchmark and print its table."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from typing import Any

from benchmarks import exchange
from benchmarks.common.options import new_parser
from benchmarks.exchange.replica import Row, replica
from benchmarks.exchange.servers import NullHandler, Servers, aggregator, spec_of
from kspark.weights import WeightSpec

REDUCE_MEGABYTES = 0.5
WAYS = {
    "copy": "memory copy",
    "raw": "raw sockets",
    "transport": "transport",
    "aggregator": "aggregator",
}


def arguments() -> argparse.Namespace:
    parser = new_parser(exchange.__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs per line; default: 7")
    parser.add_argument(
        "--megabytes",
        type=float,
        nargs="*",
        default=[0.5, 10.0, 100.0],
        help="sizes of the vectors of push + pull; default: 0.5 10 100",
    )
    return parser.parse_args()


def measure(spec: WeightSpec, runs: int, num_replicas: int, **handlers: Any) -> list[Row]:
    """Measure all ways.

    Args:
        spec: `WeightSpec` of the vectors.
        runs: Integer, number of rows.
        num_replicas: Integer. Two replicas reduce, a single one pushes.
        **handlers: Handlers of kspark's servers, by the way's name.

    Returns:
        The rows of the first replica.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with Servers(spec, num_replicas, **handlers) as ports:
        for shard in range(num_replicas):
            here, there = context.Pipe()
            arguments = (there, ports, spec, shard, num_replicas > 1, runs)
            processes.append(context.Process(target=replica, args=arguments, daemon=True))
            processes[-1].start()
            pipes.append(here)
            there.close()  # Without this copy, `recv` raises an error if the process ends.
        rows = [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
    return rows[0]


def line(name: str, rows: list[Row]) -> str:
    """A line of the table: medians in milliseconds, and ratios to raw sockets."""
    cells = [f"{name:>20}"]
    for way in WAYS:
        if way not in rows[0]:
            cells.append(f"{'':>19}")
            continue
        milliseconds = statistics.median(row[way] for row in rows)
        ratio = statistics.median(row[way] / row["raw"] for row in rows)
        cells.append(f"{milliseconds:>10.3f} ({ratio:>5.2f}) ")
    return " ".join(cells)


def main() -> None:
    args = arguments()
    print("milliseconds of one exchange (ratio to raw sockets)\n")
    print(f"{'':>20} " + "  ".join(f"{title:>18}" for title in WAYS.values()))
    for megabytes in args.megabytes:
        spec = spec_of(megabytes)
        handlers = {"transport": NullHandler(), "aggregator": aggregator(spec, "asynchronous", 1)}
        rows = measure(spec, args.runs, 1, **handlers)
        print(line(f"push + pull {megabytes:g} MB", rows), flush=True)
    spec = spec_of(REDUCE_MEGABYTES)
    rows = measure(spec, args.runs, 2, aggregator=aggregator(spec, "synchronous", 2))
    print(line(f"reduce 2 x {REDUCE_MEGABYTES:g} MB", rows))


if __name__ == "__main__":
    main()
