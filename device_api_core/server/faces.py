"""Which methods are reached where: by consumers, by providers, over TLS, through own sockets."""

from __future__ import annotations

from dataclasses import replace

from device_api_core.cache import DeviceCache
from device_api_core.errors import DeviceApiError, SettingsError
from device_api_core.intake import Intake
from device_api_core.readiness import Readiness
from device_api_core.reservations import Authority, Reservations
from device_api_core.server.admin import Admin
from device_api_core.server.connections import allowance
from device_api_core.server.identity import (
    ByCertificate,
    OwnSocket,
    SharedSocket,
    for_operators,
)
from device_api_core.server.limits import Limiter, Limits
from device_api_core.server.provider_service import ProviderService
from device_api_core.server.services import GpuService
from device_api_core.server.tls import TlsFiles
from device_api_core.server.traffic import Traffic
from device_api_core.server.transport import Face, Method
from device_api_core.settings import Settings
from device_api_core.validation import check_provider_id
from device_api_core.watch import WatchHub

CONSUMER_SOCKET_MODE = 0o660
PROVIDER_SOCKET_MODE = 0o600
_CONSUMERS_BESIDE_WATCHES, _CONSUMERS_SHARE = 304, 0.5
"""Connections: one for each watch that may be open, and these for calls; and their share of the
files that this process may open."""
_MAX_PROVIDERS, _PROVIDERS_SHARE = 128, 0.06
"""The same for each other face."""
_MAX_READ_REQUEST_BYTES = 16 * 1024
PROVIDER_FLAG = "--grpc-provider-address"


class Faces:
    """Makes the faces that the settings ask for."""

    def __init__(
        self,
        settings: Settings,
        *,
        cache: DeviceCache,
        hub: WatchHub,
        intake: Intake,
        readiness: Readiness,
        reservations: Reservations,
        admin: Admin,
        traffic: Traffic,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._hub = hub
        self._intake = intake
        self._readiness = readiness
        self._reservations = reservations
        self._admin = admin
        self._traffic = traffic
        consumers = settings.max_watches + _CONSUMERS_BESIDE_WATCHES
        self._consumers = allowance(consumers, _CONSUMERS_SHARE)
        self._providers = allowance(_MAX_PROVIDERS, _PROVIDERS_SHARE)

    def all(self) -> list[Face]:
        """Those with an address. Raises ``SettingsError`` for a dedicated socket that cannot be."""
        faces = [*self._shared(), self._over_tls(), *self._dedicated()]
        limits = Limits(
            self._settings.max_reads_per_second, self._settings.max_writes_per_second
        ).sharing(self._settings.max_watches)
        return [
            replace(
                face,
                limiter=Limiter(limits, self._traffic),
            )
            for face in faces
            if face.unix_socket or face.tcp_address
        ]

    def _shared(self) -> list[Face]:
        settings = self._settings
        authority = SharedSocket(
            self._reservations,
            elsewhere=settings.dedicated_sockets,
            forbid_anonymous=settings.forbid_anonymous,
        )
        reads = self._reads()
        writes = (*self._writes(authority), *self._admin.methods)
        consumers = Face(
            reads,
            tls=self._tls(),
            max_request_bytes=_MAX_READ_REQUEST_BYTES,
            max_connections=self._consumers,
        )
        if settings.single_socket:
            return [
                Face(
                    (*reads, *writes),
                    settings.unix_socket,
                    CONSUMER_SOCKET_MODE,
                    max_connections=self._consumers,
                ),
                replace(consumers, tcp_address=settings.grpc_address),
            ]
        return [
            replace(
                consumers,
                unix_socket=settings.unix_socket,
                unix_mode=CONSUMER_SOCKET_MODE,
                tcp_address=settings.grpc_address,
            ),
            Face(
                (*self._own_reads(), *writes),
                settings.provider_socket,
                PROVIDER_SOCKET_MODE,
                max_connections=self._providers,
            ),
        ]

    def _over_tls(self) -> Face:
        settings = self._settings
        elsewhere = SharedSocket(
            self._reservations, elsewhere=settings.dedicated_sockets, forbid_anonymous=True
        )
        methods = (*self._own_reads(), *self._writes(ByCertificate(elsewhere)))
        if settings.tls_operator_name:
            methods += for_operators(self._admin.methods, settings.tls_operator_name)
        return Face(
            methods,
            tcp_address=settings.grpc_provider_address,
            tcp_flag=PROVIDER_FLAG,
            tls=self._tls(),
            max_connections=self._providers,
        )

    def _dedicated(self) -> list[Face]:
        reads = self._own_reads()
        faces: list[Face] = []
        for provider_id, path in self._settings.dedicated_sockets.items():
            try:
                check_provider_id(provider_id)
                self._reservations.check(provider_id, ())
            except DeviceApiError as error:
                raise SettingsError(f"--dedicated-socket: {error.message}") from error
            writes = self._writes(OwnSocket(provider_id, self._reservations))
            methods = (*reads, *writes)
            faces.append(Face(methods, path, PROVIDER_SOCKET_MODE, max_connections=self._providers))
        return faces

    def _reads(self) -> tuple[Method, ...]:
        return GpuService(
            self._cache,
            hub=self._hub,
            gate=self._intake.gate,
            readiness=self._readiness,
            shared=self._settings.single_socket,
        ).methods

    def _own_reads(self) -> tuple[Method, ...]:
        """What providers read, before the server is ready, too."""
        gate = self._intake.gate
        return GpuService(self._cache, hub=self._hub, gate=gate, readiness=None).methods

    def _writes(self, authority: Authority) -> tuple[Method, ...]:
        return ProviderService(self._cache, intake=self._intake, authority=authority).methods

    def _tls(self) -> TlsFiles | None:
        settings = self._settings
        if not settings.tls_cert_file:
            return None
        return TlsFiles(
            settings.tls_cert_file, settings.tls_private_key_file, settings.client_ca_file
        )
