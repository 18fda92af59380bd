"""`python -m kspark.session archive`: let later sessions on this machine start faster."""

from __future__ import annotations

import argparse
import sys
import time

from kspark.errors import ClusterError
from kspark.session.archive import create


def main() -> None:
    """Run the command, and print what it has done."""
    parser = argparse.ArgumentParser("python -m kspark.session")
    commands = parser.add_subparsers(dest="command", required=True)
    about = "archive the classes that Spark loads, so that local sessions start faster"
    commands.add_parser("archive", help=about, description=f"{about.capitalize()}.")
    parser.parse_args()
    begin = time.perf_counter()
    try:
        folder = create()
    except ClusterError as error:
        sys.exit(str(error))
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    seconds = time.perf_counter() - begin
    sys.stdout.write(f"Created {folder} ({size:.0f} MB) in {seconds:.0f} s.\n")


if __name__ == "__main__":
    main()
