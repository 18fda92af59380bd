"""Run scenarios one after the other, and print a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chaos
from benchmarks.chaos.faults import MARK, Faults, LocalCluster, small_disk, strike
from benchmarks.chaos.scenarios import MAY_FAIL, Scenario, draw
from benchmarks.common.options import add_only, matching, new_parser
from benchmarks.common.runs import environment, failure_in

DISK_MEGABYTES = 48
WORDS = ("right", "clear error", "skipped", "not struck", "WRONG")
FROM_INSIDE = ("die after a push",)
MIN_ACCURACY = 0.9
END_SECONDS = 30.0
"""How long the processes of a scenario may take to end after its driver."""


@dataclass(frozen=True)
class Verdict:
    """How a scenario ended, one of `WORDS`, and why."""

    word: str
    detail: str = ""


def arguments() -> argparse.Namespace:
    parser = new_parser(chaos.__doc__)
    parser.add_argument("--scenarios", type=int, default=100, help="how many; default: 100")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds allowed per driver; default: 300"
    )
    parser.add_argument("--keep", type=Path, help="folder for the output of wrong scenarios")
    add_only(parser)
    return parser.parse_args()


class Run:
    """One scenario on a local cluster.

    Args:
        scenario: `Scenario`.
        folder: Path of a new folder, which is the temporary directory of all processes.
        timeout: Float, seconds that each driver may take.
    """

    def __init__(self, scenario: Scenario, folder: Path, timeout: float) -> None:
        self.scenario = scenario
        self.folder = folder
        self.timeout = timeout
        self.mark = uuid.uuid4().hex
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.faults: Faults = LocalCluster(self.mark, self.disk)
        self.result = folder / "result.json"
        self.output = folder / "output.txt"
        self.died = folder / "died"
        self.struck = False

    def verdict(self) -> Verdict:
        """Run the scenario, and judge it."""
        try:
            code = self.drive(strikes=True)
            if self.scenario.fault == "kill the driver" and self.struck:
                code = self.drive(strikes=False)
            return self.judge(code)
        finally:
            for process in self.faults.everything():
                self.faults.send(process, signal.SIGKILL)

    def drive(self, *, strikes: bool) -> int | None:
        """Run the driver, with the fault or without. Returns its exit status, `None` if late."""
        scenario = self.scenario
        resumes = scenario.fault == "kill the driver"
        case = {
            **vars(scenario),
            "result": str(self.result),
            "died": str(self.died),
            "checkpoint": str(self.folder / "checkpoint") if resumes else None,
            "config": {"spark.local.dir": str(self.disk)},
        }
        variables = {
            **environment(),
            MARK: self.mark,
            "TMPDIR": str(self.folder),
            "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow"),
        }
        command = [sys.executable, "-m", "benchmarks.chaos.program", json.dumps(case)]
        with open(self.output, "a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        late = threading.Timer(self.timeout, process.kill)
        late.start()
        thread = None
        with process:
            try:
                for line in process.stdout or ():
                    due = line.split() == ["epoch", str(scenario.epoch)] and strikes
                    if due and thread is None and scenario.fault not in FROM_INSIDE:
                        thread = threading.Thread(target=self.strike, args=(process,))
                        thread.start()
                process.wait()
            except BaseException:
                process.kill()
                raise
        in_time = late.is_alive()
        late.cancel()
        if thread is not None:
            thread.join()
        return process.returncode if in_time else None

    def strike(self, driver: subprocess.Popen) -> None:
        """Let the fault happen at its moment."""
        scenario = self.scenario
        time.sleep(scenario.delay)
        if scenario.fault == "kill the driver":
            self.struck = self.faults.send(driver.pid, signal.SIGKILL)
        else:
            self.struck = strike(self.faults, scenario.fault, scenario.pick, scenario.seconds)

    def judge(self, code: int | None) -> Verdict:
        """Say how the scenario ended."""
        left = self.left()
        if code is None:
            return Verdict("WRONG", f"no end within {self.timeout:g} s")
        if not self.result.exists():
            lines = self.output.read_text(encoding="utf-8").splitlines()
            return Verdict("WRONG", f"exit status {code}: {failure_in(lines)}")
        result = json.loads(self.result.read_text(encoding="utf-8"))
        left += result["left"]
        if left:
            return Verdict("WRONG", "left: " + ", ".join(left[:5]))
        expected = self.scenario.fault in MAY_FAIL
        if "error" in result and not (expected and self.struck):
            return Verdict("WRONG", result["error"].splitlines()[0])
        if not (self.died.exists() if self.scenario.fault in FROM_INSIDE else self.struck):
            return Verdict("not struck", "the fault reached no process")
        if "error" in result:
            return Verdict("clear error", result["error"].splitlines()[0])
        return self.judge_model(result)

    def judge_model(self, result: dict) -> Verdict:
        """Say whether the model is right."""
        if "accuracy" in result:
            accuracy = result["accuracy"]
            right = accuracy >= MIN_ACCURACY
            return Verdict("right" if right else "WRONG", f"accuracy {accuracy:.3f}")
        least, mean, most = result["counts"]
        if self.scenario.mode == "hogwild":
            right = most <= 1 and mean > 0.75
        else:
            right = least == most == 1
        return Verdict("right" if right else "WRONG", f"rows count {least:g} to {most:g}")

    def left(self) -> list[str]:
        """Processes and files that are still there after the driver's end."""
        deadline = time.monotonic() + END_SECONDS
        while (processes := self.faults.everything()) and time.monotonic() < deadline:
            time.sleep(0.2)
        files = [path for path in self.folder.rglob("kspark-*") if path.exists()]
        return [f"process {process}" for process in processes] + [
            str(path.relative_to(self.folder)) for path in files
        ]


def run_scenario(scenario: Scenario, timeout: float, keep: Path | None) -> Verdict:
    """Run one scenario in a folder of its own."""
    if scenario.skipped is not None:
        return Verdict("skipped", scenario.skipped)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name:
        run = Run(scenario, Path(name), timeout)
        with contextlib.ExitStack() as stack:
            if scenario.fault == "disk full":
                stack.enter_context(small_disk(run.disk, DISK_MEGABYTES))
            verdict = run.verdict()
        if keep is not None and verdict.word in ("WRONG", "not struck"):
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(run.output, keep / f"{scenario.number}.txt")
        return verdict


def main() -> None:
    args = arguments()
    # SIGTERM, too, must end what a scenario has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    drawn = [draw(args.seed, number) for number in range(args.scenarios)]
    scenarios = matching({scenario.name: scenario for scenario in drawn}, args.only)
    rows, counts = [], dict.fromkeys(WORDS, 0)
    for name, scenario in scenarios.items():
        begin = time.monotonic()
        verdict = run_scenario(scenario, args.timeout, args.keep)
        seconds = time.monotonic() - begin
        counts[verdict.word] += 1
        model = "counts" if scenario.counts else "classifies"
        rows.append([name, model, f"{seconds:.0f}", verdict.word, verdict.detail])
        print(", ".join(rows[-1]), file=sys.stderr, flush=True)
    print("| scenario | model | seconds | verdict | |\n|---|---|--:|---|---|")
    for row in rows:
        print("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |")
    print("\n" + ", ".join(f"{count} {word}" for word, count in counts.items()))
    sys.exit(bool(counts["WRONG"] or counts["not struck"]))


if __name__ == "__main__":
    main()
