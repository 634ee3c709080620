"""What the two HTTP ports show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from device_api_core.metrics import Metrics
from device_api_core.readiness import Readiness
from device_api_core.server.http import Page
from device_api_core.server.observer import Observer
from device_api_core.server.statusz import Statusz
from device_api_core.tallies import Tallies

if TYPE_CHECKING:
    from device_api_core.exposition import Exposition

Pages = Mapping[str, Callable[[], Page]]

_OK = Page(HTTPStatus.OK, b"ok\n")


def health_pages(readiness: Readiness, observer: Observer) -> Pages:
    """``/healthz`` and ``/livez`` say that the event loop turns and that no restart would help,
    ``/readyz`` that reads are answered and clients find the sockets; ``/statusz`` is for people."""

    def alive() -> Page:
        sockets = observer.sockets()
        return _unavailable(sockets.trouble) if sockets.for_good else _OK

    def ready() -> Page:
        if not readiness.ready:
            waiting = readiness.waiting_for or "starting"
            return _unavailable(waiting if waiting == "shutting down" else f"not ready: {waiting}")
        trouble = observer.sockets().trouble
        return _unavailable(f"not ready: {trouble}") if trouble else _OK

    statusz = Statusz(observer)
    return {
        "/healthz": alive,
        "/livez": alive,
        "/readyz": ready,
        "/statusz": statusz.page,
        "/statusz/events": statusz.live,
    }


def metrics_pages(metrics: Metrics, tallies: Tallies) -> Pages:
    """``/metrics``, in Prometheus's text format."""

    @cache
    def exposition() -> Exposition:
        # Who is never scraped does not carry it.
        from device_api_core.exposition import Exposition, registry_of

        return Exposition(registry_of(metrics, tallies))

    def page() -> Page:
        return Page(HTTPStatus.OK, exposition().text(), exposition().content_type)

    return {"/metrics": page}


def _unavailable(text: str) -> Page:
    return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"{text}\n".encode())
