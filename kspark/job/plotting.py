"""The pictures of `FitReport.plot`: a timeline of the workers, the staleness of their pushes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STARTING, COMPUTING, WAITING = "lightgray", "tab:blue", "tab:orange"

START_SHARE = 0.25
"""The part of the time axis that the start of the workers may take. The rest of it is cut off."""

Spans = list[tuple[float, float]]
"""Seconds that a worker spent computing and waiting, per epoch."""


def matplotlib_figure() -> Any:
    """Import and return `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`plot()` needs matplotlib, which is not installed. Install it with "
            "`pip install matplotlib`."
        ) from error
    return Figure


def starting_seconds(spans: Spans) -> float:
    """Return by how much a worker computed longer in its first epoch than in any later one.

    The first epoch includes the start of the process, the import of Keras and the compilation of
    the training step. Returns 0 if the first epoch is less than twice as long as the longest
    later one, and if there is no later one to compare it with.
    """
    first, *later = [computing for computing, _ in spans]
    longest = max(later, default=first)
    return first - longest if first > 2 * longest else 0.0


def draw_timeline(axis: Any, workers: Mapping[int, Spans]) -> None:
    """Draw one bar per shard, from the first epoch to the last.

    The start of a worker is to the left of zero. It is cut off where it would squeeze the epochs
    together, and its seconds are written beside it.

    Args:
        axis: `matplotlib.axes.Axes`.
        workers: Mapping from shard to its spans.
    """
    starts = {shard: starting_seconds(spans) for shard, spans in workers.items()}
    ends = {shard: draw_epochs(axis, shard, workers[shard], starts[shard]) for shard in workers}
    longest = max(ends.values(), default=0.0)
    shown = min(max(starts.values(), default=0.0), longest * START_SHARE / (1 - START_SHARE))
    for shard, seconds in starts.items():
        if seconds and shown:
            draw_start(axis, shard, seconds, shown)
    axis.set(xlabel="seconds", ylabel="shard", title="Workers, epoch by epoch")
    if longest:
        axis.set_xlim(-shown, longest * 1.02)
    axis.set_yticks(sorted(workers))
    draw_legend(axis, with_start=shown > 0)


def draw_epochs(axis: Any, shard: int, spans: Spans, starting: float) -> float:
    """Draw the epochs of one shard without its start, and return where they end."""
    end = 0.0
    for computing, waiting in spans:
        computing, starting = computing - starting, 0.0
        axis.barh(shard, computing, left=end, color=COMPUTING, edgecolor="white")
        axis.barh(shard, waiting, left=end + computing, color=WAITING, edgecolor="white")
        end += computing + waiting
    return end


def draw_start(axis: Any, shard: int, seconds: float, shown: float) -> None:
    """Draw the start of one shard, at most `shown` seconds of it."""
    width = min(seconds, shown)
    axis.barh(shard, width, left=-width, color=STARTING, edgecolor="white")
    axis.text(-width / 2, shard, f"{seconds:.1f} s", ha="center", va="center", clip_on=True)


def draw_legend(axis: Any, *, with_start: bool) -> None:
    """Draw the legend to the right of the axes, where it covers no bar."""
    from matplotlib.patches import Patch

    names = {"starting": STARTING} if with_start else {}
    names |= {"computing": COMPUTING, "waiting": WAITING}
    handles = [Patch(color=color, label=name) for name, color in names.items()]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def draw_staleness(axis: Any, histogram: Mapping[int, int]) -> None:
    """Draw a histogram of the staleness of the pushes."""
    axis.bar(list(histogram), list(histogram.values()), width=0.9, color=COMPUTING)
    axis.set(xlabel="staleness in versions", ylabel="pushes", title="Staleness of the pushes")


def spans_by_shard(epochs: Sequence[Sequence[tuple[int, tuple[float, float]]]]) -> dict[int, Spans]:
    """Return the spans of each shard, from pairs of a shard and its spans in one epoch."""
    found: dict[int, Spans] = {}
    for workers in epochs:
        for shard, spans in workers:
            found.setdefault(shard, []).append(spans)
    return found
