"""Why there was no answer, in words that do not change from one failure to the next: the libraries'
own hold addresses of objects."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import requests
import urllib3

from device_api_core.errors import causes_of
from device_api_kubernetes.texts import plain

CONNECT_SECONDS = 5.0
SAID_BYTES = 300
"""Of a text that comes from elsewhere."""


def explained(error: BaseException, ca_file: str) -> str:
    """What the API server does, or is, that there was no answer."""
    causes = list(causes_of(error))
    text = _of_tls(causes, ca_file) or _of_time(causes) or _of_connection(causes)
    # A missing certificate file, say, is a bare OSError with a message of its own.
    return text or f"cannot be asked: {plain(str(error) or type(error).__name__, SAID_BYTES)}"


def _of_tls(causes: Sequence[BaseException], ca_file: str) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"is not trusted: {cause.verify_message}; is {ca_file} the cluster's authority, "
                "and the host name in its certificate?"
            )
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f"fails TLS: {cause.reason or 'the connection broke'}"
    return ""


def _of_time(causes: Sequence[BaseException]) -> str:
    if any(isinstance(cause, requests.ConnectTimeout) for cause in causes):
        return f"takes no connection within {CONNECT_SECONDS:g} s"
    late = requests.Timeout | urllib3.exceptions.ReadTimeoutError
    return "does not answer in time" if any(isinstance(c, late) for c in causes) else ""


def _of_connection(causes: Sequence[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return f"cannot be reached: {cause.strerror}"
    broken = ConnectionError | urllib3.exceptions.ProtocolError
    return "broke the connection" if any(isinstance(c, broken) for c in causes) else ""
