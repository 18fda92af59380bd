"""Run the checks and print them, and a table of times in Markdown."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import gpu
from benchmarks.common import mnist
from benchmarks.common.options import add_timeout, new_parser
from benchmarks.common.runs import Result, run_case
from benchmarks.gpu.verdicts import Verdict, equal_weights, verdicts
from kspark.session.warm import keras_backend


def arguments() -> argparse.Namespace:
    parser = new_parser(gpu.__doc__)
    parser.add_argument(
        "--device",
        choices=("gpu", "cpu"),
        default="gpu",
        help="cpu: run the same code without a GPU; default: gpu",
    )
    parser.add_argument("--address", default="0", help="the GPU, as CUDA counts; default: 0")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of timed fits; default: 3")
    add_timeout(parser)
    return parser.parse_args()


def run_all(args: argparse.Namespace, address: str, folder: Path) -> dict[str, Result]:
    """The results of plain Keras and kspark on the device, and of kspark on the CPU."""
    common = {"data": str(folder), "visible": address, "address": address, "epochs": args.epochs}
    cases = {
        "keras": {**common, "engine": "keras"},
        "kspark": {**common, "engine": "kspark", "folder": str(folder / "device")},
        "cpu": {
            **common,
            "engine": "kspark",
            "folder": str(folder / "cpu"),
            "visible": "-1",
            "address": None,
            "epochs": 0,
        },
    }
    found = {}
    for name, case in cases.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = run_case("benchmarks.gpu.case", case, args.timeout)
    return found


def judged(args: argparse.Namespace, address: str, folder: Path) -> Iterator[Verdict]:
    """Run everything, print the table of times, and return the verdicts."""
    found = run_all(args, address, folder)
    failed = [f"{name}: {found[name]['failed']}" for name in found if "failed" in found[name]]
    if failed:
        yield from ((False, text) for text in failed)
        return
    print("| | warm epoch, s | whole `fit`, s | accuracy |\n|---|--:|--:|--:|")
    for name, fit in {"`model.fit`": found["keras"], **found["kspark"]["fits"]}.items():
        print(f"| {name} | {fit['warm']:.2f} | {fit['whole']:.1f} | {fit['accuracy']:.3f} |")
    print()
    yield from verdicts(args.device, address, keras_backend(), found)
    device, cpu = (np.load(folder / name / "weights.npz") for name in ("device", "cpu"))
    with device, cpu:
        yield from equal_weights(device, cpu)


@contextmanager
def rows() -> Iterator[Path]:
    """A folder with the rows, which goes at the end."""
    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as name:
        mnist.write(Path(name), None)
        yield Path(name)


def main() -> None:
    args, started = arguments(), time.perf_counter()
    address = args.address if args.device == "gpu" else "-1"
    passed = True
    with rows() as folder:
        for holds, text in judged(args, address, folder):
            passed = passed and holds
            print(f"{'ok  ' if holds else 'FAIL'} {text}", flush=True)
    seconds = time.perf_counter() - started
    verdict = "all checks hold" if passed else "not all checks hold"
    print(f"\n{keras_backend()} on the {args.device}: {verdict}, in {seconds:.0f} s")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
