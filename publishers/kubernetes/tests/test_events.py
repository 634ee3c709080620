"""Which Events are told: each change once, within their rate, over restarts."""

from __future__ import annotations

from datetime import UTC, datetime

from device_api_kubernetes.condition import judge
from device_api_kubernetes.events import MESSAGE_BYTES, Allowance, Told, event_of
from fleets import FALSE, TRUE, UNKNOWN, fleets, gpu
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
bounded = settings(max_examples=40, deadline=None)


def told_all(told, *gpus):
    """What is news; it is told."""
    news = told.news(gpus)
    for each in news:
        told.tell(each)
    return [(each.name, each.ready.value) for each in news]


def shown(*gpus):
    verdict = judge(gpus, "")
    return {"status": verdict.status.value, "message": verdict.message}


def test_a_fault_its_change_and_its_end_are_told_once_each():
    told = Told()
    assert told_all(told, gpu("a"), gpu("b")) == []
    fault = gpu("a", FALSE, "Xid79", "RESTART_BM")
    assert told_all(told, fault, gpu("b")) == [("a", "False")]
    assert told_all(told, fault, gpu("b")) == []
    assert told_all(told, gpu("a", FALSE, "Xid48", "RESTART_BM"), gpu("b")) == [("a", "False")]
    assert told_all(told, gpu("a", FALSE, "Xid48", "REPLACE_VM"), gpu("b")) == [("a", "False")]
    # Doubt is no news, and does not make the same fault a new one.
    assert told_all(told, gpu("a", UNKNOWN, "ServerRestarted"), gpu("b")) == []
    assert told_all(told, gpu("a", FALSE, "Xid48", "REPLACE_VM"), gpu("b")) == []
    assert told_all(told, gpu("a"), gpu("b")) == [("a", "True")]
    assert told_all(told, gpu("a"), gpu("b")) == []


def test_another_number_or_message_is_no_news():
    told = Told()
    told_all(told, gpu("a", FALSE, "Hot", message="91 C", index=1))
    assert told_all(told, gpu("a", FALSE, "Hot", message="92 C", index=2)) == []


def test_a_gpu_that_goes_is_forgotten():
    told = Told()
    told_all(told, gpu("a", FALSE, "Xid79"))
    assert told_all(told) == []
    assert told_all(told, gpu("a")) == []


def test_the_worst_is_told_first():
    gpus = [gpu("a", FALSE, "X", "CONTACT_SUPPORT"), gpu("b", FALSE, "Y", "RESTART_BM")]
    assert told_all(Told(), *gpus) == [("b", "False"), ("a", "False")]


def test_after_a_restart_only_what_changed_is_told():
    before = [
        gpu("same", FALSE, "Xid79", "RESTART_BM", index=3),
        gpu("other", FALSE, "Xid31"),
        gpu("well", FALSE, "Xid48"),
        gpu("good"),
    ]
    now = [
        before[0],
        gpu("other", FALSE, "Xid31; Xid79"),
        gpu("well"),
        gpu("good"),
        gpu("new", FALSE, "Xid63"),
    ]
    told = Told()
    told.recall(now, shown(*before))
    assert told_all(told, *now) == [("new", "False"), ("other", "False"), ("well", "True")]


def test_what_is_recalled_once_is_not_recalled_again():
    told, fault = Told(), gpu("a", FALSE, "Xid79")
    told.recall([gpu("a")], shown(gpu("a")))
    # By now the condition says what this process has put there, and nobody was told of it.
    told.recall([fault], shown(fault))
    assert told_all(told, fault) == [("a", "False")]


@bounded
@given(fleets(6))
def test_a_restart_tells_nothing_again_that_the_condition_lists(gpus):
    told = Told()
    message = judge(gpus, "").message
    told.recall(gpus, shown(*gpus))
    listed = [g for g in gpus if g.ready is FALSE and f" {g.name}" in message]
    counted = {g.name for g in gpus if g.ready is FALSE} - {g.name for g in listed}
    assert {name for name, _ in told_all(told, *gpus)} <= counted


@bounded
@given(st.lists(fleets(3), max_size=8))
def test_every_gpu_is_told_bad_before_it_is_told_good(history):
    told, said = Told(), {}
    for gpus in history:
        known = {each.name for each in gpus}
        said = {name: status for name, status in said.items() if name in known}
        news = told_all(told, *gpus)
        assert len({name for name, _ in news}) == len(news)
        for name, status in news:
            if status == "True":
                assert said[name] == "False"
            said[name] = status
        # And what is bad now has been told.
        assert all(said.get(g.name) == "False" for g in gpus if g.ready is FALSE)
        assert all(said.get(g.name) != "False" for g in gpus if g.ready is TRUE)


@bounded
@given(st.integers(1, 20), st.lists(st.floats(0, 120), max_size=40))
def test_no_span_of_time_has_more_events_than_are_allowed(per_minute, pauses):
    allowance, now, granted = Allowance(per_minute, 0.0), 0.0, []
    for pause in pauses:
        now += pause
        while allowance.has_room(now):
            allowance.take()
            granted.append(now)
    for i, first in enumerate(granted):
        for number, last in enumerate(granted[i:], start=1):
            assert number <= per_minute * (1 + (last - first) / 60) + 1e-6


def test_a_quiet_minute_gives_the_whole_burst_and_no_more():
    allowance = Allowance(3, 0.0)
    for now, expected in ((0.0, 3), (1.0, 0), (61.0, 3), (3_600.0, 3), (3_620.0, 1)):
        granted = 0
        while allowance.has_room(now):
            allowance.take()
            granted += 1
        assert granted == expected


@bounded
@given(fleets(1).filter(bool), st.integers(0, 10**6), st.text("az0-.", min_size=1, max_size=253))
def test_an_event_is_within_the_bounds_of_the_api(gpus, suppressed, node):
    node = f"n{node[1:-1]}n"
    event = event_of(gpus[0], node, "uid-1", now=NOW, suppressed=suppressed)
    assert len(event["message"].encode()) <= MESSAGE_BYTES
    assert event["message"].isprintable()
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["reportingInstance"]) <= 128


def test_an_event_in_full():
    fault = gpu(
        "gpu-a",
        FALSE,
        "Xid79",
        "RESTART_BM",
        message="the GPU fell off the bus",
        index=2,
        version=7,
    )
    event = event_of(fault, "node-7", "uid-1", now=NOW, suppressed=4)
    name = event["metadata"].pop("name")
    assert name.startswith("node-7.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "node-7", "uid": "node-7"},
        "type": "Warning",
        "reason": "GPUUnhealthy",
        "message": "gpu-a (index 2): Xid79, RESTART_BM: the GPU fell off the bus"
        " (4 Events before this one were suppressed)",
        "source": {"component": "device-api", "host": "node-7"},
        "reportingComponent": "device-api",
        "reportingInstance": "node-7",
        "firstTimestamp": "2026-11-24T12:00:00Z",
        "lastTimestamp": "2026-11-24T12:00:00Z",
        "count": 1,
    }
    # The same change has the same name, another one another.
    again = event_of(fault, "node-7", "uid-1", now=NOW, suppressed=0)
    assert again["metadata"]["name"] == name
    later = gpu("gpu-a", TRUE, version=8, index=2)
    well = event_of(later, "node-7", "uid-1", now=NOW, suppressed=0)
    assert well["metadata"]["name"] != name
    assert (well["type"], well["reason"]) == ("Normal", "GPUHealthy")
    assert well["message"] == "gpu-a (index 2) is healthy again"
