"""A real Prometheus that scrapes a real server and evaluates the chart's rules."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from device_api_fake_nvml import FakeNode
from process import Server

CHART = Path(__file__).resolve().parents[3] / "charts" / "device-api-server"
JOB = "device-api-server-metrics"

Found = TypeVar("Found")


class Prometheus:
    """A running Prometheus. It scrapes and evaluates every half second."""

    def __init__(self, program: str, directory: Path, target: str, rules: Iterable[Path]) -> None:
        directory.mkdir()
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        address = f"127.0.0.1:{_free_port()}"
        self._url = f"http://{address}"
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stderr=log,
            )
        self._log = directory / "log"

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series that an expression gives, now or at a Unix time."""
        when = {} if at is None else {"time": at}
        return list(self._get("query", query=expression, **when)["result"])

    def federate(self, *selectors: str) -> list[str]:
        """What another Prometheus takes from this one: a line for each series."""
        query = urllib.parse.urlencode({"match[]": selectors}, doseq=True)
        with urllib.request.urlopen(f"{self._url}/federate?{query}", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return [line for line in lines if not line.startswith("#")]

    def query_range(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """The same over a time, each second."""
        found = self._get("query_range", query=expression, start=start, end=end, step=1)
        return list(found["result"])

    def alerts(self, name: str = "") -> list[dict[str, Any]]:
        """The alerts that are pending or firing."""
        active = self._get("alerts")["alerts"]
        return [a for a in active if not name or a["labels"]["alertname"] == name]

    def wait(self, look: Callable[[], Found], seconds: float = 30.0) -> Found:
        """What ``look`` finds, as soon as it finds something."""
        ends = time.monotonic() + seconds
        while True:
            try:
                if found := look():
                    return found
            except OSError:
                assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < ends, self._log.read_text()[-2_000:]
            time.sleep(0.1)

    def _get(self, path: str, **parameters: object) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return dict(json.load(answer)["data"])


@contextmanager
def scraped(program: str, rules: Iterable[Path] = ()) -> Iterator[Scraped]:
    """A simulated node of eight GPUs, its server, and the Prometheus that watches it."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        directory = Path(path)
        node = FakeNode.create(directory / "node", gpus=8)
        flags = ("--provider=nvml", f"--nvml-driver-root={node.root}", "--node-name=node-7")
        with Server(directory, *flags) as server:
            # A rate needs a first sample to start from.
            server.wait_serving().api().list()
            target = server.addresses["metrics"]
            with Prometheus(program, directory / "tsdb", target, rules) as prometheus:
                prometheus.wait(lambda: prometheus.query("device_api_server_info"))
                yield Scraped(node, server, prometheus)
        assert not server.tracebacks, server.text


class Scraped(NamedTuple):
    """What :func:`scraped` has started."""

    node: FakeNode
    server: Server
    prometheus: Prometheus


def impatient(rules: Path, into: Path) -> Path:
    """The same rules, but an alert need not last before it fires."""
    groups = yaml.safe_load(rules.read_text(encoding="utf-8"))
    for group in groups["groups"]:
        group["name"] += "-impatient"
        for rule in group["rules"]:
            rule.pop("for", None)
            rule["alert"] = f"Impatient{rule['alert']}"
    into.write_text(yaml.safe_dump(groups), encoding="utf-8")
    return into


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
