"""What survives: restarts of the bridge and of the daemon, kills, damage, full disks."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge._proto.health_event_pb2_grpc import PlatformConnectorStub
from device_api_nvsentinel_bridge.inbox import Entry
from device_api_nvsentinel_bridge.journal import FILE, Journal
from device_api_nvsentinel_bridge.ledger import Changes

from device_api_core.errors import SettingsError, Unavailable

from .conftest import FIRST, NODE, SECOND, TIMEOUT, RecordingSink, event, sample

XID = "SysLogsXIDError"
CHECKS = [f"C{i}" for i in range(8)]


@pytest.mark.parametrize("lose", [False, True])
def test_faults_and_health_survive_both_restarts(start, lose):
    bridge = start()
    bridge.send(sample("xid79"), sample("dbe"), sample("dbe_clear"), sample("dcgm_lost"))
    bridge.settle()
    before = {g: bridge.sink.statuses(g) for g in (FIRST, SECOND)}
    bridge.stop()
    again = start(bridge.sink.restarted(lose=lose))
    again.settle()
    assert {g: again.sink.statuses(g) for g in (FIRST, SECOND)} == before
    assert again.sink.get(FIRST, XID).reason == "Xid79"
    assert again.sink.actions[FIRST] == "RESTART_BM"
    again.send(sample("reset_done"))
    again.settle()
    assert again.sink.statuses(FIRST)[XID] == "True"
    assert again.sink.history.count((FIRST, f"nvsentinel.nvidia.com/{XID}", "True")) == 1


def test_an_event_accepted_while_the_daemon_hangs_is_applied_after_a_restart(start):
    bridge = start()
    with bridge.sink._changed:
        bridge.send(sample("xid79"))
        bridge.sink.closed = True
    bridge.stop()
    assert FIRST not in bridge.sink.state
    again = start(RecordingSink())
    again.settle()
    assert again.sink.statuses(FIRST)[XID] == "False"


def test_without_a_state_directory_it_says_so_and_trusts_the_daemons_memory(start, caplog):
    bridge = start(keep=False)
    assert "the server keeps no state" in caplog.text
    bridge.sink.wait(lambda s: "events are lost on restart" in s.summary)
    bridge.send(sample("xid79"), sample("dbe_clear"))
    bridge.settle()
    bridge.stop()
    again = start(bridge.sink.restarted(), keep=False)
    again.settle()
    # The False stays and the True has to be earned again.
    expected = {XID: "False", "GpuMemWatch": "Unknown", "*": "False"}
    assert again.sink.statuses(FIRST) == expected
    assert again.sink.get(FIRST, XID).reason == "Xid79"
    again.send(sample("reset_done"), sample("dbe_clear"))
    again.settle()
    assert again.sink.statuses(FIRST) == {XID: "True", "GpuMemWatch": "True", "*": "True"}


def test_what_the_daemon_remembers_under_an_altered_name_is_cleared_by_its_check(start):
    bridge = start(keep=False)
    bridge.send(event("XID_ERROR_48", gpu=FIRST, fatal=True))
    bridge.settle()
    bridge.stop()
    again = start(bridge.sink.restarted(), keep=False)
    again.send(event("XID_ERROR_48", gpu=FIRST, healthy=True, seconds=2000))
    again.settle()
    assert again.sink.statuses(FIRST) == {"XIDERROR48": "True", "*": "True"}


def test_after_a_boot_old_faults_are_in_doubt_until_nvsentinel_speaks(start):
    bridge = start()
    bridge.send(sample("xid79"), sample("dbe_clear"), sample("xid149"))
    bridge.settle()
    bridge.stop()
    sink = bridge.sink.restarted()
    for gpu in (FIRST, SECOND):
        for check in ("NVSentinelHealth", f"nvsentinel.nvidia.com/{XID}"):
            sink.set_aside(gpu, check, "NodeRebooted")
    again = start(sink)
    again.settle()
    assert again.sink.statuses(FIRST) == {XID: "Unknown", "GpuMemWatch": "True", "*": "Unknown"}
    assert again.sink.get(FIRST, XID).reason == "NodeRebooted"
    assert again.sink.actions[FIRST] == ""
    again.send(sample("xid79", generatedTimestamp="2026-07-14T10:00:00Z"))
    again.settle()
    assert again.sink.statuses(FIRST)["*"] == "False"
    again.send(sample("reboot", checkName=XID, generatedTimestamp="2026-07-14T11:00:00Z"))
    again.settle()
    assert again.sink.statuses(FIRST)["*"] == again.sink.statuses(SECOND)["*"] == "True"


def test_a_damaged_journal_is_set_aside_and_the_daemon_remembers(start, folder, caplog):
    bridge = start()
    bridge.send(sample("xid79"))
    bridge.settle()
    bridge.stop()
    (folder / "state" / FILE).write_bytes(b"not a database, but long enough to be looked at" * 50)
    again = start(bridge.sink.restarted())
    again.settle()
    assert again.sink.statuses(FIRST)[XID] == "False"
    assert "set it aside" in caplog.text
    assert (folder / "state" / f"{FILE}.damaged").exists()


def test_a_damaged_row_hides_no_other(start, folder):
    bridge = start()
    bridge.send(sample("xid79"), sample("xid149"))
    bridge.settle()
    bridge.stop()
    with sqlite3.connect(folder / "state" / FILE) as db:
        db.execute("UPDATE record SET body = '{' WHERE gpu = ?", (SECOND,))
        db.execute("INSERT INTO event VALUES (99, 1, x'ff')")
    db.close()
    again = start(RecordingSink())
    again.settle()
    assert again.sink.statuses(FIRST)[XID] == "False"


def test_a_journal_of_a_newer_version_is_left_alone(start, folder):
    (folder / "state").mkdir()
    db = sqlite3.connect(folder / "state" / FILE)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(SettingsError, match="newer version"):
        start()


def test_the_journal_is_for_its_user_only(start, folder):
    bridge = start()
    bridge.send(sample("xid79"))
    assert (folder / "state").stat().st_mode & 0o077 == 0
    assert (folder / "state" / FILE).stat().st_mode & 0o077 == 0


def test_a_disk_that_takes_nothing_means_no_event_is_accepted(folder):
    delivered: list[Entry] = []
    journal = Journal(str(folder), delivered.extend)
    journal._db.execute("PRAGMA max_page_count = 12")
    with pytest.raises(Unavailable, match="cannot be written"):  # noqa: PT012 - which one is open
        for _ in range(200):
            journal.append([event(text="x" * 1000)], 1)
    assert journal.failing
    assert 0 < len(delivered) < 200
    assert [e.number for e in delivered] == list(range(1, len(delivered) + 1))
    journal.save(Changes({}, [e.number for e in delivered]))
    journal.append([event()], 1)
    assert not journal.failing
    journal.close()
    reopened = Journal(str(folder), delivered.extend)
    assert len(reopened.load()[1]) == 1
    reopened.close()


@pytest.mark.parametrize("behaviour", ["applies", "hangs"])
@pytest.mark.parametrize("longest", [0.05, 0.4])
def test_nothing_accepted_is_lost_by_a_kill(start, folder, behaviour, longest):
    """Each check of each GPU alternates between fatal and healthy. Whatever the moment of the kill,
    the state afterwards is that of the last accepted event, or of the one that was on its way."""
    chance = random.Random()
    path, state = folder / "b.sock", folder / "state"
    script = Path(__file__).with_name("killed_bridge.py")
    arguments = [sys.executable, str(script), str(path), str(state), NODE, behaviour]
    child = subprocess.Popen([*arguments, FIRST, SECOND], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    killer = threading.Timer(chance.uniform(0.01, longest), child.send_signal, [signal.SIGKILL])
    accepted: dict[tuple[str, str], bool] = {}
    batch: list[pb.HealthEvent] = []
    try:
        assert child.stdout.readline() == "ready\n"
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = PlatformConnectorStub(channel)
            killer.start()
            moment = 0
            while True:
                batch = []
                for _ in range(chance.randint(1, 5)):
                    moment += 1
                    healthy = chance.random() < 0.5
                    key = chance.choice([FIRST, SECOND]), chance.choice(CHECKS)
                    made = event(
                        key[1], gpu=key[0], healthy=healthy, fatal=not healthy, seconds=moment
                    )
                    batch.append(made)
                try:
                    stub.HealthEventOccurredV1(pb.HealthEvents(events=batch), timeout=TIMEOUT)
                except grpc.RpcError:
                    break
                accepted |= _outcome(batch)
    finally:
        killer.cancel()
        child.kill()
        child.wait(TIMEOUT)
        child.stdout.close()
    bridge = start()
    bridge.settle()
    possible = accepted | _outcome(batch)
    shown = {
        (gpu, check): status == "True"
        for gpu in (FIRST, SECOND)
        for check, status in bridge.sink.statuses(gpu).items()
        if check != "*"
    }
    for key, healthy in accepted.items():
        assert shown[key] in (healthy, possible[key])
    assert shown.keys() <= possible.keys()
    # A batch is taken whole or not at all.
    assert shown in (accepted, possible)


def _outcome(batch: list[pb.HealthEvent]) -> dict[tuple[str, str], bool]:
    return {(e.entitiesImpacted[0].entityValue, e.checkName): e.isHealthy for e in batch}
