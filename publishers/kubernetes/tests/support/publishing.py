"""``device-api publish kubernetes`` as a process, beside a server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

RUN = "from device_api_core.cli.main import main; main()"
SECONDS = 20.0


class Publish:
    """A started publisher; its log is JSON, read as it comes."""

    def __init__(
        self, folder: Path, socket: Path, options: Mapping[str, object], *flags: str
    ) -> None:
        config = folder / "publish.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        config.write_text("\n".join(["[publishers.kubernetes]", *lines, ""]))
        self.log: list[dict[str, Any]] = []
        self.text = ""
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-X",
                    "faulthandler",
                    "-c",
                    RUN,
                    f"--server={socket}",
                    "publish",
                    "kubernetes",
                ),
                *(f"--config={config}", "--log-format=json", *flags),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Publish:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert "Traceback" not in self.text, self.text

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._changed:
                    self.text += line
                    if line.startswith("{"):
                        self.log.append(json.loads(line))
                    self._changed.notify_all()

    def said(self, words: str, *, after: int = 0, seconds: float = SECONDS) -> dict[str, Any]:
        """The first entry with these words in its message or its reason; it may be yet to come.
        ``after`` so many entries."""

        def found() -> dict[str, Any] | None:
            entries = self.log[after:]
            return next((e for e in entries if words in f"{e['msg']}: {e.get('why', '')}"), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None, seconds)
            entry = found()
        assert entry is not None, f"not said: {words!r}, but {self.text}"
        return entry

    def page(self, path: str) -> str:
        """A page of --metrics-address."""
        url = f"http://{self.said('publishing')['metrics']}{path}"
        with urllib.request.urlopen(url, timeout=SECONDS) as page:
            return str(page.read().decode())

    def metric(self, name: str) -> float | None:
        """One of the publisher's series."""
        families = text_string_to_metric_families(self.page("/metrics"))
        wanted = (f"device_api_publisher_{name}", {"publisher": "kubernetes"})
        found = (s.value for f in families for s in f.samples if (s.name, s.labels) == wanted)
        return next(found, None)

    def stop(self) -> int:
        """End it in good order; returns the exit code."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """The exit code, when it has ended. If it does not, fails with where it hangs."""
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(SECONDS)
            self._reader.join(SECONDS)
            raise AssertionError(f"it did not end: {self.text}") from None
        self._reader.join(SECONDS)
        return code


def eventually(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Look until it is so; for what nobody announces."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never was so"
        time.sleep(0.05)
