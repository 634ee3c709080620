"""The bearer token that calls must bring, kept in a file that may be replaced at any time."""

from __future__ import annotations

import hmac
from pathlib import Path

from device_api_core.errors import SettingsError


class TokenFile:
    """Reads the token again when the file changes. Raises :class:`SettingsError`, also from
    :meth:`allows`, if the file cannot be read or is empty: then nobody is let in."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._version: tuple[int, int, int] | None = None
        self._token = b""
        self._refresh()

    def __repr__(self) -> str:
        return f"<TokenFile {self._path}>"

    def allows(self, authorization: str | bytes) -> bool:
        """Whether the value of the header ``authorization`` is ``Bearer`` and the token."""
        self._refresh()
        given = authorization.encode() if isinstance(authorization, str) else authorization
        scheme, _, token = given.strip().partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            version = (found.st_mtime_ns, found.st_ino, found.st_size)
            if version == self._version:
                return
            token = self._path.read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"cannot read token file {self._path}: {error.strerror}") from error
        if not token:
            raise SettingsError(f"token file {self._path} is empty")
        self._token, self._version = token, version
