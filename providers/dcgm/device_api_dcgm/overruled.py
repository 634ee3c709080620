"""Remembers which failures of the ALL watch are of the past.

DCGM's ALL watch goes on failing after a recovery until the hostengine restarts. A provider that is
restarted in between would take it for news. The memory is worth nothing after a reboot, which
restarts the hostengine too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FILE = "overruled.json"
_log = logging.getLogger(__name__)


class Overruled:
    """A file with the overruled code by GPU. With an empty ``state_dir`` nothing is kept."""

    def __init__(self, state_dir: str, boot_id: Path = _BOOT_ID) -> None:
        self._path = Path(state_dir) / _FILE if state_dir else None
        self._boot_id = boot_id
        self._stored: dict[str, str] = {}

    def load(self) -> Mapping[str, str]:
        """What was stored in this boot; nothing if the file cannot be understood."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["boot_id"] == self._boot():
                self._stored = {str(gpu): str(code) for gpu, code in found["gpus"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # What is not remembered is False once more, until an operator clears it.
            _log.warning("overruled watches are forgotten: %s", error)
        return dict(self._stored)

    def store(self, codes: Mapping[str, str]) -> None:
        """Remember these, if they are not what is stored already."""
        wanted = {gpu: code for gpu, code in codes.items() if code}
        if self._path is None or wanted == self._stored:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            fresh.write_text(
                json.dumps({"boot_id": self._boot(), "gpus": wanted}), encoding="utf-8"
            )
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("overruled watches cannot be stored: %s", error)
            return
        self._stored = wanted

    def _boot(self) -> str:
        return self._boot_id.read_text(encoding="ascii").strip()
