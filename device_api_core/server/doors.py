"""Private sockets: one for each start of a provider that this server runs in another process."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path

from device_api_core.cache import DeviceCache
from device_api_core.intake import Intake
from device_api_core.metrics import Metrics
from device_api_core.reservations import SoleProvider
from device_api_core.server.limits import Limiter
from device_api_core.server.provider_service import ProviderService
from device_api_core.server.services import GpuService
from device_api_core.server.sockets import MAX_PATH_BYTES
from device_api_core.server.traffic import Traffic
from device_api_core.server.transport import Face, Listening, load_transport
from device_api_core.watch import WatchHub

_SOCKET = "provider.sock"
_SUFFIX_BYTES = 16
"""More than the random part of a directory's name."""


class PrivateDoor:
    """A socket in a directory that nobody else can enter."""

    def __init__(self, directory: Path, listening: Listening) -> None:
        self.target = f"unix://{directory / _SOCKET}"
        self._directory = directory
        self._listening = listening
        self._closed = False

    async def close(self) -> None:
        """Cut who is in, and remove the socket. May be repeated."""
        if not self._closed:
            self._closed = True
            await self._listening.stop(0)
            _remove(self._directory)


class Doors:
    """Opens them. ``beside`` is a socket in whose directory theirs are made, if that can be."""

    def __init__(
        self,
        cache: DeviceCache,
        *,
        hub: WatchHub,
        intake: Intake,
        metrics: Metrics,
        transport: str,
        beside: str,
        traffic: Traffic,
    ) -> None:
        self._cache = cache
        self._hub = hub
        self._intake = intake
        self._metrics = metrics
        self._transport = transport
        self._beside = beside
        self._traffic = traffic

    async def open(self, provider_id: str, types: tuple[str, ...]) -> PrivateDoor:
        """A door for one provider: it may write as itself what it declares, and read before the
        server is ready."""
        writes = ProviderService(
            self._cache, intake=self._intake, authority=SoleProvider(provider_id, types)
        )
        reads = GpuService(self._cache, hub=self._hub, gate=self._intake.gate, readiness=None)
        directory = self._directory(provider_id)
        limiter = Limiter(traffic=self._traffic)
        face = Face((*reads.methods, *writes.methods), str(directory / _SOCKET), limiter=limiter)
        try:
            listening = await load_transport(self._transport).listen(face, self._metrics)
        except BaseException:
            _remove(directory)
            raise
        return PrivateDoor(directory, listening)

    def _directory(self, provider_id: str) -> Path:
        import tempfile  # only who has such a provider pays for it

        prefix = f"{provider_id}-"
        if self._beside:
            parent = Path(self._beside).absolute().parent
            longest = len(f"{parent}/{prefix}/{_SOCKET}".encode()) + _SUFFIX_BYTES
            if longest <= MAX_PATH_BYTES:
                _sweep(parent, prefix)
                with suppress(OSError):
                    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        return Path(tempfile.mkdtemp(prefix=f"device-api-{prefix}"))


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what a server that was killed has left: its sockets are locked by nobody."""
    for lock in parent.glob(f"{prefix}????????/{_SOCKET}.lock"):
        with suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.parent)


def _remove(directory: Path) -> None:
    import shutil  # as tempfile

    shutil.rmtree(directory, ignore_errors=True)
