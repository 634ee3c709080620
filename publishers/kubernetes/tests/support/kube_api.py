"""The few calls of the Kubernetes API that the publisher makes, over TLS, with every fault."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

NODE = "node-7"
PATCH = "application/strategic-merge-patch+json"
SECONDS = 20.0


class KubeApi:
    """One Node and its Events. ``token`` is the only one accepted; each entry of ``faults`` is used
    for one request, ``for_all`` for all while it is set; ``requests`` are those of the present, as
    method and path."""

    def __init__(self, folder: Path) -> None:
        self.token = "first-token"
        self.token_file = folder / "token"
        self.ca_file = folder / "ca.crt"
        self.faults: deque[Fault] = deque()
        self.for_all: Fault | None = None
        self.node: dict[str, Any] = {
            "metadata": {"name": NODE, "uid": "uid-7"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.events: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.released = threading.Event()
        self._changed = threading.Condition()
        self.token_file.write_text(f"{self.token}\n")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.use(authority)
        self._server = _Server(self, self._tls)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self.options = {
            "node_name": NODE,
            "server": self.url,
            "token_file": str(self.token_file),
            "ca_file": str(self.ca_file),
        }

    @contextmanager
    def running(self) -> Iterator[KubeApi]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def use(self, authority: trustme.CA, name: str = "127.0.0.1") -> None:
        """A certificate of that authority from now on."""
        authority.issue_cert(name).configure_cert(self._tls)

    @property
    def condition(self) -> dict[str, Any]:
        """The Node's GPUHealthy, empty if there is none."""
        found = self.node["status"]["conditions"]
        return next((c for c in found if c["type"] == "GPUHealthy"), {})

    def wait_for(self, holds: Callable[[KubeApi], object], seconds: float = SECONDS) -> None:
        """Until that holds after a request."""
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self), seconds), (
                f"not in time: {self.condition}, {self.requests[-5:]}"
            )

    def answer(self, handler: Handler, body: dict[str, Any] | None) -> None:
        path = handler.path
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            handler.status(401, "Unauthorized")
        elif handler.command == "GET" and path == f"/api/v1/nodes/{NODE}":
            handler.reply(200, self.node)
        elif handler.command == "PATCH" and path == f"/api/v1/nodes/{NODE}/status":
            assert handler.headers["Content-Type"] == PATCH
            self._merge(body or {})
            handler.reply(200, self.node)
        elif handler.command == "POST" and path == "/api/v1/namespaces/default/events":
            assert handler.headers["Content-Type"] == "application/json"
            self._create(handler, body or {})
        else:
            handler.status(404, f'{path.rpartition("/")[2]} "{path}" not found')

    def note(self, request: str) -> None:
        with self._changed:
            self.requests.append(request)

    def done(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _merge(self, patch: dict[str, Any]) -> None:
        """Lists of conditions are merged by type."""
        assert set(patch) == {"status"}
        assert set(patch["status"]) == {"conditions"}
        kept = {c["type"]: c for c in self.node["status"]["conditions"]}
        for each in patch["status"]["conditions"]:
            kept[each["type"]] = kept.get(each["type"], {}) | each
        self.node["status"]["conditions"] = list(kept.values())

    def _create(self, handler: Handler, event: dict[str, Any]) -> None:
        name = event["metadata"]["name"]
        if name in self.events:
            handler.status(409, f'events "{name}" already exists', reason="AlreadyExists")
            return
        self.events[name] = event
        handler.reply(201, event)


Fault = Callable[["Handler", KubeApi], bool]
"""Does harm; returns whether the request is to be answered as well."""


def refuses(code: int, message: str = "no", **headers: str) -> Fault:
    """Answers with that status."""

    def fault(handler: Handler, _: KubeApi) -> bool:
        handler.status(code, message, headers=headers)
        return False

    return fault


def resets(handler: Handler, _: KubeApi) -> bool:
    """Ends the connection with a reset."""
    sock = handler.connection
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Neither shut down, which would be a good end, nor kept open by the handler's files.
    os.close(sock.detach())
    return False


def hangs(_: Handler, api: KubeApi) -> bool:
    """Says nothing until the test ends."""
    api.released.wait(SECONDS)
    return False


def swallows(handler: Handler, api: KubeApi) -> bool:
    """Does what is asked, and breaks off before it says so."""
    handler.mute = True
    api.answer(handler, handler.body)
    return resets(handler, api)


def drips(handler: Handler, _: KubeApi) -> bool:
    """Sends a long answer, a byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(1_000):
            handler.wfile.write(b"x")
            time.sleep(0.05)
    return False


def cuts(handler: Handler, _: KubeApi) -> bool:
    """Ends in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{}")
    handler.close_connection = True
    return False


def talks_without_end(handler: Handler, _: KubeApi) -> bool:
    """Sends an answer that is too long."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b"x" * 65_536)
    return False


def says(body: bytes, code: int = 200) -> Fault:
    """Answers with something else than JSON of an object."""

    def fault(handler: Handler, _: KubeApi) -> bool:
        handler.send_bytes(code, body)
        return False

    return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: KubeApi, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api
        self.tls = tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a client that does not shake hands holds up nobody.
        request.settimeout(SECONDS)
        with self.tls.wrap_socket(request, server_side=True) as wrapped:
            Handler(wrapped, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that do not trust it, or are cut off."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    mute = False
    body: dict[str, Any] | None = None

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = json.loads(self.rfile.read(length)) if length else None
        api = self.server.api
        api.note(f"{self.command} {self.path}")
        try:
            fault = api.faults.popleft() if api.faults else api.for_all
            if fault is None or fault(self, api):
                api.answer(self, self.body)
        finally:
            api.done()

    do_PATCH = do_POST = do_GET  # noqa: N815

    def reply(self, code: int, answer: object, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(code, json.dumps(answer).encode(), headers)

    def status(
        self, code: int, message: str, *, reason: str = "", headers: dict[str, str] | None = None
    ) -> None:
        answer = {"kind": "Status", "status": "Failure", "message": message, "code": code}
        self.reply(code, {**answer, "reason": reason}, headers)

    def send_bytes(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self.mute:
            return
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
