"""Sockets that are removed or replaced under a running server: seen, said, shown and made again."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from installed import Installed, good
from process import Server
from wire import Watching, status_of

from device_api_core.server.sockets import SocketClaim
from device_api_core.server.transport import ENTRY_POINT_GROUP

Start = Callable[..., Server]
GONE = "nobody can connect to a socket any longer"
CANNOT = "the socket cannot be made again yet"
BACK = "clients can connect again"
READY = (200, "ok\n")
# Root may write anywhere, unless it goes without that right.
BOUND_BY_MODES = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


def can(*command: str) -> bool:
    """Whether this user may run something so."""
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["grpcio", "h2"])
def transport(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name != "grpcio" and not entry_points(group=ENTRY_POINT_GROUP, name=name):
        pytest.skip(f"--transport {name} is not installed")
    return f"--transport={name}"


@pytest.fixture
def home(directory: Path) -> Path:
    """Where the sockets are. The test keeps what is above it."""
    return directory / "run"


class Node:
    """A server, a provider and a consumer with an open watch, all connected before the fault."""

    def __init__(
        self, start: Start, home: Path, *flags: str, seen: Path | None = None, **more: Any
    ) -> None:
        """``seen`` is where clients see the directory, if it is mounted."""
        self.consumers, self.providers = home / "gpu.sock", home / "provider.sock"
        sockets = (f"--unix-socket={self.consumers}", f"--provider-socket={self.providers}")
        self.server = start(*sockets, *flags, **more)
        self.server.socket = (seen or home) / "gpu.sock"
        self.server.provider_socket = (seen or home) / "provider.sock"
        self.server.wait_serving()
        self.provider, self.consumer = self.server.api(), self.server.api("consumer")
        version = self.provider.register("gpu", "alpha").resource_version
        self.watch: Watching = self.consumer.watch(str(version))
        self._said = False
        self.goes_on()

    def goes_on(self) -> None:
        """Who was connected is served, and the watch misses nothing."""
        self._said = not self._said
        version = self.provider.set("gpu", "Fan", str(self._said), "alpha")
        assert self.watch.next().object.resource_version == version
        assert status_of(self.consumer.get("gpu")).status == str(self._said)

    def said(self, words: str) -> list[dict[str, Any]]:
        """Its log entries with these words."""
        return [entry for entry in self.server.log if entry["msg"] == words]

    def wait_said(self, words: str, times: int) -> list[dict[str, Any]]:
        """The same, as soon as there are so many."""
        self.server.wait_log(lambda _: len(self.said(words)) >= times)
        return self.said(words)

    def wait_missing(self, why: str) -> None:
        """Until ``/readyz`` says why it is not ready."""
        ends = time.monotonic() + 10
        while why not in (now := self.server.http("/readyz"))[1]:
            assert time.monotonic() < ends, (now, self.server.text)
            time.sleep(0.02)
        assert now[0] == 503
        assert now[1].startswith("not ready: ")

    def anew(self, face: str = "consumer") -> str:
        """What somebody reads who was not connected before."""
        return str(status_of(self.server.api(face).get("gpu")).status)

    def healed(self, lost: int = 1) -> None:
        """Everybody can come again, and nothing is in trouble."""
        self.wait_said(BACK, lost)
        assert self.server.http("/readyz") == READY
        assert {self.anew("consumer"), self.anew("provider")} == {str(self._said)}
        assert self.server.metric("sockets_missing") == 0
        assert self.server.metric("sockets_lost_total") == lost
        self.goes_on()
        assert stat.S_IMODE(self.consumers.stat().st_mode) == 0o660
        assert stat.S_IMODE(self.providers.stat().st_mode) == 0o600
        assert self.server.stop() == 0
        assert len(self.said(GONE)) == len(self.said(BACK)) == lost


def answers(foreign: socket.socket, path: Path) -> bool:
    """Whether who connects to the path reaches that server."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.send(b"x")
        while True:
            # Those before are questions of ours whether somebody is there.
            with foreign.accept()[0] as accepted:
                if accepted.recv(1) == b"x":
                    return True


def moment(entry: dict[str, Any]) -> float:
    """When it was logged."""
    return datetime.fromisoformat(entry["ts"]).timestamp()


def listening(path: Path) -> set[str]:
    """The names under which somebody listens at that path."""
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {row[7] for row in rows if row[3] == "00010000" and row[7:] and str(path) in row[7]}


@contextmanager
def foreign_server(path: Path) -> Iterator[socket.socket]:
    """Somebody else's server, which knows of no lock."""
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        yield foreign


def test_a_removed_socket_is_made_again(start: Start, home: Path, transport: str) -> None:
    node = Node(start, home, transport)
    node.consumers.unlink()
    # Nobody asks: it notices by itself.
    entry = node.server.said(GONE)
    assert (entry["level"], entry["reason"]) == ("error", f"{node.consumers} was removed")
    node.server.said(BACK)
    node.goes_on()
    # The first heal is no special one.
    node.providers.unlink()
    node.wait_said(GONE, 2)
    node.healed(lost=2)


def test_a_removed_directory_is_made_again_with_all_sockets(
    start: Start, home: Path, transport: str
) -> None:
    home.mkdir()
    home.chmod(0o751)
    node = Node(start, home, transport)
    shutil.rmtree(home)
    node.wait_said(GONE, 2)
    node.goes_on()
    node.healed(lost=2)
    assert stat.S_IMODE(home.stat().st_mode) == 0o751


def test_a_directory_of_somebody_else_is_used_if_it_can_be(start: Start, home: Path) -> None:
    node = Node(start, home)
    home.rename(home.with_name("away"))
    home.mkdir()
    home.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
    node.healed(lost=2)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    # What was moved away is nobody's any more, and not this server's to remove.
    assert (home.with_name("away") / "gpu.sock").is_socket()


def test_a_directory_that_cannot_be_written_is_said_until_it_can(
    start: Start, home: Path, transport: str
) -> None:
    node = Node(start, home, transport, within=BOUND_BY_MODES)
    shutil.rmtree(home)
    home.mkdir(mode=0o555)
    node.wait_missing("Permission denied; create it for this user")
    assert node.server.metric("sockets_missing") == 2
    assert node.server.metric("ready") == 1
    assert node.server.http("/livez") == READY
    node.goes_on()
    home.chmod(0o755)
    node.healed(lost=2)
    # The same words once, however often it was tried.
    assert sorted(e["path"] for e in node.said(CANNOT)) == sorted(
        map(str, (node.consumers, node.providers))
    )


def test_a_foreign_file_is_left_alone(start: Start, home: Path, transport: str) -> None:
    node = Node(start, home, transport)
    other = home / "other"
    other.write_text("precious")
    other.rename(node.consumers)
    node.wait_missing("exists and is not a socket: move it away")
    node.goes_on()
    assert node.consumers.read_text() == "precious"
    node.consumers.rename(other)
    node.healed()
    assert other.read_text() == "precious"


def test_the_socket_of_another_server_is_not_taken(
    start: Start, home: Path, transport: str
) -> None:
    node = Node(start, home, transport)
    node.consumers.unlink()
    with foreign_server(node.consumers) as foreign:
        node.wait_missing("a server that holds no lock answers at")
        node.goes_on()
        assert node.server.stop() == 0
        assert answers(foreign, node.consumers)
    assert not node.providers.exists()


def test_what_another_server_left_is_no_hindrance(start: Start, home: Path) -> None:
    node = Node(start, home)
    node.consumers.unlink()
    with foreign_server(node.consumers) as foreign:
        node.wait_missing("a server that holds no lock answers at")
        assert answers(foreign, node.consumers)
    node.healed()


def test_what_comes_to_the_path_meanwhile_is_not_replaced(home: Path) -> None:
    claim = SocketClaim(str(home / "gpu.sock"), 0o600)
    with socket.socket(socket.AF_UNIX) as own, ExitStack() as stack:
        own.bind(stack.enter_context(claim.binding()))
        claim.path.write_text("precious")
        with pytest.raises(FileExistsError):
            stack.close()
        assert claim.path.read_text() == "precious"
        assert not claim.bound.exists()
        claim.release()
    assert claim.path.read_text() == "precious"


def test_two_servers_of_ours_do_not_take_one_path_from_each_other(start: Start, home: Path) -> None:
    first = Node(start, home)
    shutil.rmtree(home)
    home.mkdir(mode=0o755)
    # Faster than the first server: it has the lock of the new directory.
    with (home / "gpu.sock.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        subprocess.run(["flock", "--nonblock", str(lock.fileno())], pass_fds=[lock.fileno()])
        first.wait_missing(f"another server (process 4711) serves {first.consumers}")
        first.goes_on()
    first.healed(lost=2)


def test_without_files_it_is_made_again_when_there_are_some(
    start: Start, home: Path, transport: str
) -> None:
    node = Node(start, home, transport)
    pid = node.server.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, limits[1]))
    node.consumers.unlink()
    node.wait_said(CANNOT, 1)
    node.goes_on()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    node.healed()


def test_a_lock_alone_that_is_removed_gives_nobody_the_socket(start: Start, home: Path) -> None:
    node = Node(start, home)
    (home / "gpu.sock.lock").unlink()
    second = start(f"--unix-socket={node.consumers}", "--provider-socket=")
    assert second.exit_code() == 1
    assert "a server that holds no lock answers at" in second.text
    node.healed(lost=0)


def test_a_socket_that_comes_back_needs_nothing(start: Start, home: Path) -> None:
    node = Node(start, home, within=BOUND_BY_MODES)
    inode = node.consumers.stat().st_ino
    away = home.with_name("away")
    home.rename(away)
    home.mkdir(mode=0o555)
    node.wait_missing("Permission denied")
    home.rmdir()
    away.rename(home)
    node.wait_said(BACK, 2)
    assert node.consumers.stat().st_ino == inode
    node.healed(lost=2)


def test_who_removes_it_again_and_again_waits_longer_each_time(start: Start, home: Path) -> None:
    node = Node(start, home)
    for lost in (1, 2, 3):
        node.consumers.unlink()
        node.wait_said(BACK, lost)
        node.goes_on()
    times = [[moment(entry) for entry in node.said(words)] for words in (GONE, BACK)]
    first, second, third = (back - gone for gone, back in zip(*times, strict=True))
    assert first >= 0.5
    assert second >= 1.0
    assert third >= 2.0
    node.healed(lost=3)


@pytest.mark.once("only grpcio leaves servers behind")
def test_servers_that_are_left_do_not_pile_up(start: Start, home: Path) -> None:
    node = Node(start, home, "--grpc-address=")

    def wait_listening(*bindings: int) -> None:
        wanted = {f"{node.consumers}~{number}" for number in bindings}
        ends = time.monotonic() + 10
        while (now := listening(node.consumers)) != wanted:
            assert time.monotonic() < ends, now
            time.sleep(0.05)

    wait_listening(1)
    for lost in (1, 2):
        node.consumers.unlink()
        node.wait_said(BACK, lost)
        node.goes_on()
    # The first one has clients, the second had none.
    wait_listening(1, 3)
    node.goes_on()
    node.consumer.close()
    wait_listening(3)
    assert node.anew() == "False"


@pytest.mark.skipif(not can("unshare", "--mount"), reason="only root can mount")
def test_a_directory_that_is_gone_under_its_mount_asks_for_a_restart(
    start: Start, directory: Path
) -> None:
    # As a pod sees a directory of its node.
    host, pod = directory / "host", directory / "pod"
    pod.mkdir()

    def run() -> Node:
        host.mkdir()
        mount = f'mount --bind "{host}" "{pod}" && exec "$@"'
        return Node(start, pod, seen=host, within=("unshare", "--mount", "sh", "-c", mount, "sh"))

    node = run()
    shutil.rmtree(host)
    node.wait_missing("make it there and restart the server")
    status, text = node.server.http("/livez")
    assert (status, "was removed where it is mounted from" in text) == (503, True)
    node.goes_on()
    assert node.server.stop() == 0
    # What the node's agent does then.
    node = run()
    assert node.server.http("/livez") == READY
    node.anew()


@pytest.mark.skipif(not can("unshare", "--mount"), reason="only root can mount")
def test_a_pod_that_mounts_the_directory_read_only_can_connect_and_nothing_else(
    start: Start, directory: Path, home: Path
) -> None:
    node = Node(start, home)
    pod = directory / "pod"
    pod.mkdir()
    commands = [
        f"mount --bind '{home}' '{pod}' && mount -o remount,bind,ro '{pod}'",
        f"cd '{pod}'",
        "! rm -f gpu.sock && ! mv gpu.sock other && ! touch more && ! rm -f gpu.sock.lock",
        f"exec '{Path(sys.executable).with_name('device-api')}' --server unix:gpu.sock get gpus",
    ]
    run = ["unshare", "--mount", "sh", "-c", " && ".join(commands)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Read-only file system") == 4
    assert done.stdout.splitlines()[1].startswith("gpu ")
    node.healed(lost=0)


@pytest.mark.skipif(not can("unshare", "--map-root-user"), reason="no user namespaces")
def test_where_the_kernel_does_not_tell_it_is_seen_a_little_later(start: Start, home: Path) -> None:
    none = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    node = Node(start, home, within=("unshare", "--map-root-user", "sh", "-c", none, "sh"))
    node.server.said("the kernel does not tell of files that are removed")
    node.consumers.unlink()
    node.server.said(GONE)
    node.server.said(BACK)
    node.healed()


def test_a_plugin_in_another_process_goes_on(start: Start, directory: Path, home: Path) -> None:
    plugins = Installed(directory / "plugins").add("good", good("good"))
    flags = ("--provider=good", "--isolate=good")
    node = Node(start, home, *flags, plugins=plugins.directory)
    shutil.rmtree(home)
    heard = node.provider.provider("good").last_sign_of_life
    node.wait_said(GONE, 2)
    ends = time.monotonic() + 10
    while (now := node.provider.provider("good")).last_sign_of_life == heard:
        assert time.monotonic() < ends, now
        time.sleep(0.05)
    assert (now.state, now.restarts) == ("running", 0)
    node.healed(lost=2)
