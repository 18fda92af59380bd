"""Write lines to the screen, of which the last one may move. No line is wider than the screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from kspark.errors import invalid

COLUMNS = 80
"""The greatest width of a moving line, which is also that of a notebook."""

MAX_BAR, MIN_BAR = 20, 6


def checked_verbose(verbose: str | int) -> int:
    """Check the argument `verbose`, and replace `"auto"` as Keras does.

    Args:
        verbose: 0 (silent), 1 (a line that moves), 2 (whole lines) or `"auto"`: 1 on a terminal
            or in a notebook, else 2.

    Returns:
        Integer, 0, 1 or 2.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(verbose, bool):
        verbose = int(verbose)
    if verbose not in ("auto", 0, 1, 2):
        raise invalid("verbose", 'one of "auto", 0, 1, 2', verbose)
    if verbose == "auto":
        verbose = 1 if can_move() else 2
    return int(verbose)


def can_move() -> bool:
    """Whether standard output can overwrite a line: a terminal or a notebook."""
    return sys.stdout.isatty() or in_notebook()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook.

    That `ipykernel` was imported does not tell: PySpark 4 imports it in scripts, too.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class Display:
    """Writes to standard output, from one thread.

    Args:
        verbose: As `checked_verbose` returns it.

    Attributes:
        verbose: As given.
        moves: Boolean, whether `show` shows anything.
    """

    def __init__(self, verbose: int) -> None:
        self.verbose = verbose
        self.moves = verbose == 1 and can_move()
        self._overwrites = self.moves
        self._least = self._shown = 0

    def give_way(self) -> None:
        """Show no moving line, because another program shows one in the same terminal."""
        self.moves, self._least = False, columns() - 1 if self._overwrites else 0

    def show(self, text: str) -> None:
        """Show a line that the next call replaces. Text that does not fit is cut off."""
        if self.moves:
            self._replace(text[: columns() - 1])

    def line(self, text: str) -> None:
        """Write a line that stays, instead of a moving one."""
        if self.verbose:
            self._replace(text.ljust(self._least))
            self._write("\n")
            self._shown = 0

    def clear(self) -> None:
        """Remove a moving line, so that others can write."""
        if self._shown:
            self._replace("")
            self._write("\r")

    def close(self) -> None:
        """Leave a moving line as it is, and go on to a fresh line."""
        if self._shown:
            self._write("\n")
            self._shown = 0

    def _replace(self, text: str) -> None:
        start = "\r" if self._overwrites else ""
        self._write(start + text.ljust(self._shown))
        self._shown = len(text)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def columns() -> int:
    """Return the width of a moving line: that of the terminal, and at most `COLUMNS`."""
    try:
        return min(os.get_terminal_size(sys.stdout.fileno()).columns or COLUMNS, COLUMNS)
    except (OSError, ValueError, AttributeError):  # Standard output is no terminal.
        return COLUMNS


@dataclass(frozen=True)
class Part:
    """A number beside a bar.

    Attributes:
        value: String, the number.
        before: String, what is written before it. Defaults to `""`.
        after: String, what is written after it. Defaults to `""`.
        rank: Integer. Of the parts that do not fit, those with the highest ranks are left out.
            Defaults to `0`.
    """

    value: str
    before: str = ""
    after: str = ""
    rank: int = 0


class Bar:
    """Makes lines with a bar and numbers beside it, all of which stay in their columns.

    Each number keeps the width of the widest one that was in its place.
    """

    def __init__(self) -> None:
        self._widths: dict[tuple[str, str], int] = {}

    def line(self, title: str, fraction: float, parts: Sequence[Part], width: int) -> str:
        """Return a line.

        Args:
            title: String.
            fraction: Float from 0 to 1, the part that is done.
            parts: Sequence of `Part`, in their order on the screen.
            width: Integer, number of columns.
        """
        texts = [self._text(part) for part in parts]
        room = width - len(title)
        shown: set[int] = set()
        for i in sorted(range(len(parts)), key=lambda i: parts[i].rank):
            needed = len(texts[i]) + (3 if shown else 1)
            if needed + MIN_BAR + 3 > room:
                break
            room -= needed
            shown.add(i)
        beside = " - ".join(texts[i] for i in sorted(shown))
        beside = f" {beside}" if beside else ""
        size = min(MAX_BAR, room - 3)
        if size < MIN_BAR:
            return (title + beside)[:width]
        done = round(size * min(max(fraction, 0.0), 1.0))
        return f"{title} [{'=' * done}{'.' * (size - done)}]{beside}"

    def _text(self, part: Part) -> str:
        place = (part.before, part.after)
        width = self._widths[place] = max(self._widths.get(place, 0), len(part.value))
        return part.before + part.value.rjust(width) + part.after
