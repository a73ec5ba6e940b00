"""Slow clients against the built binary: slowhttptest in its four modes, 1,000 connections each.

While an attack runs, a probe asks for a page and for a code every 100 ms, and every probe must be
answered within 2 s. The server must hold nearly all connections at once, started with no more
descriptors than a login shell has. Every connection of the attack must be closed by the server within the deadline
that its mode runs into.
"""

import argparse
import http.client
import json
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from otpost_process import BINARY, Otpost  # noqa: E402 (found only on the path set above)

PROBE_DEADLINE = 2.0
PROBE_PAUSE = 0.1
# What a probe that is answered at once makes four times over; fewer would mean that it gave up.
PROBES_A_SECOND = 2
SAMPLE_PAUSE = 0.1
# What sampling and a loaded machine may add to a deadline.
TOLERANCE = 2.0
# Of the connections, since the server closes the first while the tool opens the last.
HELD_AT_ONCE = 0.9
ESTABLISHED = "01"


@dataclass
class Mode:
    """One kind of attack; `longest` is how long the server lets a connection of it live."""

    name: str
    longest: float
    path: str
    options: list[str]


MODES = [
    # The head has 5 s.
    Mode("H", 5.0, "/otp/generate", ["-H", "-i", "2", "-x", "24"]),
    # The body has 5 s after its head.
    Mode("B", 5.0, "/otp/generate", ["-B", "-i", "2", "-s", "8192", "-f", "application/json"]),
    # The answer is written into the system's buffers at once; then the connection idles for 30 s.
    Mode("X", 15.0 + 30.0, "/openapi.json", ["-X", "-w", "8", "-y", "16", "-n", "2", "-z", "8", "-k", "3"]),
    # Ranges are not served; the connection idles for 30 s.
    Mode("R", 30.0, "/openapi.json", ["-R", "-a", "5", "-b", "2000"]),
]


@dataclass
class Figures:
    """What was seen during one attack."""

    probes: int = 0
    slowest: float = 0.0
    unanswered: list[str] = field(default_factory=list)
    most_connections: int = 0
    longest_connection: float = 0.0
    most_memory_kib: int = 0
    rounds: int = 0


def main() -> int:
    options = arguments()
    allow_descriptors(options.connections * 2 + 1000)
    verdicts = [attack(mode, options) for mode in MODES if mode.name in options.modes]
    return 0 if all(verdicts) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60, help="per mode")
    parser.add_argument("--modes", default="HBXR")
    parser.add_argument("--binary", type=Path, default=BINARY)
    return parser.parse_args()


def allow_descriptors(wanted: int) -> None:
    """For the attack; the server starts with what a login shell has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def attack(mode: Mode, options: argparse.Namespace) -> bool:
    figures = Figures()
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder, Otpost(Path(folder), options.binary) as otpost:
        watchers = [
            threading.Thread(target=watch, args=(otpost, figures, ended)),
            threading.Thread(target=probe, args=(otpost, figures, ended)),
        ]
        for watcher in watchers:
            watcher.start()
        try:
            keep_up(mode, otpost, options, figures)
        finally:
            ended.set()
            for watcher in watchers:
                watcher.join()
        trouble = otpost.trouble()
    print(
        f"-{mode.name}: {figures.rounds} rounds, at most {figures.most_connections} connections, "
        f"the longest for {figures.longest_connection:.1f} s (bound {mode.longest:.0f} s), "
        f"{figures.probes} probes, {len(figures.unanswered)} not answered, "
        f"slowest {figures.slowest * 1000:.0f} ms, {figures.most_memory_kib // 1024} MiB",
        flush=True,
    )
    for line in [*figures.unanswered[:5], trouble]:
        if line:
            print(line, file=sys.stderr)
    is_closed_in_time = figures.longest_connection <= mode.longest + TOLERANCE
    had_its_connections = figures.most_connections >= options.connections * HELD_AT_ONCE
    had_its_probes = figures.probes >= options.seconds * PROBES_A_SECOND
    was_an_attack = had_its_connections and had_its_probes
    return not figures.unanswered and not trouble and is_closed_in_time and was_an_attack


def keep_up(mode: Mode, otpost: Otpost, options: argparse.Namespace, figures: Figures) -> None:
    """Attacks until the time is over; the tool itself ends as soon as all its sockets are closed."""
    until = time.monotonic() + options.seconds
    while (left := until - time.monotonic()) > 1:
        figures.rounds += 1
        subprocess.run(
            [
                "slowhttptest",
                *mode.options,
                *["-c", str(options.connections), "-r", str(options.connections // 2)],
                *["-l", str(int(left)), "-p", "2", "-v", "0", "-u", otpost.url + mode.path],
            ],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        if mode.name == "R":
            ask_for_ranges(mode, otpost, options)


def ask_for_ranges(mode: Mode, otpost: Otpost, options: argparse.Namespace) -> None:
    """The attack with ranges by hand: the tool itself asks to close and gives up once it is answered
    and closed, after a few connections. Ends when the server has closed them all."""
    ranges = ",".join(f"5-{end}" for end in range(6, 2000))
    head = f"GET {mode.path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={ranges}\r\n\r\n".encode()
    clients = []
    for _ in range(options.connections):
        client = socket.create_connection(("127.0.0.1", otpost.port), timeout=mode.longest * 2)
        client.sendall(head)
        clients.append(client)
        # As fast as the tool opens its own.
        time.sleep(2 / options.connections)
    for client in clients:
        with client:
            answer = client.recv(64)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"ranges were answered with {answer!r}")
            while client.recv(65536):
                pass


def watch(otpost: Otpost, figures: Figures, ended: threading.Event) -> None:
    """Follows the connections that the server holds, and its memory."""
    since: dict[str, float] = {}
    while not ended.wait(SAMPLE_PAUSE):
        now = time.monotonic()
        open_now = connections(otpost.port)
        since = {peer: since.get(peer, now) for peer in open_now}
        figures.most_connections = max(figures.most_connections, len(open_now))
        oldest = min(since.values(), default=now)
        figures.longest_connection = max(figures.longest_connection, now - oldest)
        figures.most_memory_kib = max(figures.most_memory_kib, otpost.resident_kib())


def connections(port: int) -> list[str]:
    """The peers of the server's side of its established connections."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    here = f":{port:04X}"
    return [row[2] for row in rows if row[1].endswith(here) and row[3] == ESTABLISHED]


def probe(otpost: Otpost, figures: Figures, ended: threading.Event) -> None:
    """Asks like anybody else would, on a connection of its own each time."""
    address = json.dumps({"email": "ada@example.org"})
    asks = [("GET", "/", None, 200), ("POST", "/otp/generate", address, 202)]
    while not ended.wait(PROBE_PAUSE):
        method, path, body, expected = asks[figures.probes % len(asks)]
        started = time.monotonic()
        figures.probes += 1
        client = http.client.HTTPConnection("127.0.0.1", otpost.port, timeout=PROBE_DEADLINE)
        try:
            client.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            status = client.getresponse().status
            if status != expected:
                figures.unanswered.append(f"{method} {path} was answered {status}")
        except (OSError, http.client.HTTPException) as error:
            figures.unanswered.append(f"{method} {path}: {error!r}")
        finally:
            client.close()
        figures.slowest = max(figures.slowest, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
