"""What is fuzzed of the wire: headers of the h2 transport whose engine has a fuzzer of its own,
and the services behind both transports."""

from __future__ import annotations

import asyncio
import string

import grpc
from device_api_transport_h2 import status
from messages import Source, build
from services import Services, call, request_type, response_type

from device_api_core._proto import gpu_pb2
from device_api_core.errors import DeviceApiError

_HEADER = frozenset(string.printable.encode()) - frozenset(b"\r\n\t\x0b\x0c")


def h2_words(data: bytes) -> None:
    """Headers of the h2 transport: what comes in, and what goes out as bytes of a header."""
    assert status.http_refusal(b"POST", data) in {None, "415"}
    text = data.decode("utf-8", errors="replace")
    for name, value in status.trailers("INTERNAL", text):
        assert name
        assert len(value) <= 4_096
        assert _HEADER.issuperset(value)


def rpc(data: bytes) -> None:
    """Any calls of any methods: answers, or errors of ours that change nothing."""
    with asyncio.Runner() as runner:
        runner.run(_calls(Source(data)))


async def _calls(source: Source) -> None:
    services = Services()
    while source:
        method = source.choose(services.methods)
        kind = request_type(method)
        requests = []
        for _ in range(1 + source.number(4)):
            if kind is None or source.number(4) == 0:
                requests.append(source.take(source.number(64)))
            else:
                requests.append(build(kind, source).SerializeToString())
        # What holds an update and then errs has put its True in doubt.
        before = None if method.name == "Update" else services.state
        try:
            answers = await call(method, requests)
        except DeviceApiError as error:
            says_why(error)
            _is_refusal(error)
            assert before in {None, services.state}
        else:
            _check_answers(response_type(method), answers)
        _check_state(services)


def says_why(error: Exception) -> None:
    assert str(error)


def _is_refusal(error: DeviceApiError) -> None:
    assert grpc.StatusCode[error.code] is not grpc.StatusCode.INTERNAL


def _check_answers(kind: type | None, answers: list[bytes]) -> None:
    for answer in answers if kind is not None else ():
        kind().ParseFromString(answer)


def _check_state(services: Services) -> None:
    shown = gpu_pb2.ListGpusResponse.FromString(services.cache.list_response()).gpu_list
    assert shown.metadata.resource_version == str(services.cache.version)
    assert not services.intake.gate.holders
    for gpu in shown.items:
        types = [c.type for c in gpu.status.conditions]
        assert len(types) == len(set(types))
        assert "Ready" in types
        assert gpu.resource_version <= services.cache.version
