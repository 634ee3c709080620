"""TLS for grpc.aio: certificates that follow their files, and the names of who calls.

gRPC takes TLS 1.2 or newer only. It checks a client's certificate against the authorities before
any call is seen; what the certificate says is asked here, for each call, since a connection's
address may be another client's a moment later.
"""

from __future__ import annotations

from typing import Any

import grpc

from device_api_core.server.tls import Certificates, Pems, TlsFiles
from device_api_core.server.transport import CALLER

_NAME_KEYS = ("x509_common_name", "peer_dns", "peer_uri")


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that are read again before each handshake after which the files have changed.

    Raises:
        SettingsError: the files cannot be used.
    """
    certificates = Certificates(files)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        pems = certificates.renewed()
        return None if pems is None else _configuration(pems)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificates.pems),
        renewed,  # type: ignore[arg-type]  # None, which means no change, is not in its types
        require_client_authentication=bool(files.client_ca_file),
    )


def named(handle: Any) -> Any:
    """The handler, with the caller's names known to it."""

    async def identified(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        CALLER.set(_names(context.auth_context()))
        return await handle(request, context)

    return identified


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pems.private_key, pems.certificate)], root_certificates=pems.client_ca
    )


def _names(facts: Any) -> frozenset[str]:
    # A certificate without a common name has an empty one, which is nobody's.
    values = (value for key in _NAME_KEYS for value in facts.get(key, ()) if value)
    return frozenset(value.decode("utf-8", "backslashreplace") for value in values)
