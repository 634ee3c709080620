"""Faults around the server: what consumers see meanwhile, that liveness is right, that it heals."""

from __future__ import annotations

import http.client
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import grpc
import pytest
from device_api_fake_nvml import FakeNode
from installed import Installed
from process import Server
from wire import status_of

from device_api_core._proto.gpu_pb2 import Condition
from device_api_core.server.transport import ENTRY_POINT_GROUP

Start = Callable[..., Server]
YEAR_SECONDS = 365 * 86_400
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

BAD = """
import os, sys, threading, time

@hookimpl
def device_api_provider(options):
    return Bad(options)

class Bad(Base):
    name = "bad"
    types = ("BadHealthy",)
    def run(self, sink, stop):
        sink.register("gpu-bad", GpuSpec())
        sink.set_condition("gpu-bad", Condition("BadHealthy", TRUE))
        sink.synced()
"""
MISBEHAVING = f"""{BAD}
        {{act}}
        while not stop.is_set():
            sink.set_condition("gpu-bad", Condition("BadHealthy", TRUE))
            sink.alive()
            {{pause}}
"""
SLEEP = "stop.wait(0.2)"
ACTS = {
    "prints": ("print('x' * 100_000, flush=True)", "print('more', flush=True); " + SLEEP),
    "forks": ("if os.fork() == 0: time.sleep(4); os._exit(0)", SLEEP),
    "leaks-threads": (
        "[threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
        " for _ in range(200)]",
        SLEEP,
    ),
    "eats-the-cpu": ("pass", "sum(range(2_000_000))"),
}


@pytest.mark.parametrize("home", ["thread", "process"])
@pytest.mark.parametrize("act", ACTS)
def test_a_provider_that_misbehaves_leaves_the_server_well(
    directory: Path, start: Start, act: str, home: str
) -> None:
    before, pause = ACTS[act]
    source = MISBEHAVING.format(act=before, pause=pause)
    plugins = Installed(directory / "plugins").add("bad", source)
    isolate = ("--isolate=bad",) if home == "process" else ()
    server = start("--provider=bad", *isolate, plugins=plugins.directory).wait_serving()
    api = server.api("consumer")
    for _ in range(10):
        assert status_of(api.get("gpu-bad", timeout=2)).status == "True"
        assert server.http("/livez")[0] == 200
    assert server.stop() == 0
    # The next one takes its place, whatever the last one's provider has left running.
    if act == "forks" and home == "process":
        assert start("--grpc-address=").wait_serving().stop() == 0


FALLS = f"""{BAD}
        while not os.path.exists({{fault!r}}):
            stop.wait(0.05)
            if stop.is_set(): return
        os.rename({{fault!r}}, {{fault!r}} + ".had")
        raise SystemExit(7)
"""


@pytest.mark.parametrize("home", ["thread", "process"])
def test_a_provider_that_raises_system_exit_is_doubted_until_it_is_back(
    directory: Path, start: Start, home: str
) -> None:
    fault = directory / "fault"
    plugins = Installed(directory / "plugins").add("bad", FALLS.format(fault=str(fault)))
    isolate = ("--isolate=bad",) if home == "process" else ()
    server = start("--provider=bad", *isolate, plugins=plugins.directory).wait_serving()
    watch = server.api("consumer").watch()
    assert status_of(watch.next().object).status == "True"
    fault.touch()
    doubted = status_of(watch.next().object)
    assert (doubted.status, doubted.reason) == ("Unknown", "ProviderFailed")
    assert server.http("/livez")[0] == 200
    assert status_of(watch.next().object).status == "True"
    row = server.api().provider("bad")
    assert (row.state, row.restarts) == ("running", 1)
    assert server.stop() == 0
    # A crash of a provider is told with its traceback.
    server.output[:] = [line for line in server.output if "SystemExit" not in line]


@pytest.mark.parametrize("home", ["thread", "process"])
def test_a_wedged_driver_is_doubted_and_restarts_nothing(
    directory: Path, start: Start, home: str
) -> None:
    node = FakeNode.create(directory / "node", gpus=2)
    config = directory / "server.toml"
    config.write_text(
        f'[providers.nvml]\ndriver_root = "{node.root}"\ncall_seconds = 0.5\npoll_seconds = 0.1\n'
    )
    isolate = ("--isolate=nvml",) if home == "process" else ()
    server = start(f"--config={config}", "--provider=nvml", *isolate).wait_serving()
    consumer = server.api("consumer")

    def shown() -> list[Condition]:
        return [status_of(gpu, "NVMLReady") for gpu in consumer.list().items]

    def wait_for(status: str, reason: str) -> None:
        ends = time.monotonic() + 20
        while not all(s.status == status and reason in s.reason for s in shown()):
            assert time.monotonic() < ends, consumer.list()
            # Neither liveness nor readiness asks for a restart, which would hang as well.
            assert (server.http("/livez")[0], server.http("/readyz")[0]) == (200, 200)
            time.sleep(0.05)

    wait_for("True", "")
    # In C, deaf to signals: nothing but the driver ends such a call.
    node.calls.hang()
    wait_for("Unknown", "NvmlUnresponsive")
    row = server.api().provider("nvml")
    assert (row.state, row.restarts, row.gpus) == ("running", 0, 2)
    node.calls.unhang()
    wait_for("True", "")
    assert server.api().provider("nvml").restarts == 0
    node.calls.hang()
    wait_for("Unknown", "NvmlUnresponsive")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10


def test_a_provider_that_holds_its_update_is_doubted(start: Start) -> None:
    server = start().wait_serving()
    provider, consumer = server.api(), server.api("consumer")
    provider.register("gpu", "alpha")
    provider.set("gpu", "Fan", "True", "alpha")
    call = provider.hold("alpha", "gpu")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(consumer.get, "gpu", 20)
        # Who reads waits, and everything else goes on.
        assert server.http("/livez")[0] == 200
        assert server.http("/readyz")[0] == 200
        assert server.api("provider").register("other", "beta").created
        assert not read.done()
        found = status_of(read.result(20))
    assert (found.status, found.reason) == ("Unknown", "UpdateAborted")
    assert server.metric("updates_expired_total", provider_id="alpha") == 1
    with pytest.raises(grpc.RpcError):
        next(call)
    provider.set("gpu", "Fan", "True", "alpha")
    assert status_of(consumer.get("gpu")).status == "True"


@pytest.mark.parametrize("transport", ["grpcio", "h2"])
def test_without_files_who_is_there_is_served_and_others_come_later(
    start: Start, transport: str
) -> None:
    if transport != "grpcio" and not entry_points(group=ENTRY_POINT_GROUP, name=transport):
        pytest.skip(f"--transport {transport} is not installed")
    server = start(f"--transport={transport}").wait_serving()
    provider, consumer = server.api(), server.api("consumer")
    provider.register("gpu", "alpha")
    watch = consumer.watch()
    watch.next()
    page = http.client.HTTPConnection(server.addresses["health"], timeout=10)
    pid = server.process.pid

    def livez() -> int:
        page.request("GET", "/livez")
        with page.getresponse() as response:
            response.read()
            return response.status

    assert livez() == 200
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # From now on every open and every accept fails with EMFILE.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, limits[1]))
    version = provider.set("gpu", "Fan", "False", "alpha")
    assert watch.next().object.resource_version == version
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(server.api("consumer").get, "gpu", 30)
        with pytest.raises(TimeoutError):
            late.result(1.5)
        assert livez() == 200
        assert status_of(consumer.get("gpu")).status == "False"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert status_of(late.result(30)).status == "False"
    assert server.http("/livez")[0] == 200
    page.close()
    assert server.stop() == 0
    # What could not be accepted is said, with its traceback.
    server.output[:] = [line for line in server.output if "out of system resource" not in line]


def test_a_server_that_was_stopped_goes_on_where_it_was(start: Start) -> None:
    server = start().wait_serving()
    provider, consumer = server.api(), server.api("consumer")
    provider.register("gpu", "alpha")
    provider.set("gpu", "Fan", "True", "alpha")
    assert provider.heartbeat("alpha")
    watch = consumer.watch()
    watch.next()
    server.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        read = pool.submit(consumer.get, "gpu", 20)
        with pytest.raises(grpc.RpcError) as caught:
            consumer.list(timeout=0.5)
        # Nobody is told that all is well meanwhile: there is no answer.
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not read.done()
        server.signal(signal.SIGCONT)
        assert status_of(read.result(20)).status == "True"
    version = provider.set("gpu", "Fan", "False", "alpha")
    assert [e.object.resource_version for e in watch.until(version)] == [version]
    assert server.http("/livez")[0] == 200


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (Debian: faketime)")
@pytest.mark.parametrize("years", [1, -1])
def test_the_clock_may_jump_by_a_year(directory: Path, start: Start, years: int) -> None:
    clock = directory / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    flag = f"--state-dir={directory}/state"
    server = start(flag, env=env).wait_serving()
    api = server.api()
    api.register("gpu", "alpha")
    first = api.set("gpu", "Fan", "True", "alpha")
    assert api.heartbeat("alpha")
    clock.write_text(f"{years * YEAR_SECONDS:+d}")
    # No lease runs out for it, and no version goes back.
    assert api.heartbeat("alpha")
    assert status_of(api.get("gpu")).status == "True"
    second = api.set("gpu", "Fan", "False", "alpha")
    assert second == first + 1
    assert server.http("/livez")[0] == 200
    moved = status_of(api.get("gpu"), "Fan").last_transition_time.seconds
    # Times that people read follow the clock; nothing is decided by them.
    assert abs(moved - time.time() - years * YEAR_SECONDS) < 60
    # A start with a clock that is wrong gives newer versions still.
    assert server.stop() == 0
    later = start(flag, env=env).wait_serving().api()
    assert later.register("gpu-2", "alpha").resource_version > second
    clock.write_text("+0")
    assert later.set("gpu-2", "Fan", "True", "alpha") > second
