"""Watches: every change once and in order, or an error that says otherwise."""

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from inside import AsyncApi, until
from wire import Api, reason_of, status_of

from device_api_core.daemon import Tuning


def shape(event: Any) -> tuple[str, str, int]:
    return event.type, event.object.metadata.name, event.object.resource_version


async def failure(watch: Any) -> grpc.aio.AioRpcError:
    """Read to the end; returns the error that ended it."""
    try:
        while True:
            assert await watch.read() is not grpc.aio.EOF
    except grpc.aio.AioRpcError as error:
        return error


def test_the_snapshot_comes_first_and_then_every_change(api: Api) -> None:
    first = api.register("snap-1", "alpha").resource_version
    second = api.register("snap-2", "alpha").resource_version
    watch = api.watch()
    snapshot = watch.until(second)
    assert {("ADDED", "snap-1", first), ("ADDED", "snap-2", second)} <= {*map(shape, snapshot)}
    changed = api.set("snap-1", "Fan", "True", "alpha")
    api.set("snap-1", "Fan", "True", "alpha")  # changes nothing, so nothing is sent
    merged = api.register("snap-2", "beta", spec={"index": 3}).resource_version
    api.unregister("snap-2")
    assert [shape(e) for e in watch.take(2)] == [
        ("MODIFIED", "snap-1", changed),
        ("MODIFIED", "snap-2", merged),
    ]
    gone = watch.next()
    assert shape(gone) == ("DELETED", "snap-2", merged + 1)
    assert gone.object.spec.index == 3
    watch.cancel()


@pytest.mark.parametrize("version", ["", "0"])
def test_no_version_means_from_the_current_state(api: Api, version: str) -> None:
    api.register("now-1", "alpha")
    watch = api.watch(version)
    assert watch.next().type == "ADDED"
    watch.cancel()


def test_a_version_gives_exactly_the_later_changes(api: Api) -> None:
    api.register("res-1", "alpha")
    since = api.list().metadata.resource_version
    versions = [api.set("res-1", "Fan", "True", "alpha", message=str(i)) for i in range(20)]
    watch = api.watch(since)
    assert [e.object.resource_version for e in watch.take(20)] == versions
    middle = api.watch(str(versions[9]))
    assert [e.object.resource_version for e in middle.take(10)] == versions[10:]
    newest = api.watch(str(versions[-1]))
    last = api.set("res-1", "Fan", "False", "alpha")
    assert newest.next().object.resource_version == last
    for each in (watch, middle, newest):
        each.cancel()


def test_versions_of_another_life_are_out_of_range(api: Api) -> None:
    newer = str(int(api.list().metadata.resource_version) + 1_000_000)
    for version, word in (("1", "older"), (newer, "newer"), (str(2**63 - 1), "newer")):
        error = api.watch(version).ended()
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
        assert word in error.details()
        assert "list again" in error.details()


async def test_a_version_older_than_the_history_is_out_of_range(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=Tuning(history_events=10))
    api = running.api()
    first = await api.register("a", "alpha")
    versions = [await api.set("a", "Fan", "True", "alpha", message=str(i)) for i in range(10)]
    watch = api.watch(str(first))
    assert (await watch.read()).object.resource_version == versions[0]
    watch.cancel()
    await api.set("a", "Fan", "False", "alpha")
    error = await failure(api.watch(str(first)))
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_bookmarks_come_after_silence_if_they_are_allowed(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=Tuning(bookmark_seconds=0.1))
    api = running.api()
    version = await api.register("a", "alpha")
    plain, marked = api.watch(), api.watch(allow_watch_bookmarks=True)
    assert shape(await marked.read()) == ("ADDED", "a", version)
    bookmark = await marked.read()
    assert bookmark.type == "BOOKMARK"
    assert bookmark.object.metadata.resource_version == str(version)
    bookmark.object.metadata.ClearField("resource_version")
    assert not bookmark.object.ByteSize() - 2  # nothing but the empty metadata
    assert shape(await plain.read()) == ("ADDED", "a", version)
    changed = await api.set("a", "Fan", "True", "alpha")
    assert (await marked.read()).type in {"BOOKMARK", "MODIFIED"}
    assert shape(await plain.read()) == ("MODIFIED", "a", changed)
    resumed = api.watch(bookmark.object.metadata.resource_version or str(version))
    assert shape(await resumed.read()) == ("MODIFIED", "a", changed)
    for each in (plain, marked, resumed):
        each.cancel()


async def test_a_bookmark_marks_the_end_of_the_initial_state(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon()
    api = running.api()
    empty = api.watch(allow_watch_bookmarks=True, send_initial_events=True)
    assert (await empty.read()).type == "BOOKMARK"
    for name in ("a", "b"):
        version = await api.register(name, "alpha")
    watch = api.watch(allow_watch_bookmarks=True, send_initial_events=True)
    events = [await watch.read() for _ in range(3)]
    assert [e.type for e in events] == ["ADDED", "ADDED", "BOOKMARK"]
    assert events[2].object.metadata.resource_version == str(version)
    without = api.watch(send_initial_events=True)
    assert [(await without.read()).type for _ in range(2)] == ["ADDED", "ADDED"]
    await api.set("a", "Fan", "True", "alpha")
    assert (await without.read()).type == "MODIFIED"
    for each in (empty, watch, without):
        each.cancel()


async def open_and_not_read(running: Any) -> tuple[AsyncApi, Any]:
    """A watch whose client takes the headers and then nothing: flow control stops the server."""
    api = running.api("consumer", ("grpc.http2.lookahead_bytes", 1_024))
    watch = api.watch()
    assert (await watch.read()).type == "ADDED"
    return api, watch


async def test_a_slow_watcher_is_ended_and_everybody_else_gets_everything(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=Tuning(queue_events=64))
    hub_active = lambda: running.registry.get_sample_value(  # noqa: E731
        "device_api_server_watch_streams_active"
    )
    api = running.api()
    await api.register("a", "alpha")
    _, slow = await open_and_not_read(running)
    fast = running.api("consumer").watch()
    assert (await fast.read()).type == "ADDED"
    assert hub_active() == 2
    sent, received = [], []

    async def write() -> None:
        # Until the slow one's windows and queue are full.
        while hub_active() == 2:
            text = f"{len(sent)}-{'x' * 20_000}"
            sent.append(await api.set("a", "Fan", "False", "alpha", message=text))
            assert len(sent) < 3_000
        # Freed at once: the client has not read a byte meanwhile.
        assert hub_active() == 1
        sent.append(await api.set("a", "Fan", "True", "alpha"))

    async def read() -> None:
        recovered = False
        while not recovered:
            gpu = (await fast.read()).object
            received.append(gpu.resource_version)
            recovered = status_of(gpu, "Fan").status == "True"

    writing = asyncio.ensure_future(write())
    reading = asyncio.ensure_future(read())
    await writing
    await asyncio.wait_for(reading, 20)
    assert received == sent
    error = await asyncio.wait_for(failure(slow), 20)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(error) == "slow-watcher"
    assert "list again" in error.details()
    ended = running.registry.get_sample_value("device_api_server_watches_ended_slow_total")
    assert ended == 1
    fast.cancel()


async def test_a_slow_watcher_that_never_reads_leaves_no_task_behind(
    run_daemon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_api_core.server.handlers._ABORT_SECONDS", 0.3)
    running = await run_daemon(tuning=Tuning(queue_events=8))
    # The h2 transport has no task per watch to begin with.
    h2 = sys.modules.get("device_api_transport_h2.calls")
    if h2 is not None:
        monkeypatch.setattr(h2, "_UNSENT_SECONDS", 0.3)
    api = running.api()
    await api.register("a", "alpha")
    slow = [(await open_and_not_read(running))[1] for _ in range(3)]
    tasks = len(asyncio.all_tasks())
    hub = running.daemon._hub
    for i in range(2_000):
        await api.set("a", "Fan", "False", "alpha", message=f"{i}-{'x' * 20_000}")
        if not hub.active:
            break
    assert hub.active == 0
    await until(lambda: len(asyncio.all_tasks()) <= tasks - (0 if h2 else 3), 5)
    for watch in slow:
        # Late, but it is told: never an end that looks like a good one.
        error = await asyncio.wait_for(failure(watch), 10)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_where_more_may_watch_a_client_has_a_larger_part(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(max_watches=2_400, grpc_address="127.0.0.1:0")
    await running.api().register("a", "alpha")
    api = AsyncApi(f"127.0.0.1:{running.addresses.tcp_port}")
    watches = [api.watch() for _ in range(614)]
    await until(lambda: running.daemon._hub.active == len(watches))
    error = await failure(api.watch())
    assert error.details() == "all 614 streams of one client are in use"
    await api.close()


async def test_a_vanished_client_frees_its_slot(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon(max_watches=2)
    api = running.api()
    await api.register("a", "alpha")
    for how in ("cancel", "close"):
        guest = running.api("consumer")
        watches = [guest.watch(), guest.watch()]
        for watch in watches:
            await watch.read()
        error = await failure(api.watch())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "watcher-limit"
        if how == "cancel":
            for watch in watches:
                watch.cancel()
        else:
            await guest.close()
        await until(lambda: running.daemon._hub.active == 0)
    deadline = api.watch(timeout=0.2)
    assert (await deadline.read()).type == "ADDED"
    assert (await failure(deadline)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: running.daemon._hub.active == 0)


async def test_clients_that_vanish_while_events_flow_are_no_defect(
    run_daemon: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    running = await run_daemon()
    api = running.api()
    await api.register("a", "alpha")
    stop = asyncio.Event()

    async def write() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            await api.set("a", "Fan", "False", "alpha", message=f"{i}-{'x' * 5_000}")

    async def visit(i: int) -> None:
        guest = running.api("consumer")
        for _ in range(8):
            watch = guest.watch()
            for _ in range(i % 7 + 1):
                await watch.read()
            watch.cancel()
        watch = guest.watch()
        await watch.read()
        await guest.close()

    writing = asyncio.ensure_future(write())
    await asyncio.gather(*(visit(i) for i in range(16)))
    stop.set()
    await writing
    await until(lambda: running.daemon._hub.active == 0)
    assert not [r for r in caplog.records if "failed" in r.getMessage() or r.exc_info]
    registry = running.registry
    labels = {"method": "WatchGpus", "code": "INTERNAL"}
    assert not registry.get_sample_value("device_api_server_grpc_requests_total", labels)
    labels["code"] = "CANCELLED"
    assert registry.get_sample_value("device_api_server_grpc_requests_total", labels) == 16 * 9


def test_every_watcher_sees_the_order_of_writes_under_concurrent_writers(api: Api) -> None:
    names = [f"order-{i}" for i in range(4)]
    for name in names:
        api.register(name, "alpha")
    since = api.list().metadata.resource_version
    watches = [api.watch(since) for _ in range(5)]
    acknowledged: list[int] = []

    def write(index: int) -> None:
        for i in range(50):
            version = api.set(names[i % 4], f"Type{index}", "True", f"w{index}", message=str(i))
            acknowledged.append(version)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for writer in writers:
        writer.start()
    streams = [[e.object.resource_version for e in w.take(300)] for w in watches]
    for writer in writers:
        writer.join()
    assert streams == [sorted(acknowledged)] * 5
    for watch in watches:
        watch.cancel()


async def test_a_thousand_watchers_get_one_change(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon()
    api = running.api()
    await api.register("a", "alpha")
    guest = running.api("consumer")
    watches = [guest.watch() for _ in range(1_000)]
    await asyncio.gather(*(watch.read() for watch in watches))
    version = await api.set("a", "Fan", "False", "alpha")
    events = await asyncio.gather(*(watch.read() for watch in watches))
    assert {e.object.resource_version for e in events} == {version}
    for watch in watches:
        watch.cancel()
