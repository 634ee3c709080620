"""What holds for any sequence of events: copies, order, restarts and GPUs that come late."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge.counts import Counts
from device_api_nvsentinel_bridge.events import clean, cut, read_event, screen
from device_api_nvsentinel_bridge.faults import Record
from device_api_nvsentinel_bridge.ledger import Ledger
from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.resolve import pci_address
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from device_api_core.resources import Condition, ConditionStatus, Gpu, ObjectMeta

from .conftest import FIRST, NODE, SECOND, SPECS, RecordingSink, Running, event

NOW = 10**18
OPTIONS = BridgeOptions(node_name=NODE)
CHECKS = ("GpuMemWatch", "SysLogsXIDError", "GpuDcgmConnectivityFailure")
GPUS = tuple(Gpu(ObjectMeta(name), spec) for name, spec in SPECS.items())


@st.composite
def events(draw: st.DrawFn) -> pb.HealthEvent:
    healthy = draw(st.booleans())
    return event(
        draw(st.sampled_from(CHECKS)),
        gpu=draw(st.sampled_from([None, FIRST, SECOND])),
        codes=draw(st.lists(st.sampled_from(["79", "48", "63"]), max_size=2, unique=True)),
        entities=draw(st.sampled_from([(), (("NVLINK", "3"),), (("NVLINK", "4"),)])),
        healthy=healthy,
        fatal=not healthy and draw(st.booleans()),
        seconds=draw(st.integers(1, 5)),
        action=draw(st.sampled_from([pb.NONE, pb.COMPONENT_RESET, pb.RESTART_BM])),
        text=draw(st.sampled_from(["a", "b"])),
        processingStrategy=draw(st.sampled_from([0, 1, 1, 1, 2, 3])),
    )


bounded = settings(max_examples=60, deadline=None)
sequences = st.lists(events(), max_size=14)


class Disk:
    """What a journal keeps of a ledger, as text."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], str] = {}
        self.events: dict[int, pb.HealthEvent] = {}

    def save(self, ledger: Ledger) -> None:
        changes, _ = ledger.collect()
        for number in changes.settled:
            del self.events[number]
        for key, record in changes.records.items():
            if record is None:
                self.records.pop(key, None)
            else:
                self.records[key] = json.dumps(record.to_json())

    def load(self) -> Ledger:
        records: dict[str, dict[str, Record]] = {}
        for (gpu, check), body in self.records.items():
            records.setdefault(gpu, {})[check] = Record.from_json(check, json.loads(body))
        return Ledger(records, 1000, Counts(lambda name, number, outcome: None))


def take(ledger: Ledger, number: int, message: pb.HealthEvent) -> None:
    if screen(message, OPTIONS) is None:
        ledger.take(number, read_event(message, NOW, OPTIONS), NOW)


def ledger_after(messages: Iterable[pb.HealthEvent], gpus: Sequence[Gpu] = GPUS) -> Ledger:
    ledger = Ledger({}, 1000, Counts(lambda name, number, outcome: None))
    ledger.see(gpus, NOW)
    for number, message in enumerate(messages):
        take(ledger, number, message)
    return ledger


def shown(ledger: Ledger) -> dict[str, object]:
    return {gpu: ledger.report(gpu) for gpu in SPECS}


def statuses(ledger: Ledger) -> dict[tuple[str, str], ConditionStatus]:
    return {
        (gpu, c.type.partition("/")[2]): c.status
        for gpu in SPECS
        if (report := ledger.report(gpu)) is not None
        for c in report.conditions
    }


def concerns(message: pb.HealthEvent, gpu: str) -> bool:
    named = {e.entityValue for e in message.entitiesImpacted if e.entityType == "GPU_UUID"}
    return not named or gpu in named


@given(sequences, st.integers(1, 3))
@bounded
def test_copies_change_nothing(messages, copies):
    once = shown(ledger_after(messages))
    assert shown(ledger_after([m for m in messages for _ in range(copies)])) == once
    assert shown(ledger_after(messages * copies)) == once


@given(sequences)
@bounded
def test_only_a_healthy_event_of_the_check_ends_a_fault(messages):
    ledger = ledger_after([])
    before: dict[tuple[str, str], ConditionStatus] = {}
    for number, message in enumerate(messages):
        take(ledger, number, message)
        after = statuses(ledger)
        for (gpu, check), status in after.items():
            if before.get((gpu, check), status) is status or status is ConditionStatus.FALSE:
                continue
            evidence = message.isHealthy or before[gpu, check] is ConditionStatus.TRUE
            assert evidence
            assert concerns(message, gpu)
            assert check in ("", message.checkName)
            assert message.processingStrategy in (0, 1)
        assert set(before) <= set(after)
        before = after


@given(sequences)
@bounded
def test_a_late_event_changes_nothing(messages):
    ledger = ledger_after([])
    newest: dict[tuple[str, str], int] = {}
    for number, message in enumerate(messages):
        before = statuses(ledger)
        take(ledger, number, message)
        after = statuses(ledger)
        for gpu in SPECS:
            key = gpu, message.checkName
            if screen(message, OPTIONS) is not None or not concerns(message, gpu):
                continue
            if message.generatedTimestamp.seconds < newest.get(key, 0):
                assert after[key] is before[key]
            else:
                newest[key] = message.generatedTimestamp.seconds


@given(st.data())
@bounded
def test_the_newest_word_counts_in_any_order(data):
    older = data.draw(st.lists(events(), max_size=10))
    bad = data.draw(st.booleans())
    last = event(CHECKS[0], gpu=FIRST, healthy=not bad, fatal=bad, codes=["1"] * bad, seconds=9)
    copies = [*older, *older, last, last]
    ledger = ledger_after(data.draw(st.permutations(copies)))
    expected = ConditionStatus.FALSE if bad else ConditionStatus.TRUE
    assert statuses(ledger)[FIRST, CHECKS[0]] is expected


@given(sequences, st.data())
@bounded
def test_a_restart_or_a_crash_anywhere_makes_no_difference(messages, data):
    expected = shown(ledger_after(messages))
    disk = Disk()
    ledger = disk.load()
    ledger.see(GPUS, NOW)
    for number, message in enumerate(messages):
        if screen(message, OPTIONS) is None:
            disk.events[number] = message
        take(ledger, number, message)
        what = data.draw(st.sampled_from(["go on", "save", "crash", "save and crash"]))
        if "save" in what:
            disk.save(ledger)
        if "crash" in what:
            ledger = disk.load()
            ledger.see(GPUS, NOW)
            for kept, again in disk.events.items():
                take(ledger, kept, again)
    assert shown(ledger) == expected


@given(sequences, st.integers(0, 14), st.integers(0, 14))
@bounded
def test_a_gpu_that_comes_late_ends_like_the_others(messages, first, second):
    expected = shown(ledger_after(messages))
    ledger = Ledger({}, 1000, Counts(lambda name, number, outcome: None))
    for number, message in enumerate(messages):
        ledger.see([g for g, at in zip(GPUS, (first, second), strict=True) if at <= number], NOW)
        take(ledger, number, message)
    ledger.see(GPUS, NOW)
    assert shown(ledger) == expected
    assert ledger.waiting == 0
    changes, _ = ledger.collect()
    settled = [n for n, m in enumerate(messages) if screen(m, OPTIONS) is None]
    assert sorted(changes.settled) == settled


def test_many_faults_stay_bounded_and_none_is_forgotten():
    check = "SysLogsXIDError"
    codes = [str(i) for i in range(200)]
    found = [
        event(check, gpu=FIRST, codes=[c], fatal=True, seconds=i + 1, text="x" * 50)
        for i, c in enumerate(codes)
    ]
    ledger = ledger_after(found)
    take(ledger, 1000, event(check, gpu=FIRST, codes=codes, healthy=True, seconds=300))
    assert statuses(ledger)[FIRST, check] is ConditionStatus.FALSE
    report = ledger.report(FIRST)
    assert all(len(c.message.encode()) <= 1024 for c in report.conditions)
    take(ledger, 1001, event(check, gpu=FIRST, healthy=True, seconds=301))
    assert statuses(ledger)[FIRST, check] is ConditionStatus.TRUE


@given(st.text(max_size=600), st.integers(4, 200))
def test_any_text_becomes_one_bounded_printable_line(text, limit):
    line = cut(clean(text), limit)
    assert line.isprintable()
    assert len(line.encode()) <= limit


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31))
def test_every_spelling_of_an_address_is_one_address(domain, bus, device):
    tail = f"{bus:02x}:{device:02x}"
    spelled = {
        f"{domain:04x}:{tail}",
        f"{domain:04X}:{tail}.0",
        f"{domain:08x}:{tail}.0".upper(),
        f" {domain:04x}:{tail} ",
    }
    assert {pci_address(s) for s in spelled} == {f"{domain:04x}:{tail}"}
    assert pci_address(f"{domain:04x}:{tail}.1") == f"{domain:04x}:{tail}.1"


@given(st.binary(max_size=300))
@settings(max_examples=40)
def test_any_message_is_read(noise):
    try:
        batch = pb.HealthEvents.FromString(b"\x12" + bytes([len(noise) % 128]) + noise)
    except DecodeError:
        return
    for message in batch.events:
        screen(message, OPTIONS)
        read_event(message, NOW, OPTIONS)


@given(st.lists(events(), max_size=6))
@settings(max_examples=12, deadline=None)
def test_through_the_socket_it_is_the_same(tmp_path_factory, messages):
    folder = tmp_path_factory.mktemp("p")
    options = BridgeOptions(socket=str(folder / "b"), node_name=NODE, poll_seconds=0.1)
    bridge = Running(RecordingSink(), options, str(folder / "state"))
    try:
        for message in messages:
            bridge.send(message)
        bridge.settle()
        expected = statuses(ledger_after(messages))
        seen = {
            (gpu, check.replace("*", "")): status
            for gpu in SPECS
            for check, status in bridge.sink.statuses(gpu).items()
            if check != "*" or (gpu, "") in expected
        }
        assert seen == {key: status.value for key, status in expected.items()}
    finally:
        bridge.stop()


def test_a_condition_says_nothing_without_a_record():
    assert ledger_after([]).report(FIRST) is None
    assert isinstance(ledger_after([event()]).report(FIRST).conditions[0], Condition)
