"""The server's real services without sockets: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from device_api_core import codec
from device_api_core._proto import admin_pb2, gpu_pb2, provider_pb2
from device_api_core.cache import DeviceCache
from device_api_core.clock import SystemClock
from device_api_core.events import EventLog
from device_api_core.intake import Intake
from device_api_core.metrics import Metrics
from device_api_core.readiness import Readiness
from device_api_core.reservations import Reservations
from device_api_core.roster import Roster
from device_api_core.server.admin import Admin, ServerFacts
from device_api_core.server.faces import Faces
from device_api_core.server.introspection import Health, reflection
from device_api_core.server.limits import Traffic
from device_api_core.server.transport import Method, ServerStream, Unary
from device_api_core.settings import Settings
from device_api_core.watch import WatchHub

DESCRIPTORS = {
    (service.full_name, method.name): method
    for file in (gpu_pb2, provider_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Services:
    """Everything behind the transports, as the daemon puts it together, with all on one face."""

    def __init__(self) -> None:
        clock = SystemClock()
        events = EventLog(wall=clock.wall, monotonic=clock.monotonic)
        metrics = Metrics(version="0", node="node")
        hub = WatchHub(1_000, encode_bookmark=codec.bookmark)
        self.cache = DeviceCache(hub, events=events, metrics=metrics, wall=clock.wall)
        readiness = Readiness(
            [],
            (),
            known_gpus=lambda: len(self.cache),
            clock=clock.monotonic,
            changed=lambda _: None,
        )
        self.intake = Intake(
            self.cache, readiness=readiness, events=events, metrics=metrics, clock=clock
        )
        roster = Roster(self.cache, self.intake, _nobody, frozenset)
        facts = ServerFacts("0", "node", clock.wall())
        admin = Admin(
            self.cache,
            intake=self.intake,
            roster=roster,
            events=events,
            readiness=readiness,
            facts=facts,
            tell_cleared=lambda *_: None,
        )
        [face, _] = Faces(
            Settings(single_socket=True),
            cache=self.cache,
            hub=hub,
            intake=self.intake,
            readiness=readiness,
            reservations=Reservations(),
            admin=admin,
            traffic=Traffic(),
        ).all()
        own = (*Health(face.services).methods, *reflection(face.services))
        self.methods: tuple[Method, ...] = (*face.methods, *own)

    @property
    def state(self) -> tuple[int, bytes]:
        """What everybody sees."""
        return self.cache.version, self.cache.list_response()


async def _nobody() -> tuple[Any, ...]:
    return ()


async def call(method: Method, requests: list[bytes]) -> list[bytes]:
    """All answers; raises what the method raises."""
    if isinstance(method, Unary):
        return [await method.call(requests[0])]
    if isinstance(method, ServerStream):
        stream = await method.open(requests[0])
        try:
            return list(iter(stream.take, None))
        finally:
            stream.close()
    answers: list[bytes] = []

    async def respond(answer: bytes) -> None:
        answers.append(answer)

    await method.run(_each(requests), respond)
    return answers


async def _each(requests: Iterable[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


def request_type(method: Method) -> type[Message] | None:
    """What a method of ours is asked with."""
    found = DESCRIPTORS.get((method.service, method.name))
    return GetMessageClass(found.input_type) if found is not None else None


def response_type(method: Method) -> type[Message] | None:
    """What a method of ours answers with."""
    found = DESCRIPTORS.get((method.service, method.name))
    return GetMessageClass(found.output_type) if found is not None else None
