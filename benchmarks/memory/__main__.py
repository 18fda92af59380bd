"""Run the benchmark and print its table in Markdown."""

from __future__ import annotations

import argparse

from benchmarks import memory
from benchmarks.common.options import add_only, add_timeout, matching, new_parser
from benchmarks.common.runs import Case, Result, run_case
from benchmarks.common.tables import number, versions


def arguments() -> argparse.Namespace:
    parser = new_parser(memory.__doc__)
    parser.add_argument(
        "--megabytes", type=float, default=100.0, help="size of the weights; default: 100"
    )
    parser.add_argument(
        "--heap", type=int, default=9, help="heap of the driver's JVM, in gigabytes; default: 9"
    )
    parser.add_argument("--epochs", type=int, default=2, help="rounds per case; default: 2")
    add_only(parser)
    add_timeout(parser)
    return parser.parse_args()


def cases(megabytes: float, heap: int, epochs: int) -> dict[str, Case]:
    """All cases by name. With four shards, kspark makes no groups."""
    common = {"engine": "kspark", "megabytes": megabytes, "heap": f"{heap}g", "epochs": epochs}
    variants = ((4, False), (16, True), (16, False), (36, True), (36, False))
    return {
        f"{shards}/{'groups' if groups else 'single'}": {
            "shards": shards,
            "groups": groups,
            **common,
        }
        for shards, groups in variants
    }


def row(case: Case, result: Result) -> str:
    """A line of the table."""
    if "failed" in result:
        figures = [result["failed"].replace("|", "/"), "–", "–"]
    else:
        figures = [number(result[key], "{:,.0f}") for key in ("python", "jvm", "seconds")]
    cells = [str(case["shards"]), "yes" if case["groups"] else "no", *figures]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    args = arguments()
    print(f"{versions()}; weights of {args.megabytes:g} MB\n")
    print("| shards | groups | driver's Python, MB | its JVM, MB | seconds |")
    print("|--:|---|--:|--:|--:|", flush=True)
    for case in matching(cases(args.megabytes, args.heap, args.epochs), args.only).values():
        print(row(case, run_case("benchmarks.memory.case", case, args.timeout)), flush=True)


if __name__ == "__main__":
    main()
