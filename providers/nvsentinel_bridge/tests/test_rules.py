"""The rules of the bridge one by one, through a real client and a real socket."""

from __future__ import annotations

import time

import grpc
import pytest
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb

from device_api_core.resources import ConditionStatus, GpuSpec

from .conftest import FIRST, SECOND, SPECS, RecordingSink, Running, event, sample

XID = "SysLogsXIDError"


def xid(*entities: tuple[str, str], **fields) -> pb.HealthEvent:
    return event(XID, codes=["79"], fatal=True, entities=entities, **fields)


def faulty(bridge: Running) -> set[str]:
    bridge.settle()
    return {g for g in bridge.sink.registrants if bridge.sink.statuses(g)["*"] == "False"}


# --- which GPU


@pytest.mark.parametrize(
    "entities",
    [
        [("GPU_UUID", "GPU-455D8F70-2051-DB6C-0430-FFC457BFF834")],
        [("PCI", "0000:1b:00")],
        [("PCI", "0000:1B:00.0")],
        [("PCI", "00000000:1b:00.0")],
        [("GPU", "0")],
        [("GPU", "1"), ("PCI", "0000:1b:00")],
        [("PCI", "0008:01:00"), ("GPU_UUID", FIRST)],
        [("NVSWITCH", "3"), ("PCI", "0008:01:00.0"), ("GPU", "0")],
        [("PCI", ""), ("GPU", "0")],
    ],
)
def test_the_first_gpu_is_found(start, entities):
    bridge = start()
    bridge.send(xid(*entities))
    assert faulty(bridge) == {FIRST}


@pytest.mark.parametrize(
    "entities",
    [
        [("GPU_UUID", "GPU-00000000-0000-0000-0000-000000000000"), ("PCI", "0000:1b:00")],
        [("PCI", "0000:ff:00"), ("GPU", "0")],
        [("GPU", "7")],
        [("NVSWITCH", "3"), ("PCI", "0000:1b:00"), ("GPU", "9")],
    ],
)
def test_an_event_of_an_unknown_gpu_is_kept_and_blames_nobody(start, entities):
    bridge = start()
    bridge.send(xid(*entities))
    assert faulty(bridge) == set()
    bridge.sink.wait(lambda s: "1 events waiting" in s.summary)


def test_an_index_that_two_gpus_have_is_no_evidence(start):
    bridge = start(RecordingSink({FIRST: GpuSpec(index=0), SECOND: GpuSpec(index=0)}))
    bridge.send(xid(("GPU", "0")))
    assert faulty(bridge) == set()


def test_an_address_that_two_gpus_claim_means_both(start):
    spec = GpuSpec(pci_bus_id="0000:1b:00.0")
    bridge = start(RecordingSink({FIRST: spec, SECOND: spec}))
    bridge.send(xid(("PCI", "0000:1b:00")))
    assert faulty(bridge) == {FIRST, SECOND}


def test_an_index_serves_where_the_gpus_address_is_not_known(start):
    bridge = start(RecordingSink({FIRST: GpuSpec(index=0)}))
    bridge.send(xid(("PCI", "0000:1b:00"), ("GPU", "0")))
    assert faulty(bridge) == {FIRST}


def test_several_gpus_in_one_event(start):
    bridge = start()
    bridge.send(xid(("GPU_UUID", FIRST), ("GPU_UUID", SECOND)))
    assert faulty(bridge) == {FIRST, SECOND}


def test_a_gpu_that_appears_gets_what_waited_for_it(start):
    bridge = start(RecordingSink({FIRST: SPECS[FIRST]}))
    bridge.send(sample("xid149"), sample("sxid"))
    bridge.settle()
    bridge.sink.add(SECOND, SPECS[SECOND])
    bridge.sink.wait(lambda s: s.statuses(SECOND).get("SysLogsSXIDError") == "False")
    assert bridge.sink.get(SECOND, XID).reason == "Xid149NetirLinkEvt"
    bridge.sink.wait(lambda s: "0 events waiting" in s.summary)


def test_a_gpu_that_appears_gets_what_holds_for_the_node(start):
    bridge = start(RecordingSink({FIRST: SPECS[FIRST]}))
    bridge.send(sample("dcgm_lost"))
    bridge.settle()
    bridge.sink.add(SECOND, SPECS[SECOND])
    bridge.sink.wait(lambda s: s.statuses(SECOND).get("*") == "Unknown")


def test_waiting_events_survive_a_restart(start):
    bridge = start(RecordingSink({FIRST: SPECS[FIRST]}))
    bridge.send(sample("xid149"))
    bridge.stop()
    again = start(bridge.sink.restarted())
    again.sink.add(SECOND, SPECS[SECOND])
    again.sink.wait(lambda s: s.statuses(SECOND).get(XID) == "False")


def test_too_many_waiting_events_drop_the_oldest_loudly(start, caplog):
    bridge = start(RecordingSink({FIRST: SPECS[FIRST]}), pending_limit=2)
    bridge.send(*(event(f"C{i}", gpu=SECOND, fatal=True) for i in range(4)))
    bridge.settle()
    assert caplog.text.count("dropped an event") == 2
    bridge.sink.wait(lambda s: "dropped 2" in s.summary)
    bridge.sink.add(SECOND, SPECS[SECOND])
    bridge.sink.wait(lambda s: s.statuses(SECOND).get("C3") == "False")
    assert set(bridge.sink.statuses(SECOND)) == {"C2", "C3", "*"}


# --- which events


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"nodeName": "gpu-node-08"}, "other node 1"),
        ({"processingStrategy": pb.STORE_ONLY}, "store-only 1"),
        ({"processingStrategy": pb.STORE_AND_ANALYSE}, "store-only 1"),
        ({"componentClass": "NIC"}, "other class 1"),
        ({"check": "SysLogsNICDriverError", "entities": [("NIC", "mlx5_0")]}, "other class 1"),
        ({"check": "Annoying"}, "other class 1"),
        ({"check": ""}, "malformed 1"),
        ({"healthy": True}, "malformed 1"),
    ],
)
def test_what_does_not_count_is_accepted_counted_and_without_effect(start, fields, counted):
    bridge = start(ignored_checks=("Annoying",))
    bridge.send(event(**{"check": XID, "fatal": True, **fields}))
    bridge.settle()
    assert set(bridge.sink.statuses(FIRST)) == {"*"}
    bridge.sink.wait(lambda s: counted in s.summary)
    outcome = counted.removesuffix(" 1").replace(" ", "_").replace("-", "_")
    assert bridge.sink.counted("events")[outcome] == 1


def test_a_healthy_store_only_event_clears_nothing(start):
    bridge = start()
    bridge.send(sample("xid79"))
    bridge.send(sample("reset_done", processingStrategy="STORE_ONLY"))
    assert faulty(bridge) == {FIRST}


def test_nic_errors_count_for_the_node_where_they_are_configured(start):
    bridge = start(component_classes=("gpu", "nic"))
    bridge.send(event("SysLogsNICDriverError", fatal=True, entities=[("NIC", "mlx5_0")]))
    assert faulty(bridge) == {FIRST, SECOND}


def test_node_names_are_compared_without_case(start):
    bridge = start(node_name="GPU-Node-07")
    bridge.send(xid())
    assert faulty(bridge) == {FIRST, SECOND}


def test_numbers_that_nobody_knows_yet_are_tolerated(start):
    bridge = start()
    unknown = xid(("GPU", "0"), action=77, processingStrategy=12)
    bridge.send(unknown)
    assert faulty(bridge) == {FIRST}
    assert bridge.sink.actions[FIRST] == "UNKNOWN_77"
    bridge.sink.wait(lambda s: "unknown enum 1" in s.summary)


def test_custom_actions(start):
    bridge = start()
    bridge.send(xid(("GPU", "0"), action=pb.CUSTOM, customRecommendedAction="swap\nthe riser"))
    bridge.settle()
    assert bridge.sink.actions[FIRST] == "swap the riser"
    empty = xid(("GPU", "1"), action=pb.CUSTOM)
    with pytest.raises(grpc.RpcError) as refused:
        bridge.send(xid(("GPU", "1")), empty)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "events[1].customRecommendedAction" in refused.value.details()
    assert faulty(bridge) == {FIRST}
    bridge.sink.wait(lambda s: "invalid 1" in s.summary)


@pytest.mark.parametrize(
    ("actions", "shown"),
    [
        (["COMPONENT_RESET", "RESTART_BM", "RESTART_VM"], "RESTART_BM"),
        (["RESTART_VM", "REPLACE_VM"], "REPLACE_VM"),
        (["CONTACT_SUPPORT", "RUN_FIELDDIAG", "RUN_DCGMEUD"], "RUN_FIELDDIAG"),
        (["CONTACT_SUPPORT", "NONE"], "CONTACT_SUPPORT"),
        (["UNKNOWN"], ""),
    ],
)
def test_the_strongest_action_is_shown(start, actions, shown):
    bridge = start()
    for i, action in enumerate(actions):
        number = pb.RecommendedAction.Value(action)
        bridge.send(event(f"C{i}", gpu=FIRST, fatal=True, seconds=9 - i, action=number))
    bridge.settle()
    assert bridge.sink.actions[FIRST] == shown


# --- faults and their end


def test_several_codes_are_active_until_all_are_gone(start):
    bridge = start()
    for i, code in enumerate(["A", "B", "C"]):
        bridge.send(event(gpu=FIRST, codes=[code], fatal=True, seconds=i + 1))
    bridge.send(event(gpu=FIRST, codes=["A", "B"], healthy=True, seconds=5))
    assert faulty(bridge) == {FIRST}
    bridge.send(event(gpu=FIRST, healthy=True, seconds=6))
    assert faulty(bridge) == set()


def test_a_healthy_event_clears_only_places_it_names(start):
    bridge = start()
    for i, link in enumerate(["3", "4"]):
        bridge.send(xid(("GPU", "0"), ("NVLINK", link), seconds=i + 1))
    healthy = {"healthy": True, "entities": [("GPU", "0"), ("NVLINK", "3")]}
    bridge.send(event(XID, seconds=3, **healthy))
    assert faulty(bridge) == {FIRST}
    bridge.send(event("Other", gpu=FIRST, healthy=True, seconds=9))
    assert faulty(bridge) == {FIRST}
    bridge.send(event(XID, gpu=FIRST, healthy=True, seconds=4))
    assert faulty(bridge) == set()


def test_milder_news_of_a_fault_is_no_recovery(start):
    bridge = start()
    bridge.send(xid(("GPU", "0"), action=pb.RESTART_BM))
    bridge.send(event(XID, codes=["79"], gpu=FIRST, seconds=2000))
    assert faulty(bridge) == {FIRST}
    assert bridge.sink.actions[FIRST] == "RESTART_BM"


def test_late_events_are_ignored_and_counted(start):
    bridge = start()
    bridge.send(event(XID, gpu=FIRST, healthy=True, seconds=1000))
    bridge.send(xid(("GPU", "0"), seconds=999))
    assert faulty(bridge) == set()
    bridge.sink.wait(lambda s: "late 1" in s.summary)


def test_an_event_from_the_future_or_without_time_counts_as_now(start):
    bridge = start()
    before = time.time_ns()
    bridge.send(xid(("GPU", "0"), seconds=4e9))
    timeless = xid(("GPU", "1"))
    timeless.ClearField("generatedTimestamp")
    bridge.send(timeless)
    assert faulty(bridge) == {FIRST, SECOND}
    for gpu in (FIRST, SECOND):
        assert before <= bridge.sink.get(gpu, XID).last_transition_time <= time.time_ns()
    bridge.send(event(XID, healthy=True, seconds=time.time()))
    assert faulty(bridge) == set()


def test_healthy_events_at_a_monitors_start_do_no_harm(start):
    bridge = start()
    bridge.send(sample("xid79"))
    checks = [event(f"Gpu{i}Watch", gpu=g, healthy=True) for i in range(12) for g in SPECS]
    bridge.send(*checks)
    bridge.send(*checks)
    assert faulty(bridge) == {FIRST}
    bridge.sink.wait(lambda s: "repeated 24" in s.summary)


# --- what is shown


def test_messages_are_one_line_of_at_most_1024_bytes(start):
    bridge = start()
    for i in range(30):
        text = f"line one\nname=\x1b[31mé\u202e{i}\x00" + "é" * 900
        bridge.send(event(f"C{i % 3}", gpu=FIRST, codes=[f"X_{i}"], fatal=True, text=text))
    bridge.settle()
    for condition in bridge.sink.state[FIRST].values():
        assert condition.message.isprintable()
        assert len(condition.message.encode()) <= 1024
    assert "line one name= [31mé 2" in bridge.sink.get(FIRST, "C2").message


@pytest.mark.parametrize(
    ("check", "word"),
    [
        ("XID_ERROR_48", "XIDERROR48"),
        ("node-policy.1", "NodePolicy1"),
        ("7up", "Check7up"),
        # Of their digests one begins with a digit, the other with a letter.
        ("!", "Check80af745e"),
        ("#", "Checkfdf702bb"),
    ],
)
def test_any_check_name_becomes_a_condition_type(start, check, word):
    bridge = start()
    bridge.send(event(check, gpu=FIRST, fatal=True))
    bridge.settle()
    assert bridge.sink.statuses(FIRST) == {word: "False", "*": "False"}


def test_check_names_that_look_alike_do_not_clear_one_another(start):
    bridge = start()
    bridge.send(event("A_B", gpu=FIRST, fatal=True))
    bridge.send(event("AB", gpu=FIRST, healthy=True, seconds=2000))
    assert faulty(bridge) == {FIRST}


def test_many_checks_stay_within_the_daemons_limit(start):
    bridge = start()
    bridge.send(*(event(f"C{i}", gpu=FIRST, healthy=True) for i in range(300)))
    bridge.send(event("Zz", gpu=FIRST, fatal=True))
    bridge.sink.wait(lambda s: s.statuses(FIRST).get("Zz") == "False")
    assert len(bridge.sink.state[FIRST]) == 33


# --- the daemon's side


def test_nothing_is_registered_before_there_is_something_to_say(start):
    bridge = start()
    bridge.send(sample("maintenance"), sample("xid149"))
    bridge.sink.wait(lambda s: s.state.get(SECOND))
    assert bridge.sink.registrants == {FIRST: {"other"}, SECOND: {"other", "nvsentinel"}}


def test_an_operator_clears_a_fault_for_good(start):
    bridge = start()
    bridge.send(sample("dbe"), sample("xid79"))
    bridge.settle()
    bridge.provider.clear(FIRST, "nvsentinel.nvidia.com/SysLogsXIDError")
    bridge.sink.wait(lambda s: s.statuses(FIRST)[XID] == "True")
    assert bridge.sink.statuses(FIRST)["GpuMemWatch"] == "False"
    bridge.provider.clear(FIRST, "NVSentinelHealth")
    bridge.sink.wait(lambda s: s.statuses(FIRST)["*"] == "True")
    bridge.send(sample("dbe", id="again"))
    assert faulty(bridge) == set()
    bridge.stop()
    again = start(bridge.sink.restarted())
    assert faulty(again) == set()


def test_a_clear_that_nobody_told_is_seen(start):
    bridge = start()
    bridge.send(sample("xid79"))
    bridge.settle()
    bridge.sink.set_aside(FIRST, f"nvsentinel.nvidia.com/{XID}", "ClearedByOperator")
    bridge.sink.wait(lambda s: s.statuses(FIRST)[XID] == "True")


def test_what_the_daemon_stopped_believing_is_said_again(start):
    bridge = start()
    bridge.send(sample("dbe_clear"), sample("xid79"))
    bridge.settle()
    for check in ("GpuMemWatch", XID):
        bridge.sink.set_aside(FIRST, f"nvsentinel.nvidia.com/{check}", "ProviderLost")
    bridge.sink.wait(lambda s: s.statuses(FIRST)["GpuMemWatch"] == "True")
    assert bridge.sink.statuses(FIRST)[XID] == "False"


def test_a_refused_report_is_tried_again(start):
    bridge = start()
    bridge.sink.refusing = True
    bridge.send(sample("xid79"))
    bridge.sink.wait(lambda s: "untold" in s.summary)
    bridge.sink.refusing = False
    bridge.sink.wait(lambda s: s.statuses(FIRST).get(XID) == "False")


def test_a_forgotten_gpu_is_not_brought_back_but_remembered(start):
    bridge = start()
    bridge.send(sample("xid79"))
    bridge.settle()
    bridge.sink.forget(FIRST)
    bridge.send(event(XID, gpu=FIRST, codes=["48"], fatal=True, seconds=time.time()))
    bridge.settle()
    assert FIRST not in bridge.sink.registrants
    bridge.sink.add(FIRST, SPECS[FIRST])
    bridge.sink.wait(lambda s: s.statuses(FIRST).get(XID) == "False")


def test_a_report_that_says_nothing_new_is_not_written(start):
    bridge = start()
    bridge.send(sample("xid79"))
    bridge.settle()
    writes = bridge.sink.writes
    for i in range(5):
        bridge.send(sample("xid79", id=str(i)))
    bridge.settle()
    assert bridge.sink.writes - writes <= 2  # the marker's, on two GPUs
    assert bridge.sink.get(FIRST, XID).status is ConditionStatus.FALSE
