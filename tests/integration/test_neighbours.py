"""Clients of one unix socket beside one another: the h2 transport knows their processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from load import h2load, p99s
from process import Server
from wire import METHODS

if not os.environ.get("CI"):
    pytest.importorskip(
        "device_api_transport_h2._engine",
        reason="the h2 transport was not built: Python's C headers or libnghttp2 are missing",
        exc_type=ImportError,
    )

pytestmark = pytest.mark.once("its servers are on h2 already")

LIST = METHODS["ListGpus"]
ROUNDS = 5


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Server, Server]]:
    """Two servers on the h2 transport, of which one will be abused and the other will not."""
    with ExitStack() as stack:
        servers = []
        for _ in range(2):
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dapi-")))
            server = stack.enter_context(Server(path, "--transport=h2")).wait_serving()
            for number in range(8):
                server.api().register(f"gpu-{number}", "alpha")
            servers.append(server)
        yield servers[0], servers[1]
        for server in servers:
            assert server.stop() == 0
            assert not server.tracebacks, server.text


@pytest.mark.parametrize("method", [LIST, "/no.Such/Method"])
def test_a_process_does_not_starve_another_at_the_same_socket(
    pair: tuple[Server, Server], tmp_path: Path, method: str
) -> None:
    abused, quiet = pair
    beside_it, alone = abused.api("consumer"), quiet.api("consumer")
    found = []
    with h2load(abused.socket, method, tmp_path / "body"):
        p99s((beside_it.list, alone.list))
        # A shared machine stops processes for a while: by turns, and not only once.
        for _ in range(ROUNDS):
            found.append(p99s((beside_it.list, alone.list)))
            if found[-1][0] <= 3 * found[-1][1]:
                return
    pytest.fail(f"seconds beside a greedy process, and alone: {found}")
