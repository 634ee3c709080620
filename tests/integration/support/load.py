"""Clients beside one another: one that wants everything, and how long the other waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from process import need

GREEDY = Path(__file__).with_name("greedy.py")


@contextmanager
def greedy(target: str, method: str, calls: int = 100, connections: int = 1) -> Iterator[int]:
    """A process that keeps so many calls open at full speed; its id. Behind everybody else for the
    processor, since sharing that out is the kernel's part."""
    command = ["nice", "-n", "19", sys.executable, str(GREEDY)]
    command += [target, method, str(calls), str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == b"started\n"
            yield process.pid
        finally:
            process.send_signal(signal.SIGCONT)
            process.stdin.close()
            process.wait(10)


@contextmanager
def h2load(path: Path, method: str, body: Path) -> Iterator[None]:
    """A process in C that keeps 4,000 calls open in 40 connections, and does not heed refusals."""
    body.write_bytes(bytes(5))
    command = [need("h2load", "nghttp2-client"), "-D600", "-m100", "-c40", "-d", body]
    command += ["-Hcontent-type: application/grpc", "-Hte: trailers"]
    command += [f"--base-uri=unix:{path}", f"http://localhost{method}"]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def p99(call: Callable[[], object], rounds: int = 100) -> float:
    """Of calls with pauses between them, as a consumer makes them."""
    return p99s((call,), rounds)[0]


def p99s(calls: Sequence[Callable[[], object]], rounds: int = 100) -> list[float]:
    """The same of several, by turns: what else the machine does befalls each of them."""
    durations: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, found in zip(calls, durations, strict=True):
            began = time.perf_counter()
            call()
            found.append(time.perf_counter() - began)
        time.sleep(0.005)
    return [sorted(found)[rounds * 99 // 100 - 1] for found in durations]
