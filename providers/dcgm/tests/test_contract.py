"""The contract that every provider keeps, in every home, on an exporter that serves a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from dcgm_exporter import Exporter, Scene, head

from device_api_core.testing import provider_contract


@pytest.fixture(scope="module", autouse=True)
def served():
    """An exporter that has the answer in a file: the path of the URL."""
    exporter = Exporter(b"")

    def answer(handler):
        body = Path(handler.path).read_bytes()
        head(handler, 200, {"Content-Length": str(len(body))})
        handler.wfile.write(body)

    exporter.answer = answer
    served.origin = exporter.url.removesuffix("/metrics")
    yield
    exporter.close()


def well(directory):
    (directory / "metrics").write_bytes(Scene(gpus=2).bytes)


def broken(directory):
    scene = Scene(gpus=2).watch(1, "NVLINK", 20, "NVLINK_DOWN")
    (directory / "metrics").write_bytes(scene.bytes)


def options(directory):
    return {
        "url": f"{served.origin}{directory}/metrics",
        "interval_seconds": 0.1,
        "timeout_seconds": 2.0,
    }


TestContract = provider_contract("dcgm", options=options, well=well, broken=broken)
