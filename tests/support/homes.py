"""The conformant provider in a home, told what to do over a connection."""

from __future__ import annotations

import queue
import tempfile
import threading
from contextlib import suppress
from multiprocessing.connection import Listener
from pathlib import Path

from device_api_core import errors
from device_api_core.client.admin import ProviderInfo
from device_api_core.daemon import Tuning
from device_api_core.testing.nodes import ProviderProcess, ThreadNode

SUPPORT = Path(__file__).parent
NAME = "conformant"
SECONDS = 20.0
TUNING = Tuning(first_pause_seconds=0.05, max_hold_seconds=1.0)


def install(directory):
    """What makes the provider an installed one: a directory for ``sys.path``."""
    metadata = directory / f"{NAME}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
    entry = f"[device_api.providers]\n{NAME} = {NAME}.plugin\n"
    (metadata / "entry_points.txt").write_text(entry)


class Raised(Exception):
    """What a call of the provider raised: its class's name and its message."""


class Home:
    """A node, and the provider that lives in or beside it."""

    def __init__(self, kind, *, node=ThreadNode, **options):
        self.kind = kind
        self._directory = tempfile.TemporaryDirectory(prefix="dapi-")
        self.directory = Path(self._directory.name)
        control = str(self.directory / "control.sock")
        self._listener = Listener(control, family="AF_UNIX")
        self.options = {"control": control, **options}
        self.starts = queue.Queue()
        self.cleared = queue.Queue()
        self._connection = None
        self._answers = {}
        self._numbers = 0
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()
        inside = () if kind == "alone" else (NAME,)
        isolate = (NAME,) if kind == "process" else ()
        tuning = {"tuning": TUNING} if node is ThreadNode else {}
        self.node = node(
            self.directory,
            *inside,
            isolate=isolate,
            options={NAME: self.options} if inside else {},
            **tuning,
        )
        self.process = None

    def __repr__(self):
        return self.kind

    def start(self):
        self.node.start()
        if self.kind == "alone":
            self.process = ProviderProcess(self.node, NAME, self.options)
        self.pid = self.started()
        return self

    def started(self):
        """The next start of the provider; returns its process id."""
        return self.starts.get(timeout=SECONDS)

    def close(self):
        if self.process is not None:
            self.process.kill()
        self.node.close()
        self._closing = True
        self._listener.close()
        self._directory.cleanup()

    def order(self, name, *args, **kwargs):
        """Tell the provider to do it; returns where its answer will come."""
        self._numbers += 1
        answer = self._answers[self._numbers] = queue.Queue()
        self._connection.send((self._numbers, name, args, kwargs))
        return answer

    def do(self, name, *args, **kwargs):
        """Have it done; returns or raises what the provider got."""
        return result(self.order(name, *args, **kwargs))

    def refused(self, name, *args, **kwargs):
        """The error class and message that the provider got."""
        try:
            value = self.do(name, *args, **kwargs)
        except Raised as raised:
            kind, message = raised.args
            return getattr(errors, kind), message
        raise AssertionError(f"{name} was not refused but returned {value!r}")

    def gpu(self, name="gpu-0", timeout=10.0):
        return self.node.clients.v1alpha1.gpus.get(name, timeout_seconds=timeout)

    def condition(self, type_, name="gpu-0"):
        """Status and reason, as readers see them; ``None`` without it."""
        found = self.gpu(name).condition(type_)
        return found and (str(found.status), found.reason)

    @property
    def info(self):
        listed = self.node.clients.admin.list_providers().providers
        return next((p for p in listed if p.name == NAME), ProviderInfo(NAME))

    def until(self, holds):
        """Wait for state that has no event of its own."""
        pause, deadline = threading.Event(), SECONDS / 0.01
        while deadline:
            with suppress(errors.Unavailable):
                if value := holds():
                    return value
            pause.wait(0.01)
            deadline -= 1
        raise AssertionError(self.info)

    def _accept(self):
        while not self._closing:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection):
        with suppress(EOFError, OSError):
            while True:
                said, *rest = connection.recv()
                if said == "started":
                    self.starts.put(rest[0])
                elif said == "cleared":
                    self.cleared.put(tuple(rest))
                else:
                    self._answers[rest[0]].put((said, rest[1:]))


def result(answer):
    said, rest = answer.get(timeout=SECONDS)
    if said == "raised":
        raise Raised(*rest)
    return rest[0]
