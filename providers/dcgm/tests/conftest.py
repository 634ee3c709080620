"""A real exporter to scrape, expositions to serve, and a sink that keeps the contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from device_api_dcgm.health import TYPES, WATCHES
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


class Scene:
    """An exposition that can be changed: ``gpus`` healthy H100 with every series."""

    def __init__(self, gpus: int = 8) -> None:
        self.rows: dict[tuple[str, int, tuple[tuple[str, str], ...]], object] = {}
        self.extra = ""
        self.uuid_label, self.host_label, self.type = "UUID", "Hostname", "counter"
        for gpu in range(gpus):
            for name, value in _HEALTHY.items():
                self.set(name, gpu, value)
            for watch in WATCHES:
                self.watch(gpu, watch)
            self.set("DCGM_EXP_XID_ERRORS_COUNT", gpu, 0, window_size_in_ms="300000")
            self.set("DCGM_EXP_CLOCK_EVENTS_COUNT", gpu, 10, clock_event="gpu_idle")

    @staticmethod
    def uuid(gpu: int) -> str:
        return f"GPU-2F1A6C0E-5b3d-4c77-9a10-0d6c1f7be{gpu:03x}"

    @classmethod
    def name(cls, gpu: int) -> str:
        return cls.uuid(gpu).lower()

    def set(self, series: str, gpu: int, value: object, **labels: str) -> Scene:
        self.rows[series, gpu, tuple(sorted(labels.items()))] = value
        return self

    def watch(self, gpu: int, watch: str, value: int = 0, code: str = "OK") -> Scene:
        self.drop("DCGM_EXP_GPU_HEALTH_STATUS", gpu, health_watch=watch)
        labels = {"health_watch": watch, "health_error_code": f"DCGM_FR_{code}"}
        return self.set("DCGM_EXP_GPU_HEALTH_STATUS", gpu, value, **labels)

    def xid(self, gpu: int, xid: int, count: int = 1, **labels: str) -> Scene:
        return self.set("DCGM_EXP_XID_ERRORS_COUNT", gpu, count, xid=str(xid), **labels)

    def drop(self, series: str = "", gpu: int | None = None, **labels: str) -> Scene:
        """Without the rows of that series and GPU that have these labels."""
        wanted = set(labels.items())
        self.rows = {
            (s, g, have): value
            for (s, g, have), value in self.rows.items()
            if (series and s != series) or (gpu is not None and g != gpu) or not wanted <= set(have)
        }
        return self

    @property
    def text(self) -> str:
        lines = []
        for series in dict.fromkeys(s for s, _, _ in self.rows):
            lines += [f"# HELP {series} Some help.", f"# TYPE {series} {self.type}"]
            for (s, gpu, labels), value in self.rows.items():
                if s == series:
                    lines.append(f"{s}{{{self._labels(gpu, dict(labels))}}} {value}")
        return "\n".join(lines) + "\n" + self.extra

    @property
    def bytes(self) -> bytes:
        return self.text.encode()

    def _labels(self, gpu: int, more: dict[str, str]) -> str:
        labels = {
            "gpu": str(gpu),
            self.uuid_label: self.uuid(gpu),
            "pci_bus_id": f"00000000:{0x1B + gpu:02X}:00.0",
            "device": f"nvidia{gpu}",
            "modelName": "NVIDIA H100 80GB HBM3",
            self.host_label: "gpu-node-07",
            **more,
        }
        return ",".join(f'{name}="{value}"' for name, value in labels.items())


_HEALTHY = {
    "DCGM_FI_DEV_GPU_TEMP": 41,
    "DCGM_FI_DEV_XID_ERRORS": 0,
    "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION": 0,
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 0,
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": 0,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
    "DCGM_FI_DEV_ROW_REMAP_PENDING": 0,
    "DCGM_FI_DEV_THERMAL_VIOLATION": 0,
    "DCGM_FI_DEV_POWER_VIOLATION": 0,
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": 0,
}

Answer = Callable[[BaseHTTPRequestHandler], None]


class Exporter:
    """An HTTP server on the loopback. Serves ``body``, or whatever ``answer`` does."""

    def __init__(self, body: bytes, wrap: Callable | None = None) -> None:
        self.body = body
        self.answer: Answer = self.serve
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exporter.requests.append({"path": self.path, **dict(self.headers)})
                try:
                    exporter.answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if wrap is not None:
            self._server.socket = wrap(self._server.socket)
        scheme = "https" if wrap else "http"
        self.url = f"{scheme}://localhost:{self._server.server_port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = self.body
        head(handler, 200, {"Content-Length": str(len(body))})
        handler.wfile.write(body)

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        self.released.wait(TIMEOUT)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT)


def head(handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


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
