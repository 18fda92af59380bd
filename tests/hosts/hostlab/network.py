"""A network between hosts: cables to a switch, which can be cut, slowed down and firewalled."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hostlab.namespaces import Host

DEVICE = "eth0"
"""The network device of each host. `port_of` names the other end of its cable, at the switch."""

BRIDGE = "bridge"

SAME_NAME = "samename"
"""A name that any number of hosts may have: each finds itself by it."""

FIREWALL, LOCAL = "100", "200"
"""Priorities of rules: packets are refused before they are found to be for this host."""


class Network:
    """Hosts on a switch, in a network that no other one can reach.

    Args:
        addresses: Mapping from the names of the hosts to their addresses, such as `10.77.0.10`.
        folder: `Path` of a folder for the file with the addresses.
        shown: Sequence of the folders that all hosts see, see `Host.start`.
    """

    def __init__(self, addresses: Mapping[str, str], folder: Path, shown: Sequence[str]) -> None:
        self.addresses = addresses
        self.hosts: dict[str, Host] = {}
        names = "".join(f"{address} {name}\n" for name, address in addresses.items())
        self._hosts_file = folder / "hosts"
        self._hosts_file.write_text(f"127.0.0.1 localhost {SAME_NAME}\n{names}")
        self._shown = shown
        self._switch: Host | None = None

    @property
    def switch(self) -> Host:
        """The host that has the other ends of all cables."""
        if self._switch is None:
            self._switch = Host.start("switch", self._hosts_file, self._shown)
            self._switch.run("ip", "link", "add", BRIDGE, "type", "bridge")
            self._switch.run("ip", "link", "set", BRIDGE, "up")
        return self._switch

    def add(self, name: str) -> Host:
        """Start a host and connect it."""
        host = self.hosts[name] = Host.start(name, self._hosts_file, self._shown)
        peer = ("peer", "name", DEVICE, "netns", str(host.pid))
        # `ip` has to see the numbers of processes outside: only the network is the switch's.
        self._at_switch("ip", "link", "add", port_of(name), "type", "veth", *peer)
        self.switch.run("ip", "link", "set", port_of(name), "master", BRIDGE, "up")
        host.run("ip", "addr", "add", f"{self.addresses[name]}/24", "dev", DEVICE)
        host.run("ip", "link", "set", DEVICE, "up")
        return host

    def cut(self, name: str) -> None:
        """Take the cable of a host out. Nobody is told: packets are lost on both sides."""
        self.switch.run("ip", "link", "set", port_of(name), "down")

    def heal(self, name: str) -> None:
        """Put the cable of a host in again."""
        self.switch.run("ip", "link", "set", port_of(name), "up")

    def slow_down(self, name: str, rate: str) -> None:
        """Limit what a host receives and what it sends, such as to `"20mbit"` per second."""
        limit = ("root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms")
        self.switch.run("tc", "qdisc", "replace", "dev", port_of(name), *limit)
        self.hosts[name].run("tc", "qdisc", "replace", "dev", DEVICE, *limit)

    def speed_up(self, name: str) -> None:
        """Take back `slow_down`."""
        with contextlib.suppress(RuntimeError):  # There may be no limit.
            self.switch.run("tc", "qdisc", "del", "dev", port_of(name), "root")
            self.hosts[name].run("tc", "qdisc", "del", "dev", DEVICE, "root")

    def firewall(self, name: str, first: int, last: int) -> None:
        """Drop what other hosts send to TCP ports of a host, without an answer."""
        host = self.hosts[name]
        if f"{LOCAL}:" not in host.run("ip", "rule", "show"):
            host.run("ip", "rule", "add", "pref", LOCAL, "lookup", "local")
            host.run("ip", "rule", "del", "pref", "0")
        ports = ("ipproto", "tcp", "dport", f"{first}-{last}")
        host.run(
            *("ip", "rule", "add", "pref", FIREWALL, "iif", DEVICE, *ports, "type", "blackhole")
        )

    def open_firewall(self, name: str) -> None:
        """Take back all of `firewall`."""
        while f"{FIREWALL}:" in self.hosts[name].run("ip", "rule", "show"):
            self.hosts[name].run("ip", "rule", "del", "pref", FIREWALL)

    def end(self) -> None:
        """End all hosts."""
        for host in [*self.hosts.values(), *filter(None, [self._switch])]:
            host.end()
        self.hosts.clear()
        self._switch = None

    def _at_switch(self, *arguments: str) -> None:
        command = ["nsenter", f"--net=/proc/{self.switch.pid}/ns/net", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def port_of(name: str) -> str:
    """The device of the switch that a host is connected to."""
    return f"to-{name}"
