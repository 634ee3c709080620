"""A real server and its memory: killed at any moment, on any disk, over restarts and boots."""

from __future__ import annotations

import asyncio
import errno
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from inside import AsyncApi, Puppet, plugin
from process import Server
from wire import Api, admin_pb2, condition, gpu_pb2, provider_pb2, status_of

from device_api_core.daemon import Tuning
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from disk import Fault, FaultyDisk

pytestmark = pytest.mark.once(
    "it is about the disk; a transport carries the answers that wait for it as any others"
)

Start = Callable[..., Server]
TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


@pytest.fixture
def restart(start: Start, directory: Path) -> Callable[..., Server]:
    """Kills what runs and starts a server with the same memory."""
    running: list[Server] = []

    def again(*arguments: str, **more: Any) -> Server:
        kill(*running)
        running[:] = [start(f"--state-dir={directory / 'state'}", *arguments, **more)]
        running[0].said("serving")
        return running[0]

    return again


def kill(*servers: Server) -> None:
    for server in servers:
        server.signal(signal.SIGKILL)
        server.exit_code()


def shown(api: Api, gpu: str = "gpu-0") -> dict[str, tuple[str, str, str]]:
    return {c.type: (c.status, c.reason, c.provider_id) for c in api.get(gpu).status.conditions}


def advise(api: Api, action: str) -> None:
    request = provider_pb2.UpdateGpuConditionRequest(
        name="gpu-0",
        provider_id="beta",
        condition=condition("Xid", "False", reason="Xid79", message="fallen off the bus"),
        recommended_action=action,
    )
    api.providers.UpdateGpuCondition(request, timeout=10)


def test_a_kill_keeps_what_is_bad_and_believes_nothing_good(restart: Callable[..., Server]) -> None:
    api = restart().api()
    api.register("gpu-1", "alpha", spec={"uuid": "GPU-1", "index": 1, "memory_bytes": 80 << 30})
    api.register("gpu-0", "alpha")
    api.set("gpu-0", "Fan", "True", "alpha")
    api.set("gpu-0", "Pump", "Unknown", "alpha", reason="Busy")
    advise(api, "RESTART_BM")
    fault = status_of(api.get("gpu-0"), "Xid")
    server = restart()
    api = server.api()
    assert shown(api) == {
        "Ready": ("False", "Xid79", ""),
        "Fan": ("Unknown", "ServerRestarted", "alpha"),
        "Pump": ("Unknown", "Busy", "alpha"),
        "Xid": ("False", "Xid79", "beta"),
    }
    assert status_of(api.get("gpu-0"), "Xid") == fault
    assert api.get("gpu-0").status.recommended_action == "RESTART_BM"
    assert [g.metadata.name for g in api.list().items] == ["gpu-1", "gpu-0"]
    assert (api.get("gpu-1").spec.uuid, api.get("gpu-1").spec.memory_bytes) == ("GPU-1", 80 << 30)
    for reason in ("StateRestored", "ServerRestarted"):
        assert reason in {e.reason for e in api.events()}
    for name in ("alpha", "beta"):
        provider = api.provider(name)
        assert provider.state == "lost"
        assert provider.state_reason == "it was not heard since the server was restarted"
        assert not provider.HasField("last_sign_of_life")
        assert server.metric("provider_connection_state", provider_id=name) == 0
    assert not api.heartbeat("beta", "gpu-0")
    assert server.metric("provider_lease_seconds", provider_id="beta") == 60
    assert 50 < server.metric("provider_lease_remaining_seconds", provider_id="beta") <= 60
    assert api.provider("beta").state == "running"
    # Owners too: nobody else may speak of the fault, and only its owner's True clears it.
    with pytest.raises(grpc.RpcError, match="belongs to provider beta"):
        api.set("gpu-0", "Xid", "True", "alpha")
    api.set("gpu-0", "Xid", "True", "beta")
    assert shown(api)["Xid"][0] == "True"


def test_what_is_removed_stays_removed(restart: Callable[..., Server]) -> None:
    api = restart().api()
    for name in ("gpu-0", "gpu-1", "gpu-2"):
        api.register(name, "alpha")
        api.set(name, "Fan", "False", "alpha")
    api.unregister("gpu-1")
    api.clear("gpu-0", "Fan")
    api.unregister("gpu-2", "alpha")
    api = restart().api()
    assert [g.metadata.name for g in api.list().items] == ["gpu-0", "gpu-2"]
    assert shown(api)["Fan"] == ("Unknown", "ClearedByOperator", "alpha")
    assert shown(api, "gpu-2")["Fan"][0] == "False"
    api.admin.ForgetProvider(admin_pb2.ForgetProviderRequest(provider_id="alpha"), timeout=10)
    assert restart().api().list().items == []


def test_served_at_once_and_ready_when_all_have_reported(restart: Callable[..., Server]) -> None:
    version = restart().api().register("gpu-0", "alpha").resource_version
    server = restart("--expect-provider=alpha")
    assert server.http("/readyz")[0] == 503
    consumer = server.api("consumer")
    listed = consumer.list()
    assert [g.metadata.name for g in listed.items] == ["gpu-0"]
    # Versions go on, so an old watch has to list again and a new one misses nothing.
    assert listed.items[0].resource_version > version
    assert consumer.watch(str(version)).ended().code() is grpc.StatusCode.OUT_OF_RANGE
    watch = consumer.watch(listed.metadata.resource_version)
    server.api().set("gpu-0", "Fan", "True", "alpha")
    assert watch.next().type == "MODIFIED"
    watch.cancel()
    assert server.http("/readyz") == (200, "ok\n")


def test_a_boot_clears_faults_and_the_order_to_boot(
    restart: Callable[..., Server], directory: Path
) -> None:
    server = restart()
    server.api().register("gpu-0", "alpha")
    advise(server.api(), "RESTART_BM")
    kill(server)
    with closing(sqlite3.connect(directory / "state" / "state.db")) as connection, connection:
        connection.execute("UPDATE boot SET boot_id = 'another'")
    api = restart().api()
    assert shown(api)["Xid"] == ("Unknown", "NodeRebooted", "beta")
    assert api.get("gpu-0").status.recommended_action == ""


def test_the_file_of_before_is_taken_over(restart: Callable[..., Server], directory: Path) -> None:
    (directory / "state").mkdir()
    ahead = time.time_ns() // 1_000 + 10**15
    with closing(sqlite3.connect(directory / "state" / "state.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE version (id INTEGER PRIMARY KEY CHECK (id = 1), ceiling INT)"
        )
        connection.execute("INSERT INTO version VALUES (1, ?)", (ahead,))
    server = restart()
    assert server.api().register("gpu-0", "alpha").resource_version > ahead
    assert "StateSetAside" not in {e.reason for e in server.api().events()}


def test_a_damaged_file_is_told_of_and_stops_nothing(
    restart: Callable[..., Server], directory: Path
) -> None:
    (directory / "state").mkdir()
    (directory / "state" / "state.db").write_bytes(b"no database" * 1_000)
    server = restart()
    server.said("was set aside as")
    assert "StateSetAside" in {e.reason for e in server.api().events()}
    server.api().register("gpu-0", "alpha")
    assert server.metric("state_healthy") == 1


# --- killed at any moment


class Recorder:
    """Clients that report one fault after the other, and remember what was acknowledged."""

    def __init__(self, server: Server, run: int, clients: int = 3) -> None:
        self.acknowledged: set[tuple[str, str]] = set()
        self._threads = [
            threading.Thread(target=self._report, args=(server.api(), f"gpu-{run}-{i}"))
            for i in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _report(self, api: Api, name: str) -> None:
        try:
            for number in range(10_000):
                gpu = f"{name}-{number // 60}"
                if number % 60 == 0:
                    api.register(gpu, "alpha")
                api.set(gpu, "Steady", "True", "alpha", message=str(number))
                api.set(gpu, f"Fan{number % 60}", "False", "alpha")
                self.acknowledged.add((gpu, f"Fan{number % 60}"))
        except grpc.RpcError:
            return

    def join(self) -> None:
        """The server is gone, and so are they."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def test_no_acknowledged_fault_is_lost_by_a_kill_at_a_random_moment(
    restart: Callable[..., Server],
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    acknowledged: set[tuple[str, str]] = set()
    server = restart()
    for run in range(4):
        recorder = Recorder(server, run)
        time.sleep(chance.uniform(0.05, 0.3))
        kill(server)
        recorder.join()
        acknowledged |= recorder.acknowledged
        server = restart()
        listed = server.api().list().items
        assert not [c for g in listed for c in g.status.conditions if c.status == "True"]
        faults = {
            (g.metadata.name, c.type)
            for g in listed
            for c in g.status.conditions
            if c.status == "False"
        }
        assert acknowledged <= faults, f"seed {seed}, run {run}: {acknowledged - faults}"
    assert len(acknowledged) > 30, f"seed {seed}: only {len(acknowledged)} faults"


# --- on any disk


@pytest.fixture
def disk(directory: Path) -> FaultyDisk:
    return FaultyDisk(directory / "control")


@pytest.fixture
def on_disk(
    restart: Callable[..., Server], directory: Path, disk: FaultyDisk
) -> Callable[[], Server]:
    """Starts a server whose memory is on the faulty disk."""
    return lambda: restart(env=disk.environment(directory / "state"))


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_a_disk_that_fails_or_is_slow_refuses_nothing_and_heals(
    on_disk: Callable[[], Server], disk: FaultyDisk
) -> None:
    server = on_disk()
    api = server.api()
    api.register("gpu-0", "alpha")
    faults = [
        ("WritesFull", Fault.FAIL_WRITES, errno.ENOSPC),
        ("SyncsFail", Fault.FAIL_SYNCS, errno.EIO),
        ("ReadOnly", Fault.FAIL_WRITES, errno.EROFS),
        ("Slow", Fault.DELAY_SYNCS, 3_000),
    ]
    for number, (type_, fault, value) in enumerate(faults, 1):
        disk.set(fault, value)
        assert seconds(lambda: api.set("gpu-0", type_, "False", "alpha")) < 2.5  # noqa: B023
        wait_for(lambda: server.metric("state_healthy") == 0)
        assert seconds(lambda: api.set("gpu-0", f"{type_}2", "False", "alpha")) < 0.9  # noqa: B023
        assert shown(server.api("consumer"))[f"{type_}2"][0] == "False"
        assert server.metric("state_late_acknowledgements_total") == 2 * number
        assert server.http("/livez") == (200, "ok\n")
        disk.set(Fault.SOUND)
        wait_for(lambda: server.metric("state_healthy") == 1)
    assert server.metric("state_write_failures_total") >= 3
    reasons = [e.reason for e in api.events()]
    assert reasons.count("StateNotWritten") == reasons.count("StateWritten") == len(faults)
    # A start on a disk that stalls takes a second longer and no more.
    disk.set(Fault.DELAY_SYNCS, 5_000)
    server = on_disk()
    types = shown(server.api())
    assert all(types[t + more][0] == "False" for t, _, _ in faults for more in ("", "2"))
    server.said("the disk takes more than 1 s")


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.05)


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    """A real disk of 256 KiB."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_real_disk_that_is_full_and_then_read_only(
    restart: Callable[..., Server], directory: Path
) -> None:
    state = directory / "state"
    with mounted(state):
        server = restart()
        api = server.api()
        api.register("gpu-0", "alpha")
        api.set("gpu-0", "Fan", "False", "alpha")
        for number in range(12):
            api.set("gpu-0", f"Pump{number}", "False", "alpha", message="x" * 30_000)
            api.register(f"gpu-{number}", "alpha")
            api.set(f"gpu-{number}", "Fan", "False", "alpha", message="x" * 30_000)
        server.said("the state cannot be written")
        assert status_of(api.get("gpu-11"), "Fan").status == "False"
        kill(server)
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        server = restart()
        assert shown(server.api())["Fan"][0] == "False"
        server.said("the state cannot be written")
        server.api().set("gpu-0", "Late", "False", "alpha")
        remount = ["mount", "-o", "remount,rw,size=64m", str(state)]
        subprocess.run(remount, check=True)
        server.said("written in time again")
        server.stop()
        with closing(sqlite3.connect(state / "state.db")) as connection:
            kept = connection.execute("SELECT status FROM conditions WHERE type = 'Late'")
            assert kept.fetchall() == [("False",)]


# --- plugins


async def test_a_plugin_is_given_what_it_said_before_and_is_kept_before_it_goes_on(
    run_daemon: Callable[..., Any], directory: Path
) -> None:
    settings = {"state_dir": str(directory / "state")}
    puppet = Puppet(types=("Fan", "Pump"), reboot_proof_types=("Pump",))
    running = await run_daemon(plugin(puppet), **settings)
    start = await puppet.started()

    def report(sink: Any) -> None:
        sink.register("gpu-0", GpuSpec())
        sink.set_condition("gpu-0", Condition("Fan", TRUE))
        sink.set_condition("gpu-0", Condition("Pump", FALSE, "Broken", "for good"))

    await start.do(report)
    with closing(sqlite3.connect(directory / "state" / "state.db")) as connection:
        kept = dict(connection.execute("SELECT type, status FROM conditions"))
    assert kept == {"Fan": "True", "Pump": "False"}
    await running.stop()

    again = Puppet(types=("Fan", "Pump"), reboot_proof_types=("Pump",))
    with closing(sqlite3.connect(directory / "state" / "state.db")) as connection, connection:
        connection.execute("UPDATE boot SET boot_id = 'another'")
    running = await run_daemon(plugin(again), **settings)
    start = await again.started()
    known = {c.type: c for c in (await start.do(lambda sink: sink.known()))["gpu-0"]}
    assert (known["Pump"].status, known["Pump"].message) == (FALSE, "for good")
    assert known["Fan"].reason == "ServerRestarted"
    # Silent before it has said anything: what it owns is in doubt already, and stays.
    assert not running.daemon.readiness.evaluate()
    await running.stop()


def update(*steps: provider_pb2.UpdateRequest) -> Iterator[provider_pb2.UpdateRequest]:
    yield provider_pb2.UpdateRequest(begin=provider_pb2.BeginUpdate(provider_id="alpha"))
    yield from steps


FAULT = provider_pb2.UpdateGpuConditionRequest(
    name="gpu-0", provider_id="alpha", condition=condition("Pump", "False")
)
HEALTHY = provider_pb2.UpdateGpuConditionRequest(
    name="gpu-0", provider_id="alpha", condition=condition("Pump", "True")
)
# How to write, by what has to be on the disk before it is acknowledged.
WRITES: dict[str, Callable[[AsyncApi], Any]] = {
    "a new GPU": lambda api: api.register("gpu-1", "alpha"),
    "a condition": lambda api: api.providers.UpdateGpuCondition(FAULT),
    "a status": lambda api: api.providers.UpdateGpuStatus(
        provider_pb2.UpdateGpuStatusRequest(
            name="gpu-0",
            provider_id="alpha",
            status=gpu_pb2.GpuStatus(conditions=[condition("Fan", "Unknown")]),
        )
    ),
    "a held update": lambda api: last(
        api.providers.Update(update(provider_pb2.UpdateRequest(condition=FAULT)))
    ),
    "a withdrawal": lambda api: api.providers.UnregisterGpu(
        provider_pb2.UnregisterGpuRequest(name="gpu-0", provider_id="alpha")
    ),
    "a removal": lambda api: api.providers.UnregisterGpu(
        provider_pb2.UnregisterGpuRequest(name="gpu-0")
    ),
    "a clear": lambda api: api.admin.ClearCondition(
        admin_pb2.ClearConditionRequest(gpu_name="gpu-0", type="Broken")
    ),
    "a provider's end": lambda api: api.admin.ForgetProvider(
        admin_pb2.ForgetProviderRequest(provider_id="alpha")
    ),
    "a GPU's end": lambda api: api.admin.ForgetGpu(admin_pb2.ForgetGpuRequest(name="gpu-0")),
}
NEED_NOT_WAIT: dict[str, Callable[[AsyncApi], Any]] = {
    "a heartbeat": lambda api: api.heartbeat("alpha"),
    "what is well": lambda api: api.providers.UpdateGpuCondition(HEALTHY),
    "what was said already": lambda api: api.set("gpu-0", "Fan", "True", "alpha"),
}


async def last(call: Any) -> Any:
    return [response async for response in call][-1]


@contextmanager
def busy(directory: Path) -> Iterator[None]:
    """Somebody else writes, so the server's commits have to wait."""
    path = directory / "state" / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_what_must_not_be_lost_is_acknowledged_last_and_nothing_else_waits(
    run_daemon: Callable[..., Any], directory: Path
) -> None:
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), state_dir=str(directory / "state"))
    start = await puppet.started()
    await start.do(lambda sink: (sink.register("gpu-p", GpuSpec()), sink.synced()))
    api = running.api()

    async def begin() -> None:
        await api.register("gpu-0", "alpha")
        await api.set("gpu-0", "Fan", "True", "alpha")
        await api.set("gpu-0", "Broken", "False", "alpha")

    for name, write in NEED_NOT_WAIT.items():
        await begin()
        with busy(directory):
            await asyncio.wait_for(write(api), 0.9), name
    for name, write in WRITES.items():
        await begin()
        with busy(directory):
            call = asyncio.ensure_future(write(api))
            await asyncio.sleep(0.1)
            assert not call.done(), name
        await asyncio.wait_for(call, 5)
    with busy(directory):
        said = start.order(lambda s: s.set_condition("gpu-p", Condition("PuppetHealthy", FALSE)))
        await asyncio.sleep(0.1)
        assert not said.done()
        assert {c.status for c in (await api.get("gpu-p")).status.conditions} == {"False"}
    await asyncio.wait_for(asyncio.wrap_future(said), 5)
    assert (
        running.registry.get_sample_value("device_api_server_state_late_acknowledgements_total")
        == 0
    )
    await running.stop()


async def test_a_provider_that_does_not_come_back_is_dropped_but_for_its_faults(
    run_daemon: Callable[..., Any], directory: Path
) -> None:
    settings = {"state_dir": str(directory / "state")}
    running = await run_daemon(**settings)
    api = running.api()
    await api.register("gpu-0", "alpha")
    await api.set("gpu-0", "Fan", "True", "alpha")
    await api.set("gpu-0", "Pump", "False", "alpha")
    await running.stop()
    running = await run_daemon(tuning=Tuning(), forget_lost_providers_after=0.2, **settings)
    api = running.api()
    async with asyncio.timeout(10):
        while len((await api.get("gpu-0")).status.conditions) > 2:
            await asyncio.sleep(0.02)
    assert {c.type for c in (await api.get("gpu-0")).status.conditions} == {"Ready", "Pump"}
    await running.stop()
