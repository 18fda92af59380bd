"""Spark standalone on hosts of its own: a master, a driver's host, and workers of one core each."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path

import pyspark

from hostlab.namespaces import Host, parent_of, send
from hostlab.network import Network
from kspark.session.java import Java, write_launcher

WORKERS = ("w1", "w2", "w3")

ADDRESSES = {
    "master": "10.77.0.10",
    "driver": "10.77.0.20",
    **{worker: f"10.77.0.{31 + number}" for number, worker in enumerate(WORKERS)},
}

MASTER = "spark://master:7077"

EXECUTOR = "CoarseGrainedExecutorBackend"
PYTHON = ("pyspark.daemon", "pyspark/daemon", "kspark.cluster.daemon", "pyspark.worker")
WORKER = "deploy.worker.Worker"
SPARK = ("spark-class", "org.apache.spark")
"""What the command lines of processes contain: executors, their Python, workers, all of Spark."""

NOISE = re.compile(
    r"NOTE: |WARNING: All log|[IE]\d{4} |To enable|=*$|\tat |\t... |Spark Executor|.*NativeCode"
)
"""Lines of logs that say nothing about a test."""

LOG4J = """\
rootLogger.level = warn
logger.tasks.name = org.apache.spark.scheduler.DAGScheduler
logger.tasks.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""

PROGRAMS = Path(__file__).parents[1] / "programs"
"""The folder of the programs that run on the hosts, and of the modules that they import."""


class SparkCluster:
    """A cluster, and the faults that can happen to it.

    Args:
        folder: `Path` of an empty folder, for settings and logs.
        java: `Java` that Spark runs on.
    """

    def __init__(self, folder: Path, java: Java) -> None:
        self.folder = folder
        (folder / "log4j2.properties").write_text(LOG4J)
        java_home = write_launcher(java.executable, folder)
        path = [str(PROGRAMS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        # Those below /tmp would not be seen by the hosts otherwise.
        shown = {
            sys.prefix,
            sys.base_prefix,
            str(PROGRAMS.parent),
            str(folder),
            *filter(None, path),
        }
        self.environment = {
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join(
                [f"{sys.prefix}/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            ),
            "JAVA_HOME": str(java_home),
            # These Javas live for minutes, on few cores: see the fixtures of other tests on Spark.
            "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "SPARK_CONF_DIR": str(folder),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_LOCAL_DIRS": "/tmp/local",
            # So that workers can be decommissioned; alone, the setting changes nothing else.
            "SPARK_DAEMON_JAVA_OPTS": "-Dspark.decommission.enabled=true",
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_BACKEND": "tensorflow",
        }
        self.network = Network(ADDRESSES, folder, sorted(shown))
        self._damaged: set[str] = set()

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts by name."""
        return self.network.hosts

    def start(self) -> None:
        """Start all hosts, the master and the workers."""
        for name in ADDRESSES:
            self.network.add(name)
        self._start_daemon("master", "master.Master", "--port", "7077", "--webui-port", "8080")
        time.sleep(2)  # A worker that finds no master tries again after several seconds.
        for worker in WORKERS:
            self.start_worker(worker)

    def start_worker(self, host: str) -> None:
        """Start Spark's worker on a host. It soon starts an executor for each application."""
        options = ("--cores", "1", "--memory", "1g", "--work-dir", "/tmp/work")
        self._start_daemon(host, "worker.Worker", *options, MASTER)

    def stop(self) -> None:
        """End everything."""
        self.network.end()

    def repair(self) -> None:
        """Take back all faults. Workers that were hit start anew, with new executors."""
        self.network.open_firewall("driver")
        for name in (*WORKERS, "driver"):
            self.network.heal(name)
            self.network.speed_up(name)
            self.hosts[name].rename(name)
            self.hosts[name].send(signal.SIGCONT, "java", *PYTHON)
        for name in WORKERS:
            if name in self._damaged:
                self.stop_worker(name)
            if not self.hosts[name].processes(WORKER):
                self.start_worker(name)
        self._damaged.clear()

    def kill_executor(self, host: str) -> None:
        """Kill the executors of a host with their Python. Spark starts others soon."""
        self._send(host, signal.SIGKILL, EXECUTOR, *PYTHON)

    def kill_python(self, host: str) -> None:
        """Kill the Python workers of a host only, as the kernel does when memory runs out."""
        self._send_to(host, self._python_workers(host), signal.SIGKILL)

    def stop_worker(self, host: str) -> None:
        """Kill all that Spark runs on a host. Other hosts notice, because connections end."""
        while self.hosts[host].send(signal.SIGKILL, *SPARK, *PYTHON):
            time.sleep(0.1)  # A script may just start another program.

    def lose_host(self, host: str) -> None:
        """Take the power of a host away: no connection ends, there is only silence."""
        self.cut(host)
        self.stop_worker(host)

    def cut(self, host: str) -> None:
        """Take the cable of a host out."""
        self._damaged.add(host)
        self.network.cut(host)

    def cut_for(self, host: str, seconds: float) -> None:
        """Take the cable of a host out, and put it in again after some seconds."""
        self.network.cut(host)
        time.sleep(seconds)
        self.network.heal(host)

    def freeze(self, host: str) -> None:
        """Stop the executors of a host with all of their Python."""
        self._damaged.add(host)
        self._send(host, signal.SIGSTOP, *PYTHON, EXECUTOR)

    def freeze_python(self, host: str) -> None:
        """Stop the Python workers of a host only, not the daemon that forks them."""
        self._damaged.add(host)
        self._send_to(host, self._python_workers(host), signal.SIGSTOP)

    def decommission(self, host: str) -> None:
        """Tell Spark's worker on a host to leave, as Kubernetes and spot machines do."""
        self._damaged.add(host)
        self._send(host, signal.SIGPWR, WORKER)

    def logs(self) -> str:
        """Return the last lines that executors have written, with their hosts."""
        found = []
        for name, host in self.hosts.items():
            with contextlib.suppress(OSError):
                for file in sorted(host.files().glob("tmp/work/*/*/stderr"))[-1:]:
                    found += [f"{name}: {line}" for line in last_lines(file, 10)]
        return "\n".join(found)

    def _python_workers(self, host: str) -> list[int]:
        """The processes that run tasks: children of daemons, which are children of executors."""
        python = self.hosts[host].processes(*PYTHON)
        daemons = [pid for pid in python if parent_of(pid) not in python]
        return [pid for pid in python if parent_of(pid) in daemons]

    def _send(self, host: str, number: signal.Signals, *words: str) -> None:
        self._send_to(host, self.hosts[host].processes(*words), number)

    def _send_to(self, host: str, pids: list[int], number: signal.Signals) -> None:
        if not pids:
            raise RuntimeError(f"There is no such process on {host}.")
        send(number, pids)

    def _start_daemon(self, host: str, name: str, *arguments: str) -> None:
        program = [f"{self.environment['SPARK_HOME']}/bin/spark-class"]
        program += [f"org.apache.spark.deploy.{name}", "--host", host, *arguments]
        with open(self.folder / f"{host}.log", "a") as log:
            self.hosts[host].start_program(program, self.environment, log)


def last_lines(file: Path, number: int) -> list[str]:
    """Return the last lines of a log that say something, shortened."""
    lines = file.read_text(errors="replace").splitlines()
    return [line[:200] for line in lines if not NOISE.match(line)][-number:]
