"""What the tests of the command line share: a server with two GPUs, and the command as a process,
on pipes or on a terminal."""

import fcntl
import os
import pty
import queue
import re
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import grpc
import pytest
from click.testing import CliRunner

from device_api_core.cli.main import main
from device_api_core.client import Clientset
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
GOOD, BAD = "gpu-00000000-0000-4000-8000-00000000000a", "gpu-00000000-0000-4000-8000-00000000000b"
RUN = "from device_api_core.cli.main import main; main(prog_name='device-api')"
START = "from device_api_core.cli.start import main; main()"


@contextmanager
def running_server(directory):
    """A server process with its sockets in a directory."""
    consumers, providers = f"{directory}/device.sock", f"{directory}/provider.sock"
    args = ["--grpc-address", "", "--unix-socket", consumers, "--provider-socket", providers]
    args += ["--health-port", "0", "--metrics-port", "0", "--node-name", "node-a"]
    args += ["--shutdown-delay", "0", "--shutdown-timeout", "1"]
    with (
        (directory / "log").open("ab") as log,
        subprocess.Popen([sys.executable, "-c", START, *args], stdout=log, stderr=log) as process,
    ):
        try:
            wait_until_it_listens(f"unix://{providers}", process, directory / "log")
            yield process
        finally:
            process.terminate()


def wait_until_it_listens(target, process, log):
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
    with grpc.insecure_channel(target, options) as channel:
        while process.poll() is None:
            with suppress(grpc.FutureTimeoutError):
                return grpc.channel_ready_future(channel).result(timeout=0.5)
    pytest.fail(f"the server ended with {process.returncode}: {log.read_text()}")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A server with one good and one bad GPU, reported by the provider ``fan``."""
    directory = tmp_path_factory.mktemp("node")
    options = ("--server", f"{directory}/device.sock")
    options += ("--provider-server", f"{directory}/provider.sock")
    with running_server(directory), Clientset.connect(f"{directory}/provider.sock") as clients:
        providers = clients.v1alpha1.providers
        for index, name in enumerate((BAD, GOOD)):
            spec = GpuSpec(
                uuid=name.replace("gpu", "GPU"),
                index=1 - index,
                minor=index,
                pci_bus_id=f"0000:1{index}:00.0",
                product_name="NVIDIA H100 80GB HBM3 (SIMULATED)",
                memory_bytes=80 * 2**30,
            )
            providers.register(name, spec, provider_id="fan")
            providers.update_status(name, health(name), provider_id="fan")
        yield SimpleNamespace(clients=clients, options=options)


def health(name):
    fan = Condition("example.com/FanHealthy", TRUE, "Turning")
    if name == GOOD:
        return GpuStatus((fan, Condition("XidHealthy", TRUE)))
    fault = Condition("XidHealthy", FALSE, "Xid79", "the GPU fell off the bus")
    return GpuStatus((fan, fault), "RESTART_BM")


@pytest.fixture
def run(node):
    def invoke(*args, **kwargs):
        return CliRunner().invoke(main, [*node.options, *args], prog_name="device-api", **kwargs)

    return invoke


def cells(output):
    return [re.split(r" {3,}", line) for line in output.splitlines()]


@contextmanager
def started(*args):
    """The command line as a process of its own, its standard output a pipe."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Lines:
    """The lines of a pipe as they come."""

    def __init__(self, stream):
        self._read = queue.SimpleQueue()
        threading.Thread(target=self._pump, args=(stream,), daemon=True).start()

    def _pump(self, stream):
        for line in stream:
            self._read.put(line)

    def next(self):
        return self._read.get(timeout=10)

    def within(self, seconds):
        """The next one, ``None`` if there is none in that time."""
        try:
            return self._read.get(timeout=seconds)
        except queue.Empty:
            return None


class Terminal:
    """The command line on a terminal of its own, of which everything written is kept."""

    def __init__(self, *args, columns=120, lines=24, **env):
        self._ours, self.theirs = pty.openpty()
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(self.theirs)
        kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, *args],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**kept, "TERM": "xterm", **env},
            # So that it can be stopped: the last member of an orphaned group cannot.
            process_group=0,
        )
        self.output = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        # The reader sees the end when nobody has the other side open any more.
        os.close(self.theirs)
        self._reader.join()
        os.close(self._ours)

    def resize(self, columns, lines):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text):
        os.write(self._ours, text.encode())

    def wait_for(self, holds, seconds=20):
        """Until that holds of everything written."""
        with self._changed:
            if not self._changed.wait_for(lambda: holds(self.output), seconds):
                pytest.fail(f"not seen in time, but {self.output[-3000:]!r}")

    def wait_for_frame(self, holds):
        """Until that holds of the lines on the screen, without colours; returns them with."""
        found = []

        def look(output):
            frames = [part.partition("\x1b[J") for part in output.split("\x1b[H")[1:]]
            whole = [frame for frame, end, _ in frames if end]
            found[:] = whole[-1].replace("\x1b[K", "").split("\r\n") if whole else []
            return bool(found) and holds([plain(line) for line in found])

        self.wait_for(look)
        return found

    def end(self):
        """Its exit code, when it has ended by itself."""
        return self.process.wait(20)

    def _read(self):
        while True:
            try:
                read = os.read(self._ours, 65536)
            except OSError:
                return
            with self._changed:
                self.output += read.decode()
                self._changed.notify_all()


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
