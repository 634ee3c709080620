"""What the transport promises beyond the protocol: sockets, slow and silent clients, the end."""

from __future__ import annotations

import asyncio
import re
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from device_api_transport_h2 import H2Transport, calls, line
from hyperframe.frame import RstStreamFrame
from raw import CANCEL, NO_ERROR, Raw, grpc_frame, headers_of

from device_api_core.errors import LimitExceeded, SettingsError
from device_api_core.metrics import Metrics
from device_api_core.server.tls import TlsFiles
from device_api_core.server.transport import Face, load_transport

CONNECT_SOON = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
ECHO, WAIT, WATCH, TALK = (f"/t.S/{name}" for name in ("Echo", "Wait", "Watch", "Talk"))


async def settled(condition):
    """Let the loop turn until it holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def listen(served, **face):
    metrics = Metrics(version="1", node="n")
    return H2Transport().listen(Face(served.service.methods, **face), metrics)


UNUSED = {
    *("grpc", "prometheus_client", "wsgiref", "hashlib", "sqlite3", "tomllib", "pickle"),
    *("ssl", "_ssl", "asyncio.sslproto", "email", "zipfile", "importlib.metadata", "h11"),
    *("click", "ast", "dis", "platform", "gettext", "ipaddress"),
    *("tempfile", "shutil", "random", "bz2", "lzma", "importlib.resources", "base64"),
    *("google.protobuf.text_format", "google.protobuf.internal.python_message"),
}
"""What only TLS, a scrape, a state directory or nobody at all needs: half as much memory again as a
server at rest has. Imports by name of module are not listed, so inspect is here as ast and dis."""


def test_a_server_with_it_loads_nothing_that_a_call_does_not_use(tmp_path):
    socket, log = f"{tmp_path}/d.sock", tmp_path / "log"
    start = "from device_api_core.cli.start import main; main()"
    flags = f"--transport h2 --unix-socket {socket} --provider-socket= --grpc-address="
    flags += " --health-port 0 --metrics-port 0 --shutdown-delay 0"
    command = [sys.executable, "-X", "importtime", "-c", start, *flags.split()]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, stderr=stderr) as server,
        grpc.insecure_channel(f"unix:{socket}", CONNECT_SOON) as channel,
    ):
        listing = channel.unary_unary("/nvidia.device.v1alpha1.GpuService/ListGpus")
        assert listing(b"", wait_for_ready=True, timeout=20)
        server.terminate()
        assert server.wait(20) == 0
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", log.read_text(), re.MULTILINE))
    assert {"asyncio.base_events", "device_api_transport_h2._engine"} < imported
    assert sorted(UNUSED & imported) == []


def test_it_is_found_by_its_name():
    assert isinstance(load_transport("h2"), H2Transport)


async def test_the_socket_has_its_mode_and_goes_with_the_server(served):
    assert stat.S_IMODE(Path(served.socket).stat().st_mode) == 0o600
    await served.listening.stop(0)
    assert not Path(served.socket).exists()


async def test_a_socket_that_is_served_already(served):
    with pytest.raises(SettingsError, match="another server"):
        await listen(served, unix_socket=served.socket)
    raw = await served.raw()
    raw.call(1, ECHO, b"x")
    assert (await raw.answer(1)).status == "0"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
async def test_loopback_is_served(served, address):
    listening = await listen(served, tcp_address=address)
    host = "::1" if ":" in address.rpartition(":")[0] else "127.0.0.1"
    raw = Raw(*await asyncio.open_connection(host, listening.tcp_port))
    raw.greet()
    raw.call(1, ECHO, b"x")
    assert (await raw.answer(1)).status == "0"
    await raw.close()
    await listening.stop(0.5)


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":0", "10.0.0.1:0", "[::]:0", "node.local:0"])
async def test_nothing_beyond_the_node_is(served, address):
    with pytest.raises(SettingsError, match="use --transport grpcio"):
        await listen(served, tcp_address=address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536"])
async def test_an_address_that_is_none(served, address):
    with pytest.raises(SettingsError, match="HOST:PORT"):
        await listen(served, tcp_address=address)


async def test_a_port_in_use(served):
    first = await listen(served, tcp_address="127.0.0.1:0")
    with pytest.raises(SettingsError, match="in use"):
        await listen(served, tcp_address=f"127.0.0.1:{first.tcp_port}")
    await first.stop(0)


async def test_a_client_that_says_nothing_is_sent_away(served, monkeypatch):
    monkeypatch.setattr(line, "_GREETING_SECONDS", 0.02)
    raw = await served.raw(greet=False)
    await raw.end()


async def test_a_client_too_many_is_sent_away(served, caplog):
    await served.listen(max_connections=1)
    raw = await served.raw()
    raw.say(raw.headers(1, headers_of(TALK)), raw.data(1, grpc_frame(b"x")))
    await raw.message(1)
    second = await served.raw()
    await second.end()
    assert "connections refused" in caplog.text
    raw.say(raw.data(1, b"", "END_STREAM"))
    assert (await raw.answer(1)).status == "0"
    await raw.close()
    await settled(lambda: not served.listening.connections)
    third = await served.raw()
    third.call(1, ECHO, b"x")
    assert (await third.answer(1)).status == "0"


async def test_a_slow_watcher_is_freed_at_once_and_reset_later(served, monkeypatch):
    monkeypatch.setattr(calls, "_UNSENT_SECONDS", 0.02)
    raw = await served.raw(window=7)
    raw.call(1, WATCH, b"initial")
    await settled(lambda: served.service.hub.active == 1)
    raw.credit = False
    while len(raw.answers.setdefault(1, raw.blank()).data) < 7:
        await raw.frame()
    for version in range(1, 20_000):
        served.service.hub.publish(version, b"x" * 1_000)
        if not served.service.hub.active:
            break
        if version % 10 == 0:
            await asyncio.sleep(0)
    assert served.service.hub.ended_slow == 1
    # Its first message is half sent, so that no status can follow it.
    assert (await raw.answer(1)).reset is not None


async def test_a_slow_watcher_that_reads_again_is_told(served):
    raw = await served.raw(window=0)
    raw.call(1, WATCH, b"initial")
    await settled(lambda: served.service.hub.active == 1)
    served.service.hub.close(LimitExceeded("too slow", reason="slow-watcher"))
    answer = await raw.answer(1)
    assert (answer.data, answer.status) == (b"", "8")
    assert answer.trailers["device-api-reason"] == "slow-watcher"


async def test_answers_that_are_not_read_do_not_pile_up(served, raw):
    body = bytes(60_000)
    raw.pause()
    for number in range(400):
        raw.call(2 * number + 1, "/t.S/Big", b"60000")
        await asyncio.sleep(0)
    await settled(lambda: raw.unsent == 0)
    raw.resume()
    answers = [await raw.answer(2 * number + 1) for number in range(400)]
    whole = [a for a in answers if a.status == "0"]
    assert all(a.messages == [body] for a in whole)
    assert 8_388_608 <= len(whole) * len(body) < 9_000_000
    assert {a.status for a in answers if a not in whole} == {"8"}
    raw.call(801, ECHO, b"who reads is served again")
    assert (await raw.answer(801)).status == "0"


async def test_requests_that_are_not_finished_do_not_pile_up(served, raw):
    half = grpc_frame(bytes(100_000))[:60_000]
    for number in range(200):
        raw.say(raw.headers(2 * number + 1, headers_of(ECHO)))
        await raw.upload(2 * number + 1, half, end=False)
    refused = await raw.answer(2 * 150 + 1)
    assert refused.status == "8"
    assert raw.answers.get(1) is None
    for number in range(140):
        raw.say(RstStreamFrame(2 * number + 1, CANCEL))
    raw.call(801, ECHO, b"there is room again")
    assert (await raw.answer(801)).status == "0"


async def test_a_client_that_asks_without_pause_takes_turns(served, raw):
    other = await served.raw()
    greedy = [raw.headers(2 * n + 1, headers_of(ECHO)) for n in range(2_000)]
    for n, headers in enumerate(greedy):
        raw.say(headers, raw.data(2 * n + 1, grpc_frame(b"x"), "END_STREAM"))
    other.call(1, ECHO, b"y")
    await other.answer(1)
    await raw.frame()
    # The modest one was answered long before the greedy one had everything.
    assert len([a for a in raw.answers.values() if a.over]) < 1_000


# --- the end


async def test_calls_that_run_may_end_and_new_ones_are_refused(served, raw):
    raw.call(1, WAIT, b"x")
    await settled(lambda: served.service.waiting == 1)
    stopping = asyncio.ensure_future(served.listening.stop(5))
    while raw.goaway is None or raw.goaway.last_stream_id != 1:
        assert await raw.frame() is not None
    assert raw.goaway.error_code == NO_ERROR
    raw.call(3, ECHO, b"too late")
    served.service.let.set()
    assert (await raw.answer(1)).messages == [b"x"]
    await raw.end()
    assert 3 not in raw.answers
    await stopping


async def test_an_idle_connection_ends_at_once(served, raw):
    await raw.frame()
    async with asyncio.timeout(2):
        await served.listening.stop(30)
    await raw.end()


async def test_a_call_that_does_not_end_is_cut_off(served, raw):
    raw.call(1, WAIT, b"x")
    raw.say(raw.headers(3, headers_of(TALK)))
    await settled(lambda: served.service.waiting == 1)
    await served.listening.stop(0.05)
    assert served.service.cancelled == 1
    assert served.service.ended == ["broken"]
    await raw.end()


async def test_it_does_not_serve_in_plain_what_was_to_be_encrypted(served):
    with pytest.raises(SettingsError, match="transport h2 speaks no TLS"):
        await listen(served, tcp_address="127.0.0.1:0", tls=TlsFiles("cert", "key"))
