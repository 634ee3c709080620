"""Expositions that can be changed, and an HTTP server like dcgm-exporter's to serve them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from device_api_dcgm.health import WATCHES

TIMEOUT = 10.0


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
