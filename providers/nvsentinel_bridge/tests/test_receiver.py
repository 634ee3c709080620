"""The door: sockets, tokens, what is no event, stopping, and how fast it answers."""

from __future__ import annotations

import socket
import stat
import statistics
import sys
import time
from pathlib import Path

import grpc
import pytest
from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.plugin import device_api_provider

from device_api_core.errors import SettingsError
from device_api_core.plugins import InvalidOption
from device_api_core.plugins.discovery import discover

from .conftest import FIRST, SECOND, RecordingSink, event, sample

BATCHES, BATCH = 200, 10


@pytest.fixture
def token(folder: Path) -> Path:
    path = folder / "token"
    path.write_text("s3cret\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_the_socket_has_its_permissions(start, mode):
    bridge = start(socket_mode=mode)
    found = Path(bridge.options.socket).stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == int(mode, 8)
    bridge.stop()
    assert not Path(bridge.options.socket).exists()


def test_a_stale_socket_is_taken_over(start, folder):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "b.sock"))
    bridge = start()
    bridge.send(sample("xid79"))


def test_a_live_socket_is_not_taken_over(start, folder):
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(folder / "b.sock"))
        alive.listen()
        with pytest.raises(SettingsError, match="another server answers"):
            start()


def test_a_file_is_not_taken_over(start, folder):
    (folder / "b.sock").write_text("precious", encoding="utf-8")
    with pytest.raises(SettingsError, match="is not a socket"):
        start()
    assert (folder / "b.sock").read_text(encoding="utf-8") == "precious"


def test_a_second_bridge_leaves_the_first_alone(start):
    first = start()
    with pytest.raises(SettingsError, match="another bridge"):
        start(keep=False)
    with pytest.raises(SettingsError, match="another bridge"):
        start(socket=first.options.socket + "2")
    first.send(sample("xid79"))


def test_a_path_that_is_too_long_is_refused(start, folder):
    with pytest.raises(SettingsError, match="too long"):
        start(socket=str(folder / ("x" * 120)))


def test_tcp_alone(start):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bridge = start(socket="", tcp_address=f"127.0.0.1:{port}")
    bridge.send(sample("xid79"))
    bridge.settle()
    assert bridge.sink.statuses(FIRST)["*"] == "False"


def test_an_address_in_use_is_refused(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="cannot listen"):
            start(tcp_address=f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize("given", [None, "", "wrong", "s3cret2"])
def test_without_the_token_nobody_gets_in(start, token, given, caplog):
    bridge = start(token_file=str(token))
    with pytest.raises(grpc.RpcError) as refused:
        bridge.send(sample("xid79"), token=given)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    bridge.sink.wait(lambda s: "unauthenticated 1" in s.summary)
    assert not bridge.sink.state
    assert "s3cret" not in caplog.text
    assert "s3cret" not in refused.value.details()


def test_the_token_may_be_replaced(start, token):
    bridge = start(token_file=str(token))
    bridge.send(sample("xid79"), token="s3cret")
    token.write_text("another", encoding="utf-8")
    bridge.send(sample("xid79"), token="another")
    with pytest.raises(grpc.RpcError):
        bridge.send(sample("xid79"), token="s3cret")
    token.unlink()
    with pytest.raises(grpc.RpcError) as refused:
        bridge.send(sample("xid79"), token="another")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("text", [None, " \n"])
def test_a_token_file_without_a_token_stops_the_start(start, folder, text):
    path = folder / "token"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="token file"):
        start(token_file=str(path))


@pytest.mark.parametrize(
    "request_", [b"\xff\xff\xff", b"\x12\x7f\x00", b"\x12\x04\x22\x02\xff\xfe"]
)
def test_what_is_no_message_is_refused_and_counted(start, request_):
    bridge = start()
    with pytest.raises(grpc.RpcError) as refused:
        bridge.send_bytes(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bridge.sink.wait(lambda s: "invalid 1" in s.summary)
    assert bridge.sink.counted("refused_calls") == {"invalid": 1}
    assert bridge.sink.counted("events") == {}
    bridge.send(sample("xid79"))


def test_empty_batches_and_unknown_fields_are_fine(start):
    bridge = start()
    bridge.send()
    bridge.send_bytes(b"")
    bridge.send_bytes(sample("xid79").SerializeToString()[:0] + b"\xfa\x7f\x01x")


def test_a_batch_that_is_too_large_is_refused(start):
    bridge = start()
    with pytest.raises(grpc.RpcError) as refused:
        bridge.send(event(text="x" * 5_000_000))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_daemon_that_hangs_makes_the_bridge_refuse_and_lose_nothing(start):
    bridge = start(backlog_limit=5)
    with bridge.sink._changed:
        bridge.send(event("C0", gpu=FIRST, fatal=True))
        accepted = 0
        with pytest.raises(grpc.RpcError) as refused:  # noqa: PT012 - which one is refused is open
            while accepted < 100:
                bridge.send(*(event(f"C{accepted}", gpu=FIRST, fatal=True) for _ in range(3)))
                accepted += 1
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert accepted <= 4
    bridge.sink.wait(lambda s: f"C{accepted - 1}" in s.statuses(FIRST))


def test_stopping_is_prompt(start):
    bridge = start()
    bridge.send(sample("xid79"))
    assert bridge.stop() < 2
    assert bridge.failure is None


def test_a_closed_sink_ends_the_run(start):
    bridge = start()
    bridge.sink.close()
    bridge._thread.join(10)
    assert not bridge._thread.is_alive()
    assert bridge.failure is None


def test_options_are_strict(folder):
    assert BridgeOptions().node == socket.gethostname().casefold()
    for wrong in (
        {"socket": ""},
        {"socket_mode": "0666"},
        {"pending_limit": 0},
        {"sokcet": "x"},
        {"ignored_checks": "GpuMemWatch"},
    ):
        with pytest.raises(InvalidOption):
            device_api_provider(wrong, str(folder))


def test_the_daemon_finds_the_plugin():
    [plugin] = [p for p in discover() if p.name == "nvsentinel"]
    assert not plugin.error
    assert plugin.provider.types == ("NVSentinelHealth", "nvsentinel.nvidia.com/*")


def test_a_thousand_events_a_second(start):
    bridge = start()
    seconds = []
    due = time.monotonic()
    for i in range(BATCHES):
        batch = [
            event(
                f"C{n}",
                gpu=(FIRST, SECOND)[i % 2],
                codes=[] if i % 3 == 1 else [str(i % 7)],
                fatal=i % 3 == 0,
                healthy=i % 3 == 1,
                seconds=i + 1,
                text="x" * 150,
            )
            for n in range(BATCH)
        ]
        due += BATCH / 1000
        time.sleep(max(0.0, due - time.monotonic()))  # the pace is what is measured
        began = time.monotonic()
        bridge.send(*batch)
        seconds.append(time.monotonic() - began)
    bridge.settle()
    cuts = statistics.quantiles(seconds, n=100)
    figures = f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"
    sys.stdout.write(f"answers at 1,000 events/s: {figures}; {bridge.sink.writes} reports\n")
    expected = {0: "False", 1: "True"}
    for index, gpu in ((BATCHES - 2, FIRST), (BATCHES - 1, SECOND)):
        wanted = expected.get(index % 3)
        assert wanted is None or bridge.sink.statuses(gpu)["C0"] == wanted


def test_a_sink_that_refuses_all_reports_does_not_stop_the_door(start):
    sink = RecordingSink()
    sink.refusing = True
    bridge = start(sink)
    for _ in range(20):
        bridge.send(sample("xid79"))
    bridge.sink.wait(lambda s: "accepted 20" in s.summary)
