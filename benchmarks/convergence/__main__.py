"""Run the benchmark and print its tables in Markdown."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from benchmarks import convergence
from benchmarks.common.options import add_data, add_only, matching, new_parser
from benchmarks.common.runs import environment
from benchmarks.common.tables import versions
from benchmarks.convergence.case import Case, cases, sorted_cases
from benchmarks.convergence.claims import Claim, best, claims, judged
from benchmarks.convergence.data import Rows, load
from benchmarks.convergence.results import Measure, Result, Results, measure_all, table


def arguments() -> argparse.Namespace:
    parser = new_parser(convergence.__doc__)
    parser.add_argument("--claims", action="store_true", help="test claims of papers")
    parser.add_argument("--sorted", action="store_true", help="measure rows sorted by label")
    parser.add_argument("--results", type=Path, help="file of results to read and continue")
    parser.add_argument("--dataset", choices=("mnist", "adult"), default="mnist")
    parser.add_argument("--seeds", type=int, default=3, help="fits per case; default: 3")
    parser.add_argument(
        "--shards",
        type=int,
        nargs="+",
        default=[2, 4, 8],
        help="numbers of workers; default: 2 4 8",
    )
    parser.add_argument(
        "--epochs", type=int, default=5, help="epochs per fit, not of claims; default: 5"
    )
    add_only(parser)
    add_data(parser)
    return parser.parse_args()


def measurement(rows: Rows, slots: int) -> Measure:
    """A function that measures a case. Its first call starts Keras and Spark."""

    def measure(case: Case, seed: int) -> Result:
        os.environ.update(environment())
        from benchmarks.convergence import fit

        fit.start(slots)
        return fit.measure(case, seed, rows)

    return measure


def claim_lines(
    name: str, claim: Claim, seeds: int, results: Results, measure: Measure
) -> list[str]:
    """The lines of one claim: its text, the tuned learning rates, its table and the verdict."""
    run = partial(measure_all, results=results, measure=measure)
    selected, tuning = dict(claim.cases), {}
    for rule, grid in (claim.grid or {}).items():
        trials = run(grid, 1)
        tuning.update({f"{rule}, rate {point}": fits for point, fits in trials.items()})
        selected[rule] = best(grid, trials)
    fits = run(selected, seeds)
    lines = [f"### {name}", "", f"{claim.text}.", ""]
    if tuning:
        lines += ["Tuned on rows held out of training:", "", *table(tuning), ""]
    for rule in claim.grid or {}:
        case = selected[rule]
        lines.append(f"{rule}: replicas {case.learning_rate:g}, server {case.rule_config}")
    return [*lines, *table(fits), "", judged(claim, fits), ""]


def main() -> None:
    args = arguments()
    rows, description = load(args.dataset, args.data)
    results = Results(args.results)
    measure = measurement(rows, max(8, *args.shards))
    if args.claims:
        lines = []
        for name, claim in matching(claims(), args.only).items():
            lines += claim_lines(name, claim, args.seeds, results, measure)
    else:
        made = (sorted_cases if args.sorted else cases)(args.dataset, args.shards, args.epochs)
        selected = matching(made, args.only)
        lines = table(measure_all(selected, args.seeds, results, measure))
        description = f"{description}; {args.epochs} epochs"
    print(f"{description}; {args.seeds} seeds. {versions()}.\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
