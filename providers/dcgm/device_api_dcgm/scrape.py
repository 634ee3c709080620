"""One HTTP request to the exporter, whose every way to go wrong is a :class:`ScrapeFailed`.

The request runs in a thread of its own, so that the provider can leave a hanging one at any time.
Time-outs of the library bound each read, not the whole: an exporter that sends a byte now and then
never meets one. Leaving it shuts its socket down, which ends the thread too.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from device_api_core.errors import causes_of
from device_api_dcgm import __version__
from device_api_dcgm.options import DcgmOptions, redacted

_CHUNK_BYTES = 64 * 1024
_LENGTH_DIGITS = 18  # int() refuses thousands of them
_LOOK_SECONDS = 0.05
_CUT_OFF = "the answer is cut off"
_HEADERS = {
    "Accept": "text/plain;version=0.0.4",
    # A compressed answer could be small on the wire and endless in memory.
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": f"device-api-dcgm/{__version__}",
}


class Failure(StrEnum):
    """What kind of failure it is, for those who count."""

    CONNECT = "connect"
    TLS = "tls"
    CREDENTIALS = "credentials"
    STATUS = "status"
    TIMEOUT = "timeout"
    ANSWER = "answer"
    EMPTY = "empty"
    OTHER = "other"


class ScrapeFailed(Exception):
    """Why there is no exposition, fit to be shown: without secrets, the same words each time."""

    def __init__(self, kind: Failure, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Scraper:
    """Fetches the exposition. At most one request is under way."""

    def __init__(self, options: DcgmOptions) -> None:
        self._options = options
        self._request: _Request | None = None

    def fetch(self, stop: threading.Event) -> bytes | None:
        """The body, or ``None`` if ``stop`` was set meanwhile.

        Raises:
            ScrapeFailed: there is none.
        """
        if self._request is not None and self._request.is_alive():
            raise ScrapeFailed(Failure.TIMEOUT, "the scrape before has not ended yet")
        request = self._request = _Request(self._options)
        deadline = time.monotonic() + self._options.timeout_seconds
        request.start()
        while not request.done.wait(_LOOK_SECONDS):
            if stop.is_set():
                request.abort()
                return None
            if time.monotonic() >= deadline:
                request.abort()
                raise ScrapeFailed(
                    Failure.TIMEOUT, f"no whole answer in {self._options.timeout_seconds:g} s"
                )
        return request.result()


class _Request(threading.Thread):
    """One request. A connection of its own each time: certificates and secrets may have changed."""

    def __init__(self, options: DcgmOptions) -> None:
        super().__init__(name="dcgm scrape", daemon=True)
        self.done = threading.Event()
        self._options = options
        self._adapter = _Adapter()
        self._body = b""
        self._error: ScrapeFailed | None = ScrapeFailed(
            Failure.OTHER, "the scrape ended without a result"
        )

    def run(self) -> None:
        try:
            self._body = self._get()
            self._error = None
        except ScrapeFailed as error:
            self._error = error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._error = _explained(error, self._options)
        finally:
            self.done.set()

    def result(self) -> bytes:
        if self._error is not None:
            raise self._error
        return self._body

    def abort(self) -> None:
        """Make the thread end."""
        self._adapter.shut_down()

    def _get(self) -> bytes:
        options = self._options
        with requests.Session() as session:
            # Neither proxies nor .netrc of the environment: what is not configured is not used.
            session.trust_env = False
            session.mount("http://", self._adapter)
            session.mount("https://", self._adapter)
            session.headers.update(_HEADERS)
            session.verify = options.ca_file or True
            if options.cert_file:
                pair = (options.cert_file, options.key_file)
                session.cert = pair if options.key_file else options.cert_file
            _authorize(session, options)
            with session.get(
                options.url,
                stream=True,
                allow_redirects=False,  # they would carry secrets to who knows where
                timeout=(options.connect_seconds, options.read_seconds),
            ) as response:
                _check_head(response, options.max_body_bytes)
                return _read(response, options.max_body_bytes)


class _Adapter(HTTPAdapter):
    """Knows its sockets, so that a read that hangs in another thread can be ended."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)
        self._connections: list[Any] = []
        self._sockets: list[socket.socket] = []
        self._over = False

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = self._noted(pool.ConnectionCls)
        return pool

    def shut_down(self) -> None:
        self._over = True
        # A connection has its socket before the handshake, and gives it up after the headers.
        begun = [connection.sock for connection in self._connections if connection.sock]
        for sock in (*begun, *self._sockets):
            with suppress(OSError):
                # Not SSLSocket's own method, which changes what the reader is using.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _noted(self, kind: Any) -> Any:
        adapter = self

        class Noted(kind):  # type: ignore[misc]
            def connect(self) -> None:
                adapter._connections.append(self)
                super().connect()
                adapter._sockets.append(self.sock)
                if adapter._over:
                    raise OSError("aborted")

        return Noted


def _authorize(session: requests.Session, options: DcgmOptions) -> None:
    if options.user:
        password = _secret("password_file", options.password_file)
        session.auth = HTTPBasicAuth(options.user.encode(), password)
    elif options.bearer_token_file:
        token = _secret("bearer_token_file", options.bearer_token_file)
        if not (token.isascii() and token.decode("ascii").isprintable() and b" " not in token):
            raise ScrapeFailed(
                Failure.CREDENTIALS, "the file of option 'bearer_token_file' holds no token"
            )
        session.headers["Authorization"] = b"Bearer " + token


def _secret(option: str, file: str) -> bytes:
    try:
        secret = Path(file).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ScrapeFailed(
            Failure.CREDENTIALS, f"option {option!r}: {file}: {error.strerror}"
        ) from error
    if not secret:
        raise ScrapeFailed(Failure.CREDENTIALS, f"option {option!r}: {file} is empty")
    return secret


def _check_head(response: requests.Response, max_bytes: int) -> None:
    status = response.status_code
    if response.is_redirect:
        to = redacted(response.headers["Location"])
        raise ScrapeFailed(
            Failure.STATUS, f"HTTP {status} to {to}, which is not followed: set the url to it"
        )
    if status in (401, 403):
        raise ScrapeFailed(
            Failure.CREDENTIALS, f"HTTP {status}: the exporter refuses the credentials"
        )
    if status != requests.codes.ok:
        raise ScrapeFailed(Failure.STATUS, f"HTTP {status}")
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise ScrapeFailed(
            Failure.ANSWER, f"the answer is encoded ({coding[:40]!r}), which was not asked for"
        )
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and (len(length) > _LENGTH_DIGITS or int(length) > max_bytes):
        raise ScrapeFailed(Failure.ANSWER, _too_long(max_bytes))


def _read(response: requests.Response, max_bytes: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise ScrapeFailed(Failure.ANSWER, _too_long(max_bytes))
    if body and not body.endswith(b"\n"):  # the last line of the format ends like all others
        raise ScrapeFailed(Failure.ANSWER, _CUT_OFF)
    return bytes(body)


def _too_long(max_bytes: int) -> str:
    return f"the answer is longer than {max_bytes} bytes"


def _explained(error: Exception, options: DcgmOptions) -> ScrapeFailed:
    """In words that do not change from one failure to the next: the libraries' own messages hold
    addresses of objects."""
    causes = list(causes_of(error))
    no_data = f"no data for {options.read_seconds:g} s"
    for type_, kind, text in (
        (
            requests.ConnectTimeout,
            Failure.CONNECT,
            f"no connection within {options.connect_seconds:g} s",
        ),
        (requests.ReadTimeout, Failure.TIMEOUT, no_data),
        (urllib3.exceptions.ReadTimeoutError, Failure.TIMEOUT, no_data),
        (requests.exceptions.ChunkedEncodingError, Failure.ANSWER, _CUT_OFF),
        (urllib3.exceptions.IncompleteRead, Failure.ANSWER, _CUT_OFF),
    ):
        if any(isinstance(cause, type_) for cause in causes):
            return ScrapeFailed(kind, text)
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ScrapeFailed(Failure.TLS, f"TLS: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError):
            return ScrapeFailed(Failure.TLS, f"TLS: {cause.reason or 'the connection is broken'}")
        if isinstance(cause, OSError) and cause.strerror:
            return ScrapeFailed(Failure.CONNECT, f"cannot connect: {cause.strerror}")
    # A missing certificate file is a bare OSError with a message of its own.
    if type(error) is OSError:
        return ScrapeFailed(Failure.CREDENTIALS, str(error))
    return ScrapeFailed(Failure.OTHER, f"the request failed ({type(causes[-1]).__name__})")
