"""Read what Spark's error for a failed job says."""

from __future__ import annotations

import re
from pathlib import Path

from kspark.errors import NO_SHARD, Failure

CAUSE = re.compile(r"Exception|Error|[Rr]eason|^\[[A-Z_.]+\] ")
"""Matches lines that explain a failure. Those of Spark Connect begin with the error's [NAME]."""

JVM_CLASS = re.compile(r"\b(?:org|java|scala|io|py4j)\.[\w.$]*(?:Exception|Error)\b(?:: |$)")
"""Matches the name of an exception of the JVM, which says no more than the text after it."""

PREFIX = "Spark gave up on the job: "
LAST_TRY = "most recent failure: "

MAX_BRIEF = 200
"""Number of characters of the short form of a cause."""

TRACEBACK = "Traceback (most recent call last):"
END_OF_TRACEBACK = re.compile(
    r"^(?:\s+at [\w.$/<>]+\(|Caused by: |Driver stacktrace:|JVM stacktrace:)", re.M
)

FRAME = re.compile(r'^  File "([^"]*)".*\n(?:    .*\n)*(?:  \[Previous line repeated .*\n)?', re.M)
"""Matches a frame in the text of a Python traceback, with its line of code."""

OWN_FOLDERS = (
    re.escape(str(Path(__file__).parents[1])),
    r"[/\\](?:site-packages|dist-packages|kspark-[0-9a-f]+\.zip)[/\\]kspark",
)
"""Match the folders in which kspark is imported: here, or on an executor."""

NOT_THE_USERS = re.compile(
    r"[/\\]pyspark(?:\.zip)?[/\\]"
    rf"|(?:{'|'.join(OWN_FOLDERS)})[/\\](?:adapters|cluster|files|job|shards|worker)[/\\]"
)
"""Matches the files through which Spark and kspark call code of the user."""


def first_line(text: str, word: str) -> str:
    """Return the first line that contains a word."""
    return next((line.strip() for line in text.splitlines() if word in line), "")


def cause(text: str) -> str:
    """Return the lines of Spark's error that explain it, each once, without the stack trace."""
    lines = [ln.strip() for ln in text.splitlines() if ln.strip() and not ln.startswith("\tat ")]
    causes = [ln for ln in lines if CAUSE.search(ln)]
    found: list[str] = []
    for line in causes or lines:
        plain = JVM_CLASS.sub("", re.sub(r"^(?:Caused by)?[: ]+", "", line)).strip()
        if plain and not any(plain in other for other in found):
            found.append(plain)
    return " ".join((found or causes or lines)[:4])[:2000]


def brief(error: Exception) -> str:
    """Return the first sentence of the cause of a lost job, for one line of a log."""
    text = str(error).removeprefix(PREFIX).rpartition(LAST_TRY)[2]
    sentence = text.partition(". ")[0].rstrip(".")
    return sentence if len(sentence) <= MAX_BRIEF else sentence[: MAX_BRIEF - 3] + "..."


def raised_on_worker(text: str) -> Failure | None:
    """Return the Python exception that Spark's error has the traceback of, or `None`.

    Its traceback begins at the code that Spark and kspark have called, such as a function that the
    user has given to `map`.
    """
    start = text.find(TRACEBACK)
    if start < 0:
        return None
    end = END_OF_TRACEBACK.search(text, start)
    whole = text[start : end.start() if end else None].rstrip() + "\n"
    earlier, heading, last = whole.rpartition(TRACEBACK)
    frames = list(FRAME.finditer(last))
    if not frames or not (raised := last[frames[-1].end() :].strip()):
        return None
    users = [f for f in frames if not NOT_THE_USERS.search(f[1])]
    if users:
        last = "\n" + last[users[0].start() :]
    kind, _, message = raised.partition(": ")
    trace = f"{earlier}{heading}{last}".rstrip()
    return Failure(NO_SHARD, "", 0, kind, message, trace, "A Spark task")
