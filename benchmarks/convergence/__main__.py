"""What is learnt with every mode, rule and compression, and how many bytes it takes.

    python benchmarks/convergence.py --results results.jsonl
    python benchmarks/convergence.py --only "4/synchronous/*" --seeds 1
    python benchmarks/convergence.py --dataset adult --shards 4
    python benchmarks/convergence.py --claims

8,000 rows train: of MNIST a 784-64-10 perceptron, of the census (Adult) one with 32
hidden units. Batches of 25 per worker and Adam with a learning rate of 0.001, unless a
name says otherwise. A name is shards / mode / frequency / rule / compression; a number
behind a rule's name is its learning rate. `Average` is measured with every number of
shards, all else with the middle one. All fits run one after the other in this process, on
one local Spark: no time is measured.

* test accuracy: of the model as `fit` leaves it, on rows that did not train; mean and
  standard deviation over the seeds, which decide on the initial weights and the order
  of the rows.
* bytes per example: between aggregator and replicas, both ways, by the examples of all
  epochs. Hogwild's replicas share memory here.

With `--claims`, claims of papers instead, each with the verdict from its numbers.
One rule beats another if its mean is higher by more than either spread.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

import convergence_claims as judging
from convergence_case import Case, cases
from convergence_data import Rows, load
from convergence_results import Measure, Result, Results, measure_all, table
from runs import chosen, versions

HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = os.environ.get("KSPARK_DATA", HERE.parent.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=folder, help="folder of the published files")
    parser.add_argument("--dataset", choices=("mnist", "adult"), default="mnist")
    parser.add_argument("--only", nargs="+", default=["*"], help="names of cases, as patterns")
    parser.add_argument("--seeds", type=int, default=3, help="fits per case")
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--epochs", type=int, default=5, help="of the table; claims have their own")
    parser.add_argument("--results", type=Path, help="file of what was measured; a run goes on")
    parser.add_argument("--claims", action="store_true", help="claims of papers, not the table")
    return parser.parse_args()


def measurement(rows: Rows, slots: int) -> Measure:
    """What measures a case. Keras and Spark are started by the first that is not known."""

    def measure(case: Case, seed: int) -> Result:
        import convergence_fit

        convergence_fit.start(slots)
        return convergence_fit.measure(case, seed, rows)

    return measure


def claim_lines(
    name: str, claim: judging.Claim, seeds: int, results: Results, measure: Measure
) -> list[str]:
    """One claim: what it was tuned with, its table, its verdict."""
    run = partial(measure_all, results=results, measure=measure)
    selected, tuned = dict(claim.cases), {}
    for rule, grid in (claim.grid or {}).items():
        found = run(grid, 1)
        tuned.update({f"{rule}, rate {place}": fits for place, fits in found.items()})
        selected[rule] = judging.best(grid, found)
    fits = run(selected, seeds)
    tuning = ["Tuned on rows held out of training:", "", *table(tuned), ""] if tuned else []
    verdict = judging.judged(claim, fits)
    chosen_rates = [
        f"{rule}: replicas {selected[rule].learning_rate:g}, server {selected[rule].rule_config}"
        for rule in claim.grid or {}
    ]
    return [
        f"### {name}",
        "",
        claim.text + ".",
        "",
        *tuning,
        *chosen_rates,
        *table(fits),
        "",
        verdict,
        "",
    ]


def main() -> None:
    args = arguments()
    rows, told = load(args.dataset, args.data)
    results = Results(args.results)
    slots = max(8, *args.shards)
    measure = measurement(rows, slots)
    if args.claims:
        found = chosen(judging.claims(), args.only)
        lines = [
            line
            for name, claim in found.items()
            for line in claim_lines(name, claim, args.seeds, results, measure)
        ]
    else:
        selected = chosen(cases(args.dataset, args.shards, args.epochs), args.only)
        lines = table(measure_all(selected, args.seeds, results, measure))
        told = f"{told}; {args.epochs} epochs"
    print(f"{told}; {args.seeds} seeds. {versions()}.\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
