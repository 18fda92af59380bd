"""Draw the predicted examples per second over the number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.scaling.costs import PLAIN
from benchmarks.scaling.equations import Job
from benchmarks.scaling.roads import WORKERS, Study, obstacle, predict, single_worker_seconds

PACKED = "int8"
COLOURS = {
    "rounds": "tab:blue",
    "groups": "tab:green",
    "batch": "tab:red",
    "asynchronous": "tab:orange",
}
LABELS = {
    "rounds": 'synchronous, "epoch"',
    "groups": "the same, executors sum",
    "batch": 'synchronous, "batch"',
    "asynchronous": "asynchronous, {frequency}",
}


def draw(
    path: Path, study: Study, megabytes: Sequence[float], speeds: Sequence[float], batch_size: int
) -> None:
    """Save the picture, with a column per model size and a row per speed of the workers."""
    figure = Figure(figsize=(4.2 * len(megabytes), 3.9 * len(speeds) + 0.8), layout="constrained")
    panels = figure.subplots(len(speeds), len(megabytes), squeeze=False, sharex=True)
    for row, speed in zip(panels, speeds, strict=True):
        for axes, size in zip(row, megabytes, strict=True):
            cluster = replace(study.cluster, speed=speed)
            job = Job(size * 1e6, study.job.batches)
            panel(axes, replace(study, cluster=cluster, job=job), batch_size)
            axes.set_title(f"{size_text(size)}, {speed_text(speed)}", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("workers")
    for row in panels:
        row[0].set_ylabel("examples per second")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    gigabits = study.cluster.bandwidth * 8e-9
    memory = f"× the driver's {study.memory / 1e9:g} GB, or Spark's 2 GB per record, are exceeded"
    figure.suptitle(f"Predicted, network of {gigabits:g} Gbit/s   ({memory})", fontsize=11)
    figure.savefig(path, dpi=100)


def panel(axes: Any, study: Study, batch_size: int) -> None:
    """Draw all roads for one model and one speed."""
    examples = study.job.batches * batch_size
    perfect = examples / single_worker_seconds(study)
    axes.plot(WORKERS, [k * perfect for k in WORKERS], ":", color="grey", label="perfect")
    for road, colour in COLOURS.items():
        for codec, style in ((PLAIN, "-"), (PACKED, "--")):
            rates = [examples / predict(study, road, k, codec).seconds for k in WORKERS]
            name = LABELS[road].format(frequency=study.frequency)
            label = name if codec == PLAIN else f"{name}, {codec}"
            axes.plot(WORKERS, rates, style, color=colour, label=label, linewidth=1.4)
            points = zip(WORKERS, rates, strict=True)
            impossible = [point for point in points if obstacle(study, road, point[0], codec)]
            if impossible:
                axes.plot(*zip(*impossible, strict=True), "x", color=colour, markersize=5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(WORKERS, [f"{k:,}" for k in WORKERS], fontsize=8)
    axes.grid(visible=True, which="major", alpha=0.3)


def size_text(megabytes: float) -> str:
    """The size of a model, with its unit."""
    return f"{megabytes / 1000:g} GB" if megabytes >= 1000 else f"{megabytes:g} MB"


def speed_text(speed: float) -> str:
    """The speed of a worker in words."""
    return "one core each" if speed == 1 else f"each {speed:g} × a core"
