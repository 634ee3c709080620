"""A real exporter to scrape, and a sink that keeps the contract."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from dcgm_exporter import Exporter, Scene, head
from device_api_dcgm.health import TYPES
from device_api_dcgm.options import DcgmOptions
from device_api_dcgm.provider import DcgmProvider

from device_api_core.errors import InvalidArgument, NotFound, SinkClosed
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.series import Tally
from device_api_core.validation import check_action, check_conditions, check_name, check_spec

TIMEOUT = 10.0


class RecordingSink:
    """The daemon as a provider sees it. Make the next run's sink with :meth:`restarted`."""

    def __init__(self) -> None:
        self.specs: dict[str, GpuSpec] = {}
        self.tally = Tally()
        self.statuses: dict[str, tuple[dict[str, Condition], str]] = {}
        self.said: list[tuple[str, str, str]] = []
        self.summaries: list[str] = []
        self.syncs = 0
        self.closed = False
        self._changed = threading.Condition()

    def restarted(self) -> RecordingSink:
        """What the daemon does when a provider comes again: True is not believed any more."""
        sink = RecordingSink()
        sink.specs = dict(self.specs)
        for gpu, (conditions, action) in self.statuses.items():
            kept = {
                t: c
                if c.status is not ConditionStatus.TRUE
                else replace(c, status=ConditionStatus.UNKNOWN, reason="ProviderFailed")
                for t, c in conditions.items()
            }
            sink.statuses[gpu] = (kept, action)
        return sink

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        check_name(gpu)
        check_spec(spec)
        with self._call():
            new = gpu not in self.specs
            self.specs[gpu] = spec
            return new

    def withdraw(self, gpu: str) -> None:
        raise AssertionError(f"{gpu} withdrawn")

    def forget(self, gpu: str) -> None:
        """An operator's ``device-api forget``."""
        with self._changed:
            del self.specs[gpu]
            self.statuses.pop(gpu, None)

    def set_condition(self, gpu, condition, *, recommended_action=None) -> None:
        raise AssertionError("all conditions of a GPU are said at once")

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        check_conditions(conditions)
        check_action(recommended_action)
        with self._call():
            if not {c.type for c in conditions} <= set(TYPES):
                raise InvalidArgument("conditions", "not declared")
            if gpu not in self.specs:
                raise NotFound(f"no GPU {gpu}")
            self.statuses[gpu] = ({c.type: c for c in conditions}, recommended_action)
            self.said += [(gpu, c.type, str(c.status)) for c in conditions]

    def update(self, *gpus: str):
        raise AssertionError("polls hold no update")

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        return {gpu: tuple(conditions.values()) for gpu, (conditions, _) in self.statuses.items()}

    def synced(self) -> None:
        with self._call():
            self.syncs += 1

    def alive(self, summary: str = "") -> None:
        with self._call():
            self.summaries.append(summary)

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        self.tally.count(name, amount, labels)

    def gauge(self, name: str, value: float | None, /, **labels: object) -> None:
        self.tally.gauge(name, value, labels)

    def _call(self):
        if self.closed:
            raise SinkClosed("closed")
        return _Notifying(self._changed)

    def wait(self, holds: Callable[[], object], seconds: float = TIMEOUT) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, seconds), f"{self.statuses}\n{self.summaries[-1:]}"

    def rounds(self, more: int = 2) -> None:
        """Wait until the provider has done so many whole rounds more."""
        seen = len(self.summaries)
        self.wait(lambda: len(self.summaries) > seen + more)

    def get(self, gpu: str, type_: str = "DCGMHealth") -> tuple[str, str]:
        conditions, _ = self.statuses.get(gpu, ({}, ""))
        found = conditions.get(type_)
        return (str(found.status), found.reason) if found else ("", "")

    def wait_for(self, gpu: str, type_: str, status: str, reason: str) -> None:
        self.wait(lambda: self.get(gpu, type_) == (status, reason))


class _Notifying:
    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed

    def __enter__(self) -> None:
        self._changed.acquire()

    def __exit__(self, *_: object) -> None:
        self._changed.notify_all()
        self._changed.release()


class Running:
    """A provider in its thread."""

    def __init__(self, options: DcgmOptions, sink: RecordingSink, state_dir: str) -> None:
        self.provider = DcgmProvider(options, state_dir)
        self.sink = sink
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.provider.run(self.sink, self._stop)
        except BaseException as error:
            self._error = error
            raise

    def join(self) -> None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def stop(self) -> float:
        """Returns how long that took, in seconds."""
        began = time.monotonic()
        self._stop.set()
        self.join()
        assert self._error is None
        return time.monotonic() - began


class Bench:
    """Exporters, and providers that scrape them."""

    head = staticmethod(head)

    def __init__(self, directory: Path) -> None:
        self._closing: list[Callable[[], object]] = []
        self._state_dir = directory / "state"

    def exporter(self, body: bytes | None = None, wrap: Callable | None = None) -> Exporter:
        exporter = Exporter(Scene().bytes if body is None else body, wrap)
        self._closing.append(exporter.close)
        return exporter

    def start(
        self, exporter: Exporter, sink: RecordingSink | None = None, **options: object
    ) -> Running:
        fast = {"interval_seconds": 0.02, "clean_seconds": 0.1, "rate_seconds": 0.1}
        chosen = DcgmOptions(**{"url": exporter.url, **fast, **options})
        running = Running(chosen, sink or RecordingSink(), str(self._state_dir))
        self._closing.append(running.stop)
        return running

    def close(self) -> None:
        for close in reversed(self._closing):
            close()


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="session")
def make_scene() -> type[Scene]:
    return Scene


@pytest.fixture(scope="session")
def sample() -> bytes:
    """Eight H100: 2 with a program's fault, 3 hot, 4 off the bus, 6 with bad memory."""
    return (Path(__file__).parent / "h100x8.prom").read_bytes()
