"""What the Node's condition says, and when it is written: for every fleet and every history."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from device_api_kubernetes.condition import (
    HEARTBEAT,
    MESSAGE_BYTES,
    condition_to_send,
    judge,
    stamp,
)
from fleets import FALSE, TRUE, UNKNOWN, fleets, gpu, stale_texts
from hypothesis import given, settings
from hypothesis import strategies as st

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
STALE = "device-api-server has not answered since 2026-11-24T11:58:00Z: no such file"
bounded = settings(max_examples=40, deadline=None)


@bounded
@given(fleets(), stale_texts)
def test_true_needs_proof_of_every_gpu_and_one_bad_gpu_is_enough(gpus, stale):
    ready = [each.ready for each in gpus]
    status = judge(gpus, stale).status
    assert (status is TRUE) == (bool(ready) and set(ready) == {TRUE} and not stale)
    assert (status is FALSE) == (FALSE in ready)


@bounded
@given(fleets(), stale_texts)
def test_a_message_is_one_bounded_printable_line(gpus, stale):
    verdict = judge(gpus, stale)
    assert verdict.message
    assert verdict.message.isprintable()
    assert len(verdict.message.encode()) <= MESSAGE_BYTES
    assert re.fullmatch("[A-Za-z]+", verdict.reason)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(0, 200), st.sampled_from([FALSE, UNKNOWN]))
def test_every_gpu_that_is_not_healthy_is_listed_or_counted(number, length, status):
    gpus = [gpu(f"gpu-{i:05}", status, "R" * length) for i in range(number)]
    message = judge(gpus, "").message
    listed = len(re.findall(r"gpu-\d{5}", message))
    more = re.search(r"and (\d+) more$", message)
    assert listed + (int(more[1]) if more else 0) == number
    assert listed >= 1
    assert len(message) <= MESSAGE_BYTES


def test_the_longest_texts_leave_room_for_one_gpu():
    worst = gpu("g" * 253, FALSE, "R" * 1_024, "\N{SNOWMAN}" * 1_024, index=2**31)
    others = [gpu(name * 253, FALSE, "R" * 1_024) for name in "hi"]
    message = judge([worst, *others], "\N{SNOWMAN}" * 2_000).message
    assert "g" * 253 in message
    assert message.endswith("and 2 more")
    assert len(message.encode()) <= MESSAGE_BYTES


def test_the_strongest_action_comes_first():
    gpus = [
        gpu("gpu-a", FALSE, "Xid31", "CONTACT_SUPPORT"),
        gpu("gpu-b"),
        gpu("gpu-c", FALSE, "Xid79", "RESTART_BM", index=2),
        gpu("gpu-d", UNKNOWN, "NoAnswer"),
    ]
    verdict = judge(gpus, "")
    assert (verdict.status, verdict.reason) == (FALSE, "GPUUnhealthy")
    assert verdict.message == (
        "2 of 4 GPUs are unhealthy, 1 unknown: gpu-c (index 2): Xid79, RESTART_BM; "
        "gpu-a: Xid31, CONTACT_SUPPORT"
    )


@pytest.mark.parametrize(
    ("gpus", "stale", "status", "reason", "message"),
    [
        ([gpu("a"), gpu("b")], "", TRUE, "AllGPUsHealthy", "2 GPUs are healthy"),
        ([gpu("a")], "", TRUE, "AllGPUsHealthy", "1 GPU is healthy"),
        ([gpu("a")], STALE, UNKNOWN, "GPUHealthStale", STALE),
        ([], "", UNKNOWN, "NoGPUs", "no provider reports a GPU of this node"),
        (
            [gpu("a"), gpu("b", UNKNOWN, "ProviderLost")],
            "",
            UNKNOWN,
            "GPUHealthUnknown",
            "the health of 1 of 2 GPUs is unknown: b: ProviderLost",
        ),
        (
            [gpu("a", FALSE, "")],
            STALE,
            FALSE,
            "GPUUnhealthy",
            f"1 of 1 GPU is unhealthy ({STALE}): a: no reason given",
        ),
    ],
)
def test_each_verdict_in_words(gpus, stale, status, reason, message):
    verdict = judge(gpus, stale)
    assert (verdict.status, verdict.reason, verdict.message) == (status, reason, message)


@bounded
@given(st.lists(st.tuples(fleets(4), stale_texts, st.integers(0, 600)), min_size=1, max_size=8))
def test_over_any_history_the_transition_moves_exactly_with_the_status(history):
    shown, now, status = {}, START, None
    for gpus, stale, seconds in history:
        now += timedelta(seconds=seconds)
        verdict = judge(gpus, stale)
        before, sent = shown, condition_to_send(verdict, "GPUHealthy", shown, now)
        said = (verdict.status.value, verdict.reason, verdict.message)
        if sent is None:
            # Only what is already there, and not too old, need not be said again.
            assert said == (shown["status"], shown["reason"], shown["message"])
            assert now - datetime.fromisoformat(shown["lastHeartbeatTime"]) < HEARTBEAT
        else:
            shown = sent
            assert shown["type"] == "GPUHealthy"
            assert shown["lastHeartbeatTime"] == stamp(now)
        assert said == (shown["status"], shown["reason"], shown["message"])
        if verdict.status is status:
            assert shown["lastTransitionTime"] == before["lastTransitionTime"]
        else:
            assert shown["lastTransitionTime"] == stamp(now)
        status = verdict.status


@bounded
@given(
    fleets(3),
    st.dictionaries(
        st.sampled_from(["status", "reason", "message", "lastHeartbeatTime", "lastTransitionTime"]),
        st.none() | st.text(max_size=20) | st.integers() | st.sampled_from(["True", "False"]),
    ),
)
def test_whatever_else_wrote_the_condition_it_is_put_right(gpus, shown):
    sent = condition_to_send(judge(gpus, ""), "GPUHealthy", shown, START)
    assert sent is not None
    for key in ("lastHeartbeatTime", "lastTransitionTime"):
        assert datetime.fromisoformat(sent[key]) <= START


def test_a_condition_of_before_a_restart_keeps_its_transition():
    verdict = judge([gpu("a", FALSE, "Xid79")], "")
    long_ago = {"status": "False", "lastTransitionTime": "2026-11-01T00:00:00Z"}
    sent = condition_to_send(verdict, "GPUHealthy", long_ago, START)
    assert sent["lastTransitionTime"] == "2026-11-01T00:00:00Z"


@pytest.mark.parametrize("seconds", [-239, 0, 239])
def test_a_fresh_heartbeat_needs_no_renewal(seconds):
    verdict = judge([gpu("a")], "")
    shown = condition_to_send(verdict, "GPUHealthy", {}, START)
    later = START + timedelta(seconds=seconds)
    assert condition_to_send(verdict, "GPUHealthy", shown, later) is None


@pytest.mark.parametrize("seconds", [-241, 241])
def test_an_old_heartbeat_and_one_of_a_wrong_clock_are_renewed(seconds):
    verdict = judge([gpu("a")], "")
    shown = condition_to_send(verdict, "GPUHealthy", {}, START)
    later = START + timedelta(seconds=seconds)
    sent = condition_to_send(verdict, "GPUHealthy", shown, later)
    assert sent == {**shown, "lastHeartbeatTime": stamp(later)}
