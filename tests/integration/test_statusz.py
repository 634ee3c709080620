"""``/statusz``: what the page is given and when, who may look, and that nothing shown can act."""

import base64
import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from installed import Installed, good
from process import Server
from wire import condition

from device_api_core._proto import gpu_pb2
from device_api_core.server.statusz import MAX_VIEWERS

pytestmark = pytest.mark.once("no transport serves pages")

HOSTILE = "</script><img src=x onerror=alert(1)>\n\nevent: gpus\ndata: []\n\n\u2028\u202e"


class Viewer:
    """A client of the page's events."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=20)
        self._connection.request("GET", "/statusz/events")
        self.response = self._connection.getresponse()
        self.frames: list[bytes] = []

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def events(self) -> Iterator[tuple[str, Any]]:
        """Each event and its value, as they come."""
        while True:
            name, data, end = (self.response.readline() for _ in range(3))
            assert name.startswith(b"event: ")
            assert data.startswith(b"data: ")
            assert end == b"\n"
            self.frames.append(name + data)
            yield name[7:-1].decode(), json.loads(data[6:])

    def find(self, part: str, holds: Callable[[Any], bool] = lambda value: True) -> Any:
        """The first value of a part that satisfies ``holds``."""
        return next(value for name, value in self.events() if name == part and holds(value))


@pytest.fixture
def viewer(server: Server) -> Iterator[Viewer]:
    with Viewer(server.addresses["health"]) as opened:
        yield opened


def fetch(server: Server, path: str, method: str = "GET") -> tuple[int, Any, bytes]:
    """Status, headers, and the body unless it has no end."""
    connection = http.client.HTTPConnection(server.addresses["health"], timeout=10)
    with closing(connection):
        connection.request(method, path)
        with closing(connection.getresponse()) as answer:
            body = b"" if answer.chunked and method == "GET" else answer.read()
            return answer.status, answer.headers, body


def test_the_page_is_whole_and_lets_nothing_else_run(server: Server) -> None:
    _, headers, html = fetch(server, "/statusz")
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    for name, element in (("script-src", b"script"), ("style-src", b"style")):
        [content] = re.findall(b"<%s>(.*)</%s>" % (element, element), html, re.S)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert policy.pop(name) == f"'sha256-{digest}'"
    assert policy.pop("connect-src") == "'self'"
    assert policy.pop("img-src") == "data:"
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}
    text = html.decode()
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r'\son\w+="|\sstyle="|<form|<iframe', text)


def test_the_state_comes_at_once_and_changes_as_they_happen(server: Server, viewer: Viewer) -> None:
    api = server.api()
    assert abs(viewer.find("clock") - time.time() * 1_000) < 60_000
    spec = gpu_pb2.GpuSpec(uuid="GPU-77777777-0000-0000-0000-000000000000", index=7)
    api.register("gpu-7", "fan", spec=spec)
    api.set("gpu-7", "FanHealthy", "True", "fan")

    def mine(gpus: list[dict[str, Any]]) -> dict[str, Any]:
        return next((gpu for gpu in gpus if gpu["name"] == "gpu-7"), {})

    well = mine(viewer.find("gpus", lambda gpus: mine(gpus).get("health") == "True"))
    assert (well["index"], well["uuid"], well["owner"]) == (7, spec.uuid, "fan")
    assert (well["conditions"], well["doubted"]) == (1, [])
    bad = condition("FanHealthy", "False", reason="Stuck", message="it does not turn")
    api.set_status("gpu-7", bad, provider_id="fan", recommended_action="COMPONENT_RESET")
    sick = mine(viewer.find("gpus", lambda gpus: mine(gpus).get("health") == "False"))
    assert (sick["reason"], sick["message"]) == ("Stuck", "it does not turn")
    assert (sick["action"], sick["owner"]) == ("COMPONENT_RESET", "fan")
    assert abs(sick["since"] - time.time() * 1_000) < 60_000
    assert [c["type"] for c in sick["doubted"]] == ["FanHealthy"]
    [event] = [e for e in viewer.find("recent") if e["reason"] == "Stuck"]
    assert (event["gpu"], event["provider_id"], event["warning"]) == ("gpu-7", "fan", True)


def test_providers_are_shown_with_their_leases(server: Server, viewer: Viewer) -> None:
    api = server.api()
    api.heartbeat("leased")
    rows = viewer.find("providers", lambda rows: any(r["name"] == "leased" for r in rows))
    [row] = [r for r in rows if r["name"] == "leased"]
    assert (row["home"], row["state"], row["lease"], row["restarts"]) == (
        "remote",
        "running",
        60,
        0,
    )
    facts = viewer.find("server")
    assert facts["ready"]
    assert [most for name, _, most in facts["limits"] if name == "GPUs"] == [1_024]


def test_what_a_provider_says_stays_text(server: Server, viewer: Viewer) -> None:
    api = server.api()
    api.register("gpu-hostile", "evil")
    api.set("gpu-hostile", "Evil", "False", "evil", reason="R", message=HOSTILE)
    found = viewer.find("gpus", lambda gpus: any(g["message"] == HOSTILE for g in gpus))
    assert found
    assert all(frame.isascii() and frame.count(b"\n") == 2 for frame in viewer.frames)


def test_viewers_are_few_and_their_places_come_back(server: Server) -> None:
    address = server.addresses["health"]
    with ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(address)) for _ in range(MAX_VIEWERS)]
        for viewer in viewers:
            viewer.find("server")
        status, _, text = fetch(server, "/statusz/events")
        assert status == 503
        assert b"which is the limit" in text
        assert fetch(server, "/livez")[0] == 200
        assert fetch(server, "/statusz")[0] == 200
    ends = time.monotonic() + 10
    while fetch(server, "/statusz/events")[0] == 503:
        assert time.monotonic() < ends


@pytest.mark.parametrize("path", ["/statusz", "/statusz/events"])
def test_the_page_is_read_only(server: Server, path: str) -> None:
    assert fetch(server, path, "POST")[0] == 405
    status, _, body = fetch(server, path, "HEAD")
    assert (status, body) == (200, b"")


def test_looking_imports_no_plugin_that_does_not_run(
    start: Callable[..., Server], directory: Path
) -> None:
    installed = Installed(directory / "plugins").add("works", good("works"))
    imported = directory / "imported"
    installed.add("idle", f"import pathlib\npathlib.Path({str(imported)!r}).touch()\n")
    server = start("--provider=works", plugins=installed.directory).wait_serving()
    with Viewer(server.addresses["health"]) as viewer:
        rows = viewer.find("providers")
    assert [(r["name"], r["home"], r["package"]) for r in rows] == [
        ("works", "thread", "demo_works 1.2")
    ]
    assert not imported.exists()
    # The page is no reason to wait at the end.
    assert server.stop() == 0
