"""The few calls of the Kubernetes API that are needed, whose every way to go wrong is a
:class:`~device_api_core.errors.PublishFailed` that says what to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3

from device_api_core.errors import PublishFailed
from device_api_kubernetes import __version__
from device_api_kubernetes.failures import CONNECT_SECONDS, SAID_BYTES, explained
from device_api_kubernetes.texts import plain

NAMESPACE = "default"
"""Where Events about Nodes, which have no namespace, belong."""

READ_SECONDS = 10.0
"""The longest silence in the middle of a call."""
WHOLE_SECONDS = 20.0
"""The longest that an answer may take to come."""
_MAX_BODY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_HEADERS = {
    "Accept": "application/json",
    # A compressed answer could be small on the wire and endless in memory.
    "Accept-Encoding": "identity",
    "User-Agent": f"device-api-kubernetes/{__version__}",
}
_PATCH = "application/strategic-merge-patch+json"
_TOKEN = re.compile(rb"[\x21-\x7e]+")


class Conflicting(PublishFailed):
    """An object of that name exists, or it was changed meanwhile."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What RBAC has to allow for a call."""

    verb: str
    resource: str
    role: str

    def __str__(self) -> str:
        return f"{self.verb} of {self.resource} by {self.role}"


_GET_NODE = _Rule("get", "nodes", "a ClusterRole")
_PATCH_STATUS = _Rule("patch", "nodes/status", "a ClusterRole")
_CREATE_EVENT = _Rule("create", "events", f"a Role in namespace {NAMESPACE}")


class ApiServer:
    """One API server, as one service account."""

    def __init__(
        self,
        url: str,
        *,
        token_file: str,
        ca_file: str,
        read_seconds: float = READ_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self.url = url
        self.token_file = token_file
        self.ca_file = ca_file
        self.timeouts = (CONNECT_SECONDS, read_seconds)
        self.whole_seconds = whole_seconds

    def __repr__(self) -> str:
        return f"<ApiServer {self.url}>"

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """For the calls of one publication: connections are kept among them and not beyond, for
        authorities are renewed, too."""
        with requests.Session() as session:
            # Neither proxies nor .netrc of the environment: what is not configured is not used.
            session.trust_env = False
            session.headers.update(_HEADERS)
            session.verify = self.ca_file
            yield Connection(self, session)


class Connection:
    """Calls of one API server."""

    def __init__(self, server: ApiServer, session: requests.Session) -> None:
        self._server = server
        self._session = session

    def node(self, name: str) -> dict[str, Any]:
        """The Node."""
        return self._call("GET", f"/api/v1/nodes/{name}", _GET_NODE, name)

    def set_condition(self, name: str, condition: Mapping[str, str]) -> None:
        """Put one condition into the Node's status; the others stay as they are."""
        patch = {"status": {"conditions": [condition]}}
        path = f"/api/v1/nodes/{name}/status"
        try:
            self._call("PATCH", path, _PATCH_STATUS, name, patch)
        except Conflicting:
            # The kubelet was writing, again and again. This names no version to be in conflict
            # with, so that once more is not once too often.
            self._call("PATCH", path, _PATCH_STATUS, name, patch)

    def create_event(self, event: Mapping[str, Any]) -> None:
        """Create an Event, unless it exists: then an earlier attempt has arrived after all."""
        path = f"/api/v1/namespaces/{NAMESPACE}/events"
        try:
            self._call("POST", path, _CREATE_EVENT, "", event)
        except Conflicting:
            return

    def _call(
        self,
        method: str,
        path: str,
        rule: _Rule,
        node: str,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        headers = {"Authorization": b"Bearer " + self._token()}
        if body is not None:
            headers["Content-Type"] = b"application/json" if method == "POST" else _PATCH.encode()
        try:
            with self._session.request(
                method,
                f"{self._server.url}{path}",
                data=None if body is None else json.dumps(body).encode(),
                headers=headers,
                stream=True,
                allow_redirects=False,  # they would carry the token to who knows where
                timeout=self._server.timeouts,
            ) as response:
                answer = _object(_read(response, self._server.whole_seconds))
                if response.status_code // 100 != 2:
                    raise self._refusal(response, answer or {}, rule, node)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            why = explained(error, self._server.ca_file)
            raise PublishFailed(f"{self._where} {why}") from error
        if answer is None:
            raise PublishFailed(f"{self._where} answers with something else than an object")
        return answer

    @property
    def _where(self) -> str:
        return f"the API server at {self._server.url}"

    def _token(self) -> bytes:
        try:
            token = Path(self._server.token_file).read_bytes().strip()
        except OSError as error:
            raise PublishFailed(
                f"cannot read the token {self._server.token_file}: {error.strerror}"
            ) from error
        if not _TOKEN.fullmatch(token):
            raise PublishFailed(f"{self._server.token_file} holds no token")
        return token

    def _refusal(
        self, response: requests.Response, answer: Mapping[str, Any], rule: _Rule, node: str
    ) -> PublishFailed:
        status = response.status_code
        said = plain(str(answer.get("message", "")), SAID_BYTES) or response.reason
        if status == 409:
            return Conflicting(f"{self._where} says that it conflicts: {said}")
        texts = {
            401: f"does not accept the token of {self._server.token_file}: is it of this cluster, "
            "and renewed?",
            403: f"forbids it: allow {rule}",
            404: f"knows no Node {node!r}: set NODE_NAME, or option 'node_name', to the Node that "
            "this runs on"
            if node
            else "does not know what is asked for",
            429: "asks for patience",
        }
        text = texts.get(status, f"answers {status}")
        return PublishFailed(
            f"{self._where} {text} ({status}: {said})", retry_after_seconds=_retry_after(response)
        )


def _retry_after(response: requests.Response) -> float:
    """In seconds, the form that Kubernetes uses; 0 if it does not ask for any."""
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0


def _read(response: requests.Response, seconds: float) -> bytes:
    ends = time.monotonic() + seconds
    body = bytearray()
    while chunk := response.raw.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise requests.RequestException(f"an answer of more than {_MAX_BODY_BYTES} bytes")
        # The library's time-out is for each piece.
        if time.monotonic() > ends:
            raise requests.Timeout
    return bytes(body)


def _object(body: bytes) -> dict[str, Any] | None:
    """The object that was answered, ``None`` if it was something else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
