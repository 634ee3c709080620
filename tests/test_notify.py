"""What systemd hears, through a real socket of its kind."""

import asyncio
import os
import secrets
import socket

import pytest

from device_api_core.notify import ServiceNotifier


@pytest.fixture(params=["a file", "an abstract address"])
def systemd(request, tmp_path):
    """The socket a service manager listens on, and its address as systemd writes it."""
    address = str(tmp_path / "notify")
    if request.param == "an abstract address":
        address = f"@device-api-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address.replace("@", "\0"))
        ear.settimeout(20)
        yield ear, address


def heard(ear):
    return ear.recv(4096).decode().split("\n")


def test_facts_arrive_as_lines_of_one_datagram(systemd):
    ear, address = systemd
    ServiceNotifier({"NOTIFY_SOCKET": address}).tell(READY=1, STATUS="serving")
    assert heard(ear) == ["READY=1", "STATUS=serving"]


def test_signs_of_life_come_from_the_loop_twice_as_often_as_asked_for(systemd, virtual_loop):
    ear, address = systemd
    notifier = ServiceNotifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})

    async def live():
        async with notifier.watched():
            await asyncio.sleep(4)

    virtual_loop.run_until_complete(live())
    ear.setblocking(False)
    assert [heard(ear) for _ in range(3)] == [["WATCHDOG=1"]] * 3
    virtual_loop.advance(60)  # outside there are none
    with pytest.raises(BlockingIOError):
        heard(ear)


def test_no_child_can_speak_for_the_daemon(systemd):
    _, address = systemd
    environment = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    assert ServiceNotifier(environment).watchdog_seconds == 3.0
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"},
    ],
    ids=["nobody listens", "no socket", "meant for another process", "no number"],
)
def test_without_a_watchdog_there_are_no_signs_of_life(environment):
    assert ServiceNotifier(environment).watchdog_seconds == 0


def test_a_manager_that_is_gone_is_logged_and_stops_nothing(tmp_path, caplog):
    ServiceNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)
    assert [record.error for record in caplog.records] == ["No such file or directory"]


def test_a_manager_that_does_not_read_cannot_hold_the_daemon_up(systemd, caplog):
    _, address = systemd
    notifier = ServiceNotifier({"NOTIFY_SOCKET": address})
    while not caplog.records:
        notifier.tell(WATCHDOG=1)
    assert caplog.records[0].error == "Resource temporarily unavailable"
