"""The files behind TLS: read at start, and again when they have changed.

Kubernetes replaces a mounted secret under a running program, so a certificate that is renewed must
come into use without a restart, and one that is half written must not.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from device_api_core.errors import SettingsError

logger = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int, int], ...]


class TlsFiles(NamedTuple):
    """PEM files: the server's certificate with its chain, its key, and the authorities whose
    clients are let in. Without the last one any client is."""

    cert_file: str
    private_key_file: str
    client_ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Pems:
    """What the files hold. The key is in no ``repr``, so that it cannot get into a log."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes | None


class Certificates:
    """The contents of the files that are in use.

    Raises:
        SettingsError: a file cannot be read, or the key does not belong to the certificate.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._seen = self._signature()
        self.pems = self._read()

    def renewed(self) -> Pems | None:
        """The new contents if the files have changed and can be used, else ``None``.

        Files that cannot be used are logged once, and what was in use stays. May be called from
        any one thread at a time.
        """
        try:
            signature = self._signature()
            if signature == self._seen:
                return None
            self._seen = signature
            pems = self._read()
        except SettingsError as error:
            # The last certificate works as long as it is valid: longer than refusing everybody.
            logger.error("certificates stay as they were", extra={"outcome": error.message})  # noqa: TRY400
            return None
        if pems == self.pems:
            return None
        self.pems = pems
        logger.info("certificates reloaded", extra={"file": self.files.cert_file})
        return pems

    def _signature(self) -> _Signature:
        return tuple(_stat(flag, path) for flag, path in self._named)

    def _read(self) -> Pems:
        contents = self._contents()
        _check(self.files, contents[2:])
        if self._contents() != contents:
            # What was checked is not what was read: they are being replaced just now.
            self._seen = ()
            raise SettingsError("the TLS files change while they are read: try again")
        certificate, private_key, *client_ca = contents
        return Pems(certificate, private_key, client_ca[0] if client_ca else None)

    def _contents(self) -> list[bytes]:
        return [_read(flag, path) for flag, path in self._named]

    @property
    def _named(self) -> list[tuple[str, str]]:
        files = self.files
        named = (
            ("--tls-cert-file", files.cert_file),
            ("--tls-private-key-file", files.private_key_file),
            ("--client-ca-file", files.client_ca_file),
        )
        return [(flag, path) for flag, path in named if path]


def _stat(flag: str, path: str) -> tuple[int, int, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(flag: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from error


def _check(files: TlsFiles, client_ca: list[bytes]) -> None:
    import ssl  # only who serves TLS pays for OpenSSL

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would ask for its password at the terminal.
        context.load_cert_chain(files.cert_file, files.private_key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"--tls-cert-file {files.cert_file} and --tls-private-key-file "
            f"{files.private_key_file} cannot be used together: {error}"
        ) from error
    try:
        for pem in client_ca:
            context.load_verify_locations(cadata=pem.decode("ascii"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"--client-ca-file {files.client_ca_file} holds no certificate in PEM: {error}"
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted: give one without a password")
