"""The built binary as a process of its own, in a folder of its own, for test tools in Python."""

import os
import re
import resource
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

PATIENCE = 30.0
POLL = 0.05
ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/debug/otpost"
# The soft limit of a login shell; a test that needs more for itself must not hand that on.
DESCRIPTORS = 1024


class Otpost:
    """A process on free ports of 127.0.0.1 from start to end: in development mode and without limits,
    or with these settings."""

    def __init__(self, folder: Path, binary: Path = BINARY, settings: dict[str, str] | None = None) -> None:
        self.port, ops = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self._ops = f"http://127.0.0.1:{ops}"
        self._folder = folder
        self._log = folder / "log"
        self._command = [binary.resolve(), "serve"]
        if settings is None:
            self._command.append("--dev")
            settings = {"OTPOST__LIMITS__ENABLED": "false"}
        self._environment = {
            "PATH": os.environ["PATH"],
            "OTPOST__HTTP__LISTEN": f"127.0.0.1:{self.port}",
            "OTPOST__OPS__LISTEN": f"127.0.0.1:{ops}",
            "OTPOST__STORE__URL": "sqlite:otpost.db",
            "OTPOST__LOG__FORMAT": "json",
            "OTPOST__LOG__LEVEL": "warn",
            **settings,
        }

    def __enter__(self) -> "Otpost":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                preexec_fn=usual_descriptors,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise SystemExit(f"otpost does not start: {self._log.read_text()}")
            time.sleep(POLL)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)

    def resident_kib(self) -> int:
        """The memory that the process holds now."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def statuses(self) -> set[int]:
        """Every status that has been answered."""
        with urllib.request.urlopen(f"{self._ops}/metrics", timeout=PATIENCE) as answer:
            metrics = answer.read().decode()
        return {int(status) for status in re.findall(r'^otpost_http_requests_total{.*status="(\d+)"', metrics, re.M)}

    def trouble(self) -> str:
        """What the process warned of, or how it ended."""
        if self._process.poll() is not None:
            return f"otpost ended by itself: {self._log.read_text()}"
        # In this format every line of the log is an object; what else is printed is a greeting or
        # a panic.
        lines = self._log.read_text().splitlines()
        return "\n".join(line for line in lines if line.startswith("{") or "panicked" in line)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._ops}/readyz", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False


def usual_descriptors() -> None:
    """Takes the soft limit back to what it usually is; the program may raise it up to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (usual, hard))


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, all held until all are found so that none comes twice."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
