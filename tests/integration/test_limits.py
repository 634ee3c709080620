"""One client cannot take what others need: calls, memory, connections."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from load import greedy, p99
from process import TRANSPORT, Server
from rawh2 import DATA, GOAWAY, PING, RawConnection, frame
from wire import METHODS, Api, condition, reason_of

from device_api_core.server.connections import Patrol, connections
from device_api_core.server.limits import Limiter

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
LIST = METHODS["ListGpus"]
H2 = os.environ.get(TRANSPORT) == "h2"
BURST = 32 if H2 else 256
"""Of a process, or of all that are at one socket."""
ENHANCE_YOUR_CALM = 11


def outcomes(call: Callable[[], object], times: int, threads: int = 16) -> list[grpc.RpcError]:
    """The errors of so many calls."""

    def one(_: int) -> grpc.RpcError | None:
        try:
            call()
        except grpc.RpcError as error:
            return error
        return None

    with ThreadPoolExecutor(threads) as pool:
        return [error for error in pool.map(one, range(times)) if error is not None]


def test_who_calls_too_fast_waits_and_is_refused_with_a_reason(
    start: Callable[..., Server],
) -> None:
    flags = ("--max-reads-per-second=1", "--max-writes-per-second=1")
    server = start(*flags).wait_serving_on("gpu.sock")
    consumer, provider = server.api("consumer"), server.api()
    # Some wait their turn for up to 5 s.
    began = time.monotonic()
    refused = outcomes(consumer.list, 300, threads=64)
    assert time.monotonic() - began > 3
    assert {e.code() for e in refused} == {EXHAUSTED}
    assert {reason_of(e) for e in refused} == {"rate"}
    assert all("more than 1 reads a second" in e.details() for e in refused)
    assert 300 - BURST - 34 < len(refused) < 300 - BURST
    # Another socket is another client, and a read is not a write.
    provider.register("gpu", "alpha")
    provider.list()
    assert server.metric("grpc_requests_total", method="ListGpus", code=EXHAUSTED.name) == len(
        refused
    )


def test_everything_that_is_answered_is_paced(start: Callable[..., Server]) -> None:
    server = start("--max-reads-per-second=1").wait_serving()
    api = server.api("consumer")
    assert outcomes(api.list, 300, threads=64)
    health = health_pb2_grpc.HealthStub(api.channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    kinds = {
        "check": lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=10),
        "tell": lambda: next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10)),
        "reflection": lambda: list(reflection.ServerReflectionInfo(iter([asked]), timeout=10)),
        "unknown": lambda: api.raw("/no.Such/Method", b""),
        "watch": lambda: api.watch(timeout=10).next(),
        "get": lambda: api.get("absent"),
    }
    refused: set[str] = set()

    def call(kind: str) -> None:
        try:
            kinds[kind]()
        except grpc.RpcError as error:
            if error.code() is EXHAUSTED:
                refused.add(kind)

    # Some wait for the few turns that come; one of so many of a kind is refused for certain.
    with ThreadPoolExecutor(8 * len(kinds)) as pool:
        list(pool.map(call, [*kinds] * 8))
    assert refused == set(kinds)


def test_a_consumer_cannot_send_large_requests_or_metadata(server: Server, api: Api) -> None:
    consumer = server.api("consumer")
    with pytest.raises(grpc.RpcError) as caught:
        consumer.raw("GetGpu", b"\x0a" + bytes(70_000))
    assert caught.value.code() is EXHAUSTED
    with pytest.raises(grpc.RpcError) as caught:
        consumer.channel.unary_unary(LIST)(b"", metadata=[("x-large", "a" * 20_000)], timeout=10)
    assert caught.value.code() is EXHAUSTED
    assert consumer.list().metadata.resource_version


def test_who_floods_with_pings_is_cut_off(server: Server, api: Api) -> None:
    with RawConnection(server.socket) as connection:
        with pytest.raises(OSError), ExitStack():  # noqa: PT011, PT012
            for number in range(100_000):
                connection.send(frame(PING, struct.pack(">Q", number)))
        last = [payload for kind, payload in connection.frames() if kind == GOAWAY]
    assert not last or struct.unpack_from(">I", last[-1], 4) == (ENHANCE_YOUR_CALM,)
    assert server.api("consumer").list().metadata.resource_version


def test_a_client_that_says_nothing_is_cut_off(server: Server, api: Api) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(25)
        silent.connect(str(server.socket))
        while silent.recv(4_096):
            pass  # the server's own greeting


@pytest.mark.flaky(reruns=2)
@pytest.mark.parametrize(
    ("theirs", "ours"), [("tcp", "tcp"), ("consumer", "provider"), ("provider", "consumer")]
)
def test_a_greedy_client_does_not_starve_another(
    start: Callable[..., Server], theirs: str, ours: str
) -> None:
    server = start().wait_serving()
    targets = {
        "tcp": server.addresses["tcp"],
        "consumer": f"unix:{server.socket}",
        "provider": f"unix:{server.provider_socket}",
    }
    api = server.api(ours)
    writes = ours == "provider"
    api_of_writes = server.api()
    api_of_writes.register("gpu", "alpha")
    states = iter(["True", "False"] * 10_000)

    def call() -> object:
        return api.set("gpu", "Fan", next(states), "alpha") if writes else api.list()

    # A shared machine has slow moments of its own: they hit both, turn about, and the middle of
    # some rounds has none.
    alone, beside = [], []
    with greedy(targets[theirs], LIST) as pid:
        for _ in range(5):
            os.kill(pid, signal.SIGCONT)
            p99(call, 20)
            before = server.metric("grpc_requests_total", method="ListGpus", code="OK")
            beside.append(p99(call))
            lists = server.metric("grpc_requests_total", method="ListGpus", code="OK") - before
            assert lists > 200, "half of them are ours: the other one is not greedy"
            os.kill(pid, signal.SIGSTOP)
            # Two clients within a second take turns; and what it asked for is answered.
            time.sleep(1.1)
            alone.append(p99(call))
    assert median(beside) <= 3 * median(alone), f"{beside} s beside a greedy one, {alone} s alone"


def rss_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1_024


def fill(api: Api, gpus: int) -> int:
    """Register GPUs with long messages; returns the bytes of a list."""
    for number in range(gpus):
        fan = condition("Fan", message="m" * 30_000)
        api.register(f"gpu-{number}", "alpha", initial_status={"conditions": [fan]})
    return len(api.raw("ListGpus", b""))


def test_answers_that_nobody_reads_are_bounded_and_given_back(
    start: Callable[..., Server],
) -> None:
    server = start().wait_serving()
    size = fill(server.api(), 100)
    assert size > 3_000_000
    consumer, before = server.api("consumer"), rss_mib(server)
    with RawConnection(server.socket) as stalled:
        for _ in range(60):
            stalled.call(LIST)
        if H2:  # which gives each connection room of its own: nobody waits
            assert len(consumer.raw("ListGpus", b"")) == size
        else:  # all room is taken: others have to wait until it is given back
            cut = server.wait_log(lambda e: e["msg"] == "connection cut", 30)
            assert cut["pid"] == os.getpid()
        assert rss_mib(server) - before < 64 + 40
        assert any(kind == DATA for kind, _ in stalled.frames())
    assert len(consumer.raw("ListGpus", b"")) == size
    deadline = time.monotonic() + 20
    while rss_mib(server) - before > 40:
        assert time.monotonic() < deadline, rss_mib(server) - before
        time.sleep(0.1)


def fill_up(one: socket.socket) -> type[OSError]:
    """Send until that is not possible; returns why."""
    try:
        while True:
            one.send(bytes(4_096))
    except OSError as error:
        return type(error)


@pytest.mark.once("only grpcio needs a patrol")
@pytest.mark.parametrize("reads", [True, False])
async def test_who_reads_slowly_is_not_cut_and_who_reads_nothing_is(
    directory: Path, reads: bool
) -> None:
    path = directory / "s.sock"
    limiter = Limiter()
    patrol = Patrol(frozenset({str(path)}), limiter, 100)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(path))
        served = stack.enter_context(listener.accept()[0])
        served.setblocking(False)
        assert fill_up(served) is BlockingIOError
        # While no answer waits nobody is in the way.
        patrol.look()
        patrol.look()
        (await limiter.room(1))()
        patrol.look()
        await limiter.room(1)
        for _ in range(3):
            assert client.recv(16) if not reads else client.recv(65_536)
            patrol.look()
        assert fill_up(served) is (BlockingIOError if reads else BrokenPipeError)


@pytest.mark.once("only grpcio needs a patrol")
def test_one_process_cannot_hold_all_connections(directory: Path) -> None:
    path = directory / "s.sock"
    code = (
        "import socket, sys, time\n"
        "held = [socket.socket(socket.AF_UNIX) for _ in range(14)]\n"
        "for s in held: s.connect(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        ours = stack.enter_context(socket.socket(socket.AF_UNIX))
        ours.connect(str(path))
        flood = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", code, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        accepted = [stack.enter_context(listener.accept()[0]) for _ in range(15)]
        assert flood.stdout is not None
        assert flood.stdout.readline() == b"held\n"
        addresses = frozenset({str(path)})
        seen = [c.pid for c in connections(addresses)]
        assert (len(seen), seen.count(flood.pid)) == (15, 14)
        Patrol(addresses, Limiter(), 18).look()
        accepted[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            accepted[0].recv(1)
        ended = []
        for each in accepted[1:]:
            each.setblocking(False)
            try:
                ended.append(each.recv(1) == b"")
            except BlockingIOError:
                ended.append(False)
        assert ended.count(True) == 14 - 9
        assert flood.stdin is not None
        flood.stdin.close()


@pytest.mark.once("only grpcio needs a patrol")
async def test_connections_are_looked_at_when_there_is_something_to_see(directory: Path) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    limiter = Limiter()
    patrol = Patrol(frozenset({str(directory / "s.sock")}), limiter, files)
    with ExitStack() as stack:
        assert not Patrol(frozenset(), limiter, 2 * files).due()
        assert patrol.due()
        assert not patrol.due(), "nobody has come or gone"
        came = stack.enter_context(socket.socket(socket.AF_UNIX))
        assert patrol.due()
        assert not patrol.due()
        came.close()
        assert patrol.due()
        taken = await limiter.room(1)
        assert all(patrol.due() for _ in range(3)), "an answer waits"
        taken()
        assert not patrol.due()


def test_a_flood_of_connections_keeps_nobody_out_for_long(start: Callable[..., Server]) -> None:
    server = start().wait_serving()
    api = server.api("consumer")
    api.list()
    held: list[socket.socket] = []
    done = threading.Event()

    def flood() -> None:
        while not done.is_set() and len(held) < 2_600:
            one = socket.socket(socket.AF_UNIX)
            held.append(one)
            try:
                one.connect(str(server.socket))
            except OSError:
                return

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        thread.join(30)
        assert server.http("/livez")[0] == 200
        assert api.list().metadata.resource_version
        assert server.api().list().metadata.resource_version
        # Those who do not speak are gone after 10 s.
        deadline = time.monotonic() + 25
        while outcomes(server.api("consumer").list, 1):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        done.set()
        for one in held:
            one.close()


def test_a_flood_leaves_files_for_everything_else(
    directory: Path, start: Callable[..., Server]
) -> None:
    server = start(f"--state-dir={directory}/state", within=("prlimit", "--nofile=160:160"))
    api = server.wait_serving().api("consumer")
    api.list()
    held = [socket.socket(socket.AF_UNIX) for _ in range(400)]
    try:
        for each, path in zip(held, [server.socket, server.provider_socket] * 200, strict=True):
            each.settimeout(5)
            with suppress(OSError):
                each.connect(str(path))
        assert server.http("/livez")[0] == 200
        assert server.http("/metrics")[0] == 200
        assert api.list().metadata.resource_version
    finally:
        for each in held:
            each.close()
    deadline = time.monotonic() + 20
    while outcomes(server.api().list, 1):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.stop() == 0
