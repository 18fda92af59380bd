"""Tables of a few rows as text for a terminal, and as HTML for a notebook; counted things."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns are aligned on the right and separated by two spaces."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML. All texts are escaped."""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"
    )


def cells(tag: str, texts: Sequence[str]) -> str:
    """Return the cells of one row."""
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def plural(number: int, thing: str) -> str:
    """Return a number with the name of what it counts, such as "1 example" or "2 examples"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
