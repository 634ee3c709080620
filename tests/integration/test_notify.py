"""The server as a systemd service of Type=notify with a watchdog."""

import signal
import socket

import pytest

pytestmark = pytest.mark.once("it is about systemd")


def test_the_server_is_ready_when_it_serves_alive_while_it_lives_and_says_when_it_stops(
    start, directory
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(directory / "notify"))
        ear.settimeout(20)
        # Nobody reports, so it never gets ready to answer reads; it serves all the same.
        server = start(
            "--expect-provider=absent",
            "--shutdown-delay=1",
            env={"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "400000"},
        )

        def until(fact):
            facts = []
            while fact not in facts:
                facts += ear.recv(4096).decode().split("\n")
            return facts

        assert "STOPPING=1" not in until("READY=1")
        assert server.socket.is_socket()
        until("WATCHDOG=1")
        server.process.send_signal(signal.SIGTERM)
        assert "READY=1" not in until("STOPPING=1")
        assert "STATUS=stopping" not in until("WATCHDOG=1")  # also while it drains
        assert server.process.wait(20) == 0
