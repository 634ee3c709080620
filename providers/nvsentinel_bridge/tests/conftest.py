"""A daemon as the bridge sees it, NVSentinel as a real gRPC client, and its sample events."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge._proto.health_event_pb2_grpc import PlatformConnectorStub
from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.provider import NvsentinelProvider
from google.protobuf import json_format

from device_api_core.errors import AlreadyExists, LimitExceeded, NotFound, SinkClosed
from device_api_core.plugins import Update
from device_api_core.resources import (
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)
from device_api_core.series import Tally
from device_api_core.validation import check_action, check_conditions, check_name, check_spec

TIMEOUT = 10.0
NODE = "gpu-node-07"
FIRST = "gpu-455d8f70-2051-db6c-0430-ffc457bff834"
SECOND = "gpu-0aa1b2c3-77d0-4e19-8f21-9b3c5d7e1f02"
SPECS = {
    FIRST: GpuSpec(
        uuid="GPU-455d8f70-2051-db6c-0430-ffc457bff834", index=0, pci_bus_id="0000:1b:00.0"
    ),
    SECOND: GpuSpec(
        uuid="GPU-0aa1b2c3-77d0-4e19-8f21-9b3c5d7e1f02", index=1, pci_bus_id="0008:01:00.0"
    ),
}
SAMPLES: dict[str, dict] = json.loads(
    (Path(__file__).parent / "samples.json").read_text(encoding="utf-8")
)

_marks = itertools.count(1)


class RecordingSink:
    """Keeps the sink's contract. ``state`` is what readers would see of the bridge's conditions;
    take the next run's sink with :meth:`restarted`."""

    def __init__(self, specs: Mapping[str, GpuSpec] = SPECS) -> None:
        self.state: dict[str, dict[str, Condition]] = {}
        self.actions: dict[str, str] = {}
        self.registrants: dict[str, set[str]] = {name: {"other"} for name in specs}
        self.specs = dict(specs)
        self.tally = Tally()
        self.history: list[tuple[str, str, str]] = []
        self.writes = 0
        self.summary = ""
        self.is_synced = False
        self.closed = False
        self.refusing = False
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        return f"<RecordingSink {self.state} {self.summary!r}>"

    def restarted(self, *, lose: bool = False) -> RecordingSink:
        """The daemon after a restart: True is not believed any more. ``lose`` forgets it all."""
        sink = RecordingSink(self.specs)
        for gpu, conditions in {} if lose else self.state.items():
            sink.state[gpu] = {
                c.type: replace(c, status=ConditionStatus.UNKNOWN, reason="ServerRestarted")
                if c.status is ConditionStatus.TRUE
                else c
                for c in conditions.values()
                if "/Mark" not in c.type
            }
        return sink

    # --- what the bridge calls

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        check_name(gpu)
        check_spec(spec)
        with self._open():
            new = gpu not in self.registrants
            self.registrants.setdefault(gpu, set()).add("nvsentinel")
            self.specs.setdefault(gpu, spec)
            return new

    def withdraw(self, gpu: str) -> None:
        with self._open():
            self.registrants[gpu].discard("nvsentinel")
            if not self.registrants[gpu]:
                self._remove(gpu)

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        raise AssertionError("the bridge writes whole statuses")

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        check_conditions(conditions)
        check_action(recommended_action)
        with self._open():
            if gpu not in self.registrants:
                raise NotFound(f"no GPU {gpu}")
            if self.refusing:
                raise LimitExceeded("the object is too large")
            before = self.state.get(gpu, {})
            self.state[gpu] = {c.type: self._enter(before.get(c.type), c) for c in conditions}
            self.actions[gpu] = recommended_action
            self.writes += 1
            for c in self.state[gpu].values():
                old = before.get(c.type)
                if old is None or old.status is not c.status:
                    self.history.append((gpu, c.type, c.status.value))

    def update(self, *gpus: str) -> AbstractContextManager[Update]:
        raise AssertionError("the bridge holds no updates")

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        with self._open():
            return {gpu: tuple(c.values()) for gpu, c in self.state.items() if c}

    def gpus(self) -> Sequence[Gpu]:
        with self._open():
            return tuple(
                Gpu(
                    ObjectMeta(name),
                    self.specs[name],
                    GpuStatus(tuple(self.state.get(name, {}).values())),
                )
                for name in sorted(self.registrants)
            )

    def synced(self) -> None:
        with self._open():
            self.is_synced = True

    def alive(self, summary: str = "") -> None:
        with self._open():
            self.summary = summary

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        self.tally.count(name, amount, labels)

    def counted(self, name: str) -> dict[str, float]:
        """A counter's values by outcome."""
        found = self.tally.read().counts.items()
        return {s.labels[0][1]: value for s, value in found if s.name == name}

    def gauge(self, name: str, value: float | None, /, **labels: object) -> None:
        self.tally.gauge(name, value, labels)

    # --- what the daemon, its operator and the tests do

    def add(self, gpu: str, spec: GpuSpec) -> None:
        with self._changed:
            if gpu in self.registrants and self.specs[gpu].uuid not in ("", spec.uuid):
                raise AlreadyExists(gpu)
            self.registrants.setdefault(gpu, set()).add("other")
            self.specs[gpu] = spec

    def forget(self, gpu: str) -> None:
        with self._changed:
            self._remove(gpu)

    def set_aside(self, gpu: str, type_: str, reason: str) -> None:
        """The daemon turns a condition Unknown by itself."""
        with self._changed:
            self.state[gpu][type_] = Condition(
                type_, ConditionStatus.UNKNOWN, reason, "", time.time_ns(), "nvsentinel"
            )

    def close(self) -> None:
        with self._changed:
            self.closed = True

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, holds: Callable[[RecordingSink], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self), TIMEOUT), self

    def get(self, gpu: str, check: str) -> Condition:
        with self._changed:
            return self.state[gpu][_type(check)]

    def statuses(self, gpu: str) -> dict[str, str]:
        """Status by check; the roll-up as ``*``."""
        with self._changed:
            found = {
                "*" if t == "NVSentinelHealth" else t.partition("/")[2]: c.status.value
                for t, c in self.state.get(gpu, {}).items()
            }
        return {check: status for check, status in found.items() if not check.startswith("Mark")}

    def _remove(self, gpu: str) -> None:
        del self.registrants[gpu]
        del self.specs[gpu]
        self.state.pop(gpu, None)

    def _enter(self, old: Condition | None, new: Condition) -> Condition:
        when = new.last_transition_time or time.time_ns()
        if old is not None and old.status is new.status:
            when = old.last_transition_time or when
        return replace(new, last_transition_time=when, provider_id="nvsentinel")

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._changed:
            if self.closed:
                raise SinkClosed("closed")
            yield
            self._changed.notify_all()


def _type(check: str) -> str:
    return "NVSentinelHealth" if check == "*" else f"nvsentinel.nvidia.com/{check}"


class Running:
    """A provider that runs, and a client of its socket."""

    def __init__(self, sink: RecordingSink, options: BridgeOptions, state_dir: str) -> None:
        self.sink = sink
        self.options = options
        self.failure: BaseException | None = None
        self.provider = NvsentinelProvider(options, state_dir)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        sink.wait(lambda s: s.is_synced or self.failure)
        if self.failure:
            raise self.failure
        target = f"unix:{options.socket}" if options.socket else options.tcp_address
        self._channel = grpc.insecure_channel(target)
        self._stub = PlatformConnectorStub(self._channel)

    def _run(self) -> None:
        try:
            self.provider.run(self.sink, self._stop)
        except BaseException as error:  # noqa: BLE001
            self.failure = error
            self.sink.notify()

    def send(self, *events: pb.HealthEvent, token: str | None = None) -> None:
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._stub.HealthEventOccurredV1(
            pb.HealthEvents(version=1, events=events), timeout=TIMEOUT, metadata=metadata
        )

    def send_bytes(self, request: bytes) -> None:
        method = "/datamodels.PlatformConnector/HealthEventOccurredV1"
        self._channel.unary_unary(method, _registered_method=False)(request, timeout=TIMEOUT)

    def settle(self) -> None:
        """Wait until everything sent so far took effect: a marker event passes through last."""
        mark = f"Mark{next(_marks)}"
        self.send(event(mark, healthy=True))
        type_ = _type(mark)
        self.sink.wait(lambda s: all(type_ in s.state.get(gpu, {}) for gpu in s.registrants))

    def stop(self) -> float:
        """Stop as the daemon does; returns how long it took."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._channel.close()
        return time.monotonic() - began


def event(
    check: str = "GpuMemWatch",
    *,
    gpu: str | None = None,
    codes: Sequence[str] = (),
    healthy: bool = False,
    fatal: bool = False,
    seconds: float = 1000.0,
    text: str = "",
    action: int = pb.NONE,
    entities: Sequence[tuple[str, str]] = (),
    **fields,
) -> pb.HealthEvent:
    """An event at ``seconds`` of 1970, of the whole node or of one GPU."""
    made = pb.HealthEvent(
        version=1,
        agent="test",
        componentClass=fields.pop("componentClass", "GPU"),
        nodeName=fields.pop("nodeName", NODE),
        checkName=check,
        isHealthy=healthy,
        isFatal=fatal,
        message=text,
        errorCode=codes,
        recommendedAction=action,
        **fields,
    )
    made.generatedTimestamp.FromNanoseconds(int(seconds * 1e9))
    for type_, value in [*([("GPU_UUID", gpu)] if gpu else []), *entities]:
        made.entitiesImpacted.add(entityType=type_, entityValue=value)
    return made


def sample(name: str, **changes) -> pb.HealthEvent:
    """One of the sample events, with other values for some fields."""
    return json_format.ParseDict({**SAMPLES[name], **changes}, pb.HealthEvent())


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("n")


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Running]]:
    """Start a bridge on a socket and a journal of the test's own."""
    running: list[Running] = []

    def begin(sink: RecordingSink | None = None, *, keep: bool = True, **options) -> Running:
        values = {"socket": str(folder / "b.sock"), "node_name": NODE, "poll_seconds": 0.1}
        bridge = Running(
            sink or RecordingSink(),
            BridgeOptions(**{**values, **options}),
            str(folder / "state") if keep else "",
        )
        running.append(bridge)
        return bridge

    yield begin
    for bridge in running:
        bridge.stop()
