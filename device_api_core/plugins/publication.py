"""Running one publisher in this process, with the server elsewhere.

An informer follows the server; the main thread decides what is due; each call of the publisher has
a thread of its own, so that one that hangs is noticed and does not keep the process from ending.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from device_api_core.client import Clientset, GpuInformer
from device_api_core.client.retry import Backoff
from device_api_core.errors import DeviceApiError, PublishFailed
from device_api_core.plugins.outlook import RESYNC_SECONDS, Outlook, View
from device_api_core.plugins.publishing import Count, Publisher
from device_api_core.published import Published
from device_api_core.validation import shortened

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How long the server may be silent, or in doubt, until that is published."""

DONE, STUCK, HUNG = 0, 4, 5
"""Exit codes: stopped in good order; a call did not end in time then; a call hangs, so that the
process has to be replaced."""

HUNG_SECONDS = 120.0
"""That a call may take. After half of it ``/healthz`` tells."""
STOP_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_LOOK_SECONDS = 1.0
_PROBE_SECONDS = 5.0
_WHY_BYTES = 200


class Publication:
    """Publishes until :meth:`stop`. ``published`` is where it counts."""

    def __init__(
        self,
        publisher: Publisher,
        clients: Clientset,
        published: Published,
        *,
        grace_seconds: float = GRACE_SECONDS,
        hung_seconds: float = HUNG_SECONDS,
    ) -> None:
        self._publisher = publisher
        self._published = published
        self._grace = grace_seconds
        self._hung = hung_seconds
        self._outlook = Outlook(publisher.interval_seconds, grace_seconds)
        self._pauses = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        self._informer = GpuInformer(
            clients.v1alpha1.gpus, probe_seconds=min(_PROBE_SECONDS, grace_seconds / 3)
        )
        self._facts = {"publisher": publisher.name}
        self._stop = threading.Event()
        # Something happened that the main thread has to look at.
        self._news = threading.Event()
        self._call: _Call | None = None
        self._why_stale = ""
        self._complaint = ""
        self._started = self._turned = time.monotonic()

    def stop(self) -> None:
        """Ask it to end. What is published stays. May be called from a signal handler."""
        self._stop.set()
        self._news.set()

    @property
    def trouble(self) -> str:
        """Why a restart would help, if it would."""
        now, call = time.monotonic(), self._call
        if call is not None and now - call.began > self._hung / 2:
            return f"the publisher has not returned for {now - call.began:.0f} s"
        if now - self._turned > self._hung / 2:
            return f"nothing has happened for {now - self._turned:.0f} s"
        return ""

    def run(self) -> int:
        """Returns the exit code."""
        self._informer.add_handler(on_add=self._wake, on_update=self._wake, on_delete=self._wake)
        with self._informer:
            while not self._stop.is_set():
                self._turned = now = time.monotonic()
                if self._call is not None and self._call.ended.is_set():
                    self._settle(self._call)
                if self._call is None:
                    self._consider(now)
                elif now - self._call.began > self._hung:
                    logger.error("publisher hangs", extra=self._facts)
                    return HUNG
                self._news.wait(_LOOK_SECONDS)
                self._news.clear()
            return self._ending()

    def _wake(self, *_: object) -> None:
        self._news.set()

    def _consider(self, now: float) -> None:
        view = self._look(now)
        if view is not None and self._outlook.is_due(view, now):
            self._call = _Call(self._publisher, view, self._published.count, self._wake)
            self._call.start()

    def _look(self, now: float) -> View | None:
        """The view as it is; ``None`` while it is too early to say that there is none."""
        if not self._informer.has_synced:
            if now - self._started < self._grace:
                return None
            return View((), self._stale("device-api-server has not answered yet"))
        gpus = self._informer.lister.list()
        if self._informer.is_stale(self._grace):
            since = datetime.fromtimestamp((self._informer.last_synced or 0) / 1e9, tz=UTC)
            what = f"device-api-server has not answered since {since:%Y-%m-%dT%H:%M:%SZ}"
            return View(gpus, self._stale(what))
        if self._why_stale:
            logger.info("the view is current again", extra=self._facts)
        self._why_stale = ""
        self._published.stale = False
        return View(gpus)

    def _stale(self, what: str) -> str:
        """One text for as long as it lasts, whatever else goes wrong meanwhile."""
        if not self._why_stale:
            error = self._informer.progress.last_error
            why = f": {shortened(' '.join(str(error).split()), _WHY_BYTES)}" if error else ""
            self._why_stale = f"{what}{why}"
            logger.warning("the view is not current", extra={**self._facts, "why": self._why_stale})
        self._published.stale = True
        return self._why_stale

    def _settle(self, call: _Call) -> None:
        self._call = None
        if call.error is None:
            self._outlook.published(call.view, call.began, time.monotonic())
            self._pauses.reset()
            self._published.successes += 1
            self._published.last_success = time.time()
            if self._complaint or self._published.successes == 1:
                logger.info("published", extra={**self._facts, "gpus": len(call.view.gpus)})
            self._complaint = ""
            return
        self._published.failures += 1
        asked = call.error.retry_after_seconds if isinstance(call.error, PublishFailed) else 0.0
        pause = max(self._pauses.pause(), min(asked, RESYNC_SECONDS))
        self._outlook.failed(time.monotonic() + pause)
        self._complain(call.error, pause)

    def _complain(self, error: BaseException, pause: float) -> None:
        """Once for the same failure, however often it happens."""
        text = " ".join(str(error).split()) or type(error).__name__
        if text == self._complaint:
            return
        self._complaint = text
        # What a publisher raises on purpose says what to do; anything else is a defect of it.
        trace = None if isinstance(error, DeviceApiError) else error
        facts = {**self._facts, "why": text, "next_try_seconds": round(pause, 1)}
        logger.error("publishing failed", extra=facts, exc_info=trace)

    def _ending(self) -> int:
        logger.info("publisher is stopping", extra=self._facts)
        if self._call is not None and not self._call.ended.wait(STOP_SECONDS):
            logger.error("publisher did not stop in time", extra=self._facts)
            return STUCK
        logger.info("publisher has stopped", extra=self._facts)
        return DONE


class _Call(threading.Thread):
    """One call of the publisher; ``error`` is what it raised, once it has ended."""

    def __init__(
        self,
        publisher: Publisher,
        view: View,
        count: Count,
        ended: Callable[[], object],
    ) -> None:
        super().__init__(name=f"publisher {publisher.name}", daemon=True)
        self.view = view
        self.began = time.monotonic()
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._publisher = publisher
        self._count = count
        self._tell = ended

    def run(self) -> None:
        try:
            self._publisher.publish(self.view.gpus, stale=self.view.stale, count=self._count)
        except BaseException as error:  # noqa: BLE001
            # The publisher boundary: whatever it raises, SystemExit included, is one more failure.
            self.error = error
        finally:
            self.ended.set()
            self._tell()
