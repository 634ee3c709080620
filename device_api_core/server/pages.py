"""What the two HTTP ports show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from device_api_core.readiness import Readiness
from device_api_core.server.http import Page

Pages = Mapping[str, Callable[[], Page]]


def health_pages(readiness: Readiness) -> Pages:
    """``/healthz`` and ``/livez`` say that the event loop turns, ``/readyz`` that reads are
    answered."""

    def alive() -> Page:
        return Page(HTTPStatus.OK, b"ok\n")

    def ready() -> Page:
        if readiness.ready:
            return Page(HTTPStatus.OK, b"ok\n")
        waiting = readiness.waiting_for or "starting"
        text = waiting if waiting == "shutting down" else f"not ready: {waiting}"
        return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"{text}\n".encode())

    return {"/healthz": alive, "/livez": alive, "/readyz": ready}


def metrics_pages(registry: CollectorRegistry) -> Pages:
    """``/metrics``, in Prometheus's text format."""

    def metrics() -> Page:
        return Page(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)

    return {"/metrics": metrics}
