"""Faults around the server: what consumers see meanwhile, that liveness is right, that it heals."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from installed import Installed
from process import Server
from wire import status_of

Start = Callable[..., Server]
YEAR_SECONDS = 365 * 86_400
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

MISBEHAVING = """
import os, sys, threading, time

class Bad(Base):
    name = "bad"
    types = ("BadHealthy",)
    def run(self, sink, stop):
        sink.register("gpu-bad", GpuSpec())
        sink.set_condition("gpu-bad", Condition("BadHealthy", TRUE))
        sink.synced()
        {act}
        while not stop.is_set():
            sink.set_condition("gpu-bad", Condition("BadHealthy", TRUE))
            sink.alive()
            {pause}

@hookimpl
def device_api_provider(options):
    return Bad(options)
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
