"""What the two HTTP ports show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from device_api_core.readiness import Readiness
from device_api_core.server.http import Page
from device_api_core.server.observer import Observer
from device_api_core.server.statusz import Statusz

Pages = Mapping[str, Callable[[], Page]]


def health_pages(readiness: Readiness, observer: Observer) -> Pages:
    """``/healthz`` and ``/livez`` say that the event loop turns, ``/readyz`` that reads are
    answered; ``/statusz`` is for people."""

    def alive() -> Page:
        return Page(HTTPStatus.OK, b"ok\n")

    def ready() -> Page:
        if readiness.ready:
            return Page(HTTPStatus.OK, b"ok\n")
        waiting = readiness.waiting_for or "starting"
        text = waiting if waiting == "shutting down" else f"not ready: {waiting}"
        return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"{text}\n".encode())

    statusz = Statusz(observer)
    return {
        "/healthz": alive,
        "/livez": alive,
        "/readyz": ready,
        "/statusz": statusz.page,
        "/statusz/events": statusz.live,
    }


def metrics_pages(registry: CollectorRegistry) -> Pages:
    """``/metrics``, in Prometheus's text format."""

    def metrics() -> Page:
        return Page(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)

    return {"/metrics": metrics}
