"""The first process of a host: gives it its own name and folders, and lives as long as the host.

It runs in namespaces of its own. The host ends when the stdin of this process closes, however the
process that made the host ends: the kernel ends all processes of a host with the first one.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

STAGE = Path("/mnt")
"""Where folders are kept while an empty folder takes the place of the one that they are in."""

PRIVATE = {"/tmp": "size=4g", "/dev/shm": "size=1g"}
"""Folders that hosts do not share, with options of their file systems in memory."""


def main() -> None:
    """Set the host up, write a line, and wait."""
    settings = json.loads(sys.argv[1])
    mount("--make-rprivate", "/")
    subprocess.run(["hostname", settings["name"]], check=True)
    mount("--bind", settings["hosts_file"], "/etc/hosts")
    hide(PRIVATE, settings["shown"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel then reaps orphans by itself.
    print("ready", flush=True)
    sys.stdin.buffer.read()


def hide(private: dict[str, str], shown: list[str]) -> None:
    """Put empty folders in the place of shared ones, except for what all hosts have to see."""
    mount("-t", "tmpfs", "tmpfs", str(STAGE))
    staged = {}
    for number, path in enumerate(shown):
        if any(Path(path).is_relative_to(folder) for folder in private):
            staged[path] = STAGE / str(number)
            staged[path].mkdir()
            mount("--bind", path, str(staged[path]))
    for folder, options in private.items():
        mount("-t", "tmpfs", "-o", f"{options},mode=1777", "tmpfs", folder)
    for path, place in staged.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        mount("--move", str(place), path)


def mount(*arguments: str) -> None:
    """Run `mount`."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
