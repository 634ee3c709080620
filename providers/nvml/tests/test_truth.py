"""The truth table: every XID of the policy and every signal, real pynvml, through the provider."""

from __future__ import annotations

import pytest
from device_api_fake_nvml import RecoveryAction
from device_api_fake_nvml.health import Bank
from device_api_nvml.recovery import ACTIONS
from device_api_nvml.xid import Effect, builtin_table

FATAL = [row for row in builtin_table() if row.effect is Effect.FATAL]
HARMLESS = [row for row in builtin_table() if row.effect is not Effect.FATAL]
NODE = 8


@pytest.fixture(autouse=True)
def patient(bench):
    """Nothing hangs here; a busy machine must not look like it."""
    bench.call_seconds = 5.0


def names(node):
    return [gpu.uuid.lower() for gpu in node.gpus()]


@pytest.mark.parametrize("start", range(0, len(FATAL), NODE))
def test_every_fatal_xid(bench, start):
    node = bench.node(gpus=NODE)
    sink = bench.ready(node).sink
    rows = list(zip(names(node), FATAL[start : start + NODE], strict=False))
    for number, (_, row) in enumerate(rows):
        node.inject_xid(number, row.code)
    for gpu, row in rows:
        sink.wait_for(gpu, "False", f"Xid{row.code}")
        assert sink.status(gpu)[2] == row.action
        assert row.mnemonic in sink.message(gpu)
    sink.polls(2)
    assert all(sink.is_(gpu, "False", f"Xid{row.code}") for gpu, row in rows)
    bench.clock.add(61)
    for gpu, _ in rows:
        sink.wait_for(gpu, "True", "Initialized")
        assert sink.status(gpu)[2] == ""


@pytest.mark.parametrize("start", range(0, len(HARMLESS), NODE))
def test_every_other_xid(bench, start):
    node = bench.node(gpus=NODE)
    sink = bench.ready(node).sink
    rows = list(zip(names(node), HARMLESS[start : start + NODE], strict=False))
    for number, (_, row) in enumerate(rows):
        node.inject_xid(number, row.code)
    for gpu, row in rows:
        if row.effect is Effect.INFORM:
            sink.wait(lambda g=gpu, r=row: f"Warning: XID {r.code} " in sink.message(g))
    sink.polls()
    for gpu, row in rows:
        assert sink.status(gpu) == ("True", "Initialized", "")
        assert (f"XID {row.code} " in sink.message(gpu)) == (row.effect is Effect.INFORM)
    assert all(said.status == "True" for said in sink.all_said)


@pytest.mark.parametrize("value", sorted(ACTIONS))
def test_every_recovery_action(bench, value):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.health.ask_for(0, RecoveryAction(value))
    sink.wait_for(gpu, "False", "RecoveryActionRequired", type_="RecoveryActionNone")
    assert sink.status(gpu)[2] == ACTIONS[value].action
    assert ACTIONS[value].wish in sink.message(gpu, "RecoveryActionNone")
    node.health.ask_for(0, RecoveryAction.NONE)
    sink.polls(3)
    assert sink.is_(gpu, "False", type_="RecoveryActionNone")
    bench.clock.add(61)
    sink.wait_for(gpu, "True", type_="RecoveryActionNone")


def level(signal, bad, good, element=0):
    """A reading that is bad, and good again."""
    return (
        lambda node: node.signals.set(0, signal, bad, element),
        lambda node: node.signals.set(0, signal, good, element),
    )


RESET = (lambda node: node.reset(0),)
# model, type, reason, action, for how long it has to last, what makes it, what ends it
SIGNALS = [
    ("h100", "MemoryHealthy", "EccUncorrectable", "COMPONENT_RESET", 0,
     lambda n: n.health.count_ecc_errors(0), *RESET),
    ("t4", "MemoryHealthy", "EccUncorrectable", "COMPONENT_RESET", 0,
     lambda n: n.health.count_ecc_errors(0), *RESET),
    ("h100", "MemoryHealthy", "SramThresholdExceeded", "CONTACT_SUPPORT", 0,
     *level("sram-threshold-exceeded", 1, 0)),
    ("a100", "MemoryHealthy", "RowRemapFailed", "CONTACT_SUPPORT", 0,
     *level("remap-failure", 1, 0)),
    ("t4", "MemoryHealthy", "PageRetirementPending", "COMPONENT_RESET", 0,
     lambda n: n.health.retire_pages(0), *RESET),
    ("h100", "ThermalHealthy", "HwThermalSlowdown", "CONTACT_SUPPORT", 30,
     lambda n: n.health.set_temperature(0, 95), lambda n: n.health.set_temperature(0, 40)),
    ("t4", "ThermalHealthy", "HwSlowdown", "CONTACT_SUPPORT", 30,
     *level("clock-reasons", 0x8, 0x1)),
    ("h100", "PowerHealthy", "HwPowerBrake", "CONTACT_SUPPORT", 30,
     *level("clock-reasons", 0x88, 0x1)),
    ("h100", "NVLinkHealthy", "NvlinkDown", "COMPONENT_RESET", 0,
     lambda n: n.health.set_nvlink(0, 3, up=False), lambda n: n.health.set_nvlink(0, 3, up=True)),
    ("h100", "NVLinkHealthy", "NvlinkErrors", "CONTACT_SUPPORT", 0,
     lambda n: n.health.count_nvlink_errors(0, 2, "crc-flit", 100_000), lambda n: None),
    ("b200", "NVLinkHealthy", "NvlinkErrors", "CONTACT_SUPPORT", 0,
     lambda n: n.health.count_nvlink_errors(0, 2, "receive-errors", 100_000), lambda n: None),
    ("b200", "NVLinkHealthy", "NvlinkRecoveryFailed", "COMPONENT_RESET", 0,
     lambda n: n.health.count_nvlink_errors(0, 2, "recoveries-failed"), lambda n: None),
    ("h100", "FabricHealthy", "FabricNotReady", "CONTACT_SUPPORT", 300,
     *level("fabric-state", 2, 3)),
    ("h100", "FabricHealthy", "FabricRegistrationFailed", "CONTACT_SUPPORT", 0,
     *level("fabric-status", 999, 0)),
    ("h100", "FabricHealthy", "FabricUnhealthy", "CONTACT_SUPPORT", 0,
     *level("fabric-health-summary", 2, 1)),
    ("h100", "FabricHealthy", "FabricUnhealthy", "CONTACT_SUPPORT", 0,
     *level("fabric-health-mask", 0x1A9, 0x1AA)),
    ("h100", "FabricHealthy", "FabricUnhealthy", "CONTACT_SUPPORT", 0,
     *level("fabric-health-mask", 0x3AA, 0x1AA)),
    ("h100", "PcieHealthy", "PcieWidthDegraded", "CONTACT_SUPPORT", 60,
     *level("pcie-width", 8, 16)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "type_", "reason", "action", "lasts", "breaks", "mends"),
    SIGNALS,
    ids=[f"{s[0]}-{s[2]}-{n}" for n, s in enumerate(SIGNALS)],
)
def test_every_signal(bench, model, type_, reason, action, lasts, breaks, mends):
    node = bench.node(gpus=1, model=model)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    sink.wait_for(gpu, "True", "Good", type_=type_)
    sink.polls(3)
    breaks(node)
    if lasts:
        sink.wait(lambda: "Warning: " in sink.message(gpu, type_))
        sink.polls()
        assert sink.is_(gpu, "True", type_=type_)
        bench.clock.add(lasts)
    sink.wait_for(gpu, "False", reason, type_=type_)
    assert sink.status(gpu) == ("True", "Initialized", action)
    sink.polls(2)
    assert sink.is_(gpu, "False", reason, type_=type_)
    mends(node)
    sink.polls(4)
    assert sink.is_(gpu, "False", reason, type_=type_)
    bench.clock.add(61)
    sink.wait_for(gpu, "True", "Good", type_=type_)
    assert sink.status(gpu)[2] == ""


# model, settings, type, the warning, what makes it
WARNINGS = [
    ("a100", "MemoryHealthy", "RowRemapPending", lambda n: n.health.remap_row(0)),
    ("b200", "MemoryHealthy", "memory channel", lambda n: n.health.need_repair(0, channel=True)),
    (
        "a100",
        "MemoryHealthy",
        "no spare rows left",
        lambda n: n.signals.set(0, "remap-banks", 1, 4),
    ),
    ("h100", "ThermalHealthy", "it is hot", lambda n: n.signals.set(0, "clock-reasons", 0x20)),
    ("h100", "ThermalHealthy", "margin -1 C", lambda n: n.signals.set(0, "temperature-margin", -1)),
    ("h100", "FabricHealthy", "limited", lambda n: n.signals.set(0, "fabric-health-summary", 3)),
    ("h100", "FabricHealthy", "route", lambda n: n.signals.set(0, "fabric-health-mask", 0x1A6)),
]


@pytest.mark.parametrize(("model", "type_", "text", "makes"), WARNINGS)
def test_every_warning(bench, model, type_, text, makes):
    node = bench.node(gpus=1, model=model)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    makes(node)
    sink.wait(lambda: text in sink.message(gpu, type_))
    sink.polls()
    assert sink.status(gpu, type_) == ("True", "Good", "")
    assert "Warning: " in sink.message(gpu, type_)


def test_a_pending_remap_can_be_made_a_fault_that_a_reset_ends(bench):
    node = bench.node(gpus=1, model="a100")
    sink = bench.ready(node, row_remap_pending="fault").sink
    [gpu] = names(node)
    node.health.remap_row(0, bank=Bank.MAX)
    sink.wait_for(gpu, "False", "RowRemapPending", type_="MemoryHealthy")
    assert sink.status(gpu)[2] == "COMPONENT_RESET"
    node.reset(0)
    sink.polls(3)
    bench.clock.add(61)
    sink.wait_for(gpu, "True", type_="MemoryHealthy")


def test_too_many_replays_that_last_are_a_fault(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node, pcie_seconds=0.3).sink
    [gpu] = names(node)
    sink.wait_for(gpu, "True", type_="PcieHealthy")
    sink.keeps(
        lambda: node.signals.increase(0, "pcie-replays", 50),
        lambda: sink.is_(gpu, "False", "PcieReplays", "PcieHealthy"),
    )


@pytest.mark.parametrize(
    ("model", "absent"),
    [
        ("t4", {"RecoveryActionNone", "NVLinkHealthy", "FabricHealthy"}),
        ("a100", {"FabricHealthy"}),
        ("h100", set()),
    ],
)
def test_what_a_board_does_not_have_is_absent(bench, model, absent):
    node = bench.node(gpus=1, model=model)
    running = bench.ready(node)
    [gpu] = names(node)
    running.sink.polls(3)
    assert running.sink.types(gpu) == set(running.provider.types) - absent
    assert all(said.status == "True" for said in running.sink.all_said)


def test_a_signal_that_fails_is_unknown_and_only_that(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.calls.fail("nvmlDeviceGetMarginTemperature", 999)
    sink.wait_for(gpu, "Unknown", "ReadingFailed", type_="ThermalHealthy")
    assert sink.is_(gpu, "True")
    assert sink.is_(gpu, "True", type_="MemoryHealthy")
    node.calls.clear()
    sink.wait_for(gpu, "True", type_="ThermalHealthy")


def test_nothing_is_said_well_of_a_gpu_that_is_lost(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.lose(0)
    sink.wait_for(gpu, "False", "GpuLost")
    sink.wait_for(gpu, "Unknown", "GpuLost", type_="PcieHealthy")
    assert "True" not in {sink.status(gpu, type_)[0] for type_ in sink.types(gpu)}


def heals_after_a_restart_only_with_link_3(bench, first, node, reason):
    """The provider is started again: the fault stays while that link is down."""
    [gpu] = names(node)
    first.stop()
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.polls(3)
    bench.clock.add(1000)
    sink.polls(3)
    assert sink.is_(gpu, "False", reason, "NVLinkHealthy")
    node.health.set_nvlink(0, 3, up=True)
    sink.polls(3)
    bench.clock.add(61)
    sink.wait_for(gpu, "True", type_="NVLinkHealthy")


def test_a_link_that_is_down_is_remembered_across_a_restart(bench):
    node = bench.node(gpus=1)
    first = bench.ready(node)
    [gpu] = names(node)
    first.sink.wait_for(gpu, "True", type_="NVLinkHealthy")
    node.health.set_nvlink(0, 3, up=False)
    first.sink.wait_for(gpu, "False", "NvlinkDown", type_="NVLinkHealthy")
    heals_after_a_restart_only_with_link_3(bench, first, node, "NvlinkDown")


def test_a_link_that_a_message_does_not_number_is_remembered_too(bench):
    """It is among what was also seen, so that every link is looked for after the restart."""
    node = bench.node(gpus=1, model="b200")
    first = bench.ready(node)
    [gpu] = names(node)
    first.sink.wait_for(gpu, "True", type_="NVLinkHealthy")
    node.health.count_nvlink_errors(0, 2, "recoveries-failed")
    first.sink.wait_for(gpu, "False", "NvlinkRecoveryFailed", type_="NVLinkHealthy")
    node.health.set_nvlink(0, 3, up=False)
    first.sink.wait(lambda: "Also seen: NvlinkDown" in first.sink.message(gpu, "NVLinkHealthy"))
    heals_after_a_restart_only_with_link_3(bench, first, node, "NvlinkRecoveryFailed")


def test_an_operator_clears_a_signal_and_the_next_reading_decides(bench):
    node = bench.node(gpus=1)
    running = bench.ready(node)
    sink = running.sink
    [gpu] = names(node)
    sink.wait_for(gpu, "True", type_="NVLinkHealthy")
    node.health.set_nvlink(0, 3, up=False)
    sink.wait_for(gpu, "False", "NvlinkDown", type_="NVLinkHealthy")
    running.provider.clear(gpu, "NVLinkHealthy")  # it is meant to be down
    sink.wait_for(gpu, "True", type_="NVLinkHealthy")
    node.signals.set(0, "remap-failure", 1)
    sink.wait_for(gpu, "False", "RowRemapFailed", type_="MemoryHealthy")
    running.provider.clear(gpu, "MemoryHealthy")
    sink.polls(3)
    assert sink.is_(gpu, "False", "RowRemapFailed", "MemoryHealthy")
