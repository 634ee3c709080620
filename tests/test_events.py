"""What happened is remembered in bounded memory, and logged one line an event."""

from __future__ import annotations

import logging

import pytest

from device_api_core.events import KEPT_PER_KIND, MAX_TEXT_BYTES, EventLog, Kind


class Clock:
    now = 100.0

    def wall(self):
        return int(self.now * 1e9)

    def monotonic(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return EventLog(wall=clock.wall, monotonic=clock.monotonic)


def reasons(events):
    return [e.reason for e in events]


def test_the_newest_come_in_the_order_in_which_they_happened(log):
    for i, kind in enumerate([Kind.HEALTH, Kind.OPERATOR, Kind.PROVIDER, Kind.HEALTH]):
        log.record(kind, f"R{i}", "text")
    assert reasons(log.newest(limit=0)) == ["R0", "R1", "R2", "R3"]
    assert reasons(log.newest(limit=-1)) == ["R0", "R1", "R2", "R3"]
    assert reasons(log.newest(limit=2)) == ["R2", "R3"]
    assert [e.sequence for e in log.newest(limit=0)] == [1, 2, 3, 4]


def test_events_are_found_by_gpu_and_provider(log):
    for gpu in ("g", "h"):
        for provider in ("a", "b"):
            log.record(Kind.HEALTH, gpu + provider, "", gpu=gpu, provider_id=provider)
    assert reasons(log.newest(gpu="g", limit=0)) == ["ga", "gb"]
    assert reasons(log.newest(provider_id="b", limit=0)) == ["gb", "hb"]
    assert reasons(log.newest(gpu="h", provider_id="a", limit=5)) == ["ha"]
    assert reasons(log.newest(gpu="g", limit=1)) == ["gb"]


def test_a_condition_that_flaps_does_not_push_an_operators_act_out(log):
    log.record(Kind.OPERATOR, "Cleared", "")
    for i in range(2 * KEPT_PER_KIND):
        log.record(Kind.HEALTH, f"R{i}", "")
    kept = log.newest(limit=0)
    assert len(kept) == KEPT_PER_KIND + 1
    assert kept[0].reason == "Cleared"
    assert kept[-1].reason == f"R{2 * KEPT_PER_KIND - 1}"


def test_text_is_cut_and_made_fit_for_the_wire(log):
    log.record(Kind.PROVIDER, "R" * 5_000, "\ud800" + "ü" * 5_000)
    (event,) = log.newest(limit=0)
    assert len(event.reason) == MAX_TEXT_BYTES
    assert MAX_TEXT_BYTES - 1 <= len(event.message.encode()) <= MAX_TEXT_BYTES


def test_an_event_is_one_record_with_its_facts(log, caplog):
    caplog.set_level(logging.INFO)
    log.record(Kind.HEALTH, "Xid79", "100 % gone", gpu="g", provider_id="a", warning=True)
    log.record(Kind.HEALTH, "Fine", "back")
    bad, good = caplog.records
    assert (bad.levelname, bad.getMessage()) == ("WARNING", "100 % gone")
    assert (bad.gpu, bad.provider, bad.reason) == ("g", "a", "Xid79")
    assert (good.levelname, hasattr(good, "gpu")) == ("INFO", False)


@pytest.mark.parametrize("kind", [Kind.HEALTH, Kind.PROVIDER])
def test_a_burst_is_thinned_in_the_log_and_not_in_memory(log, clock, caplog, kind):
    caplog.set_level(logging.INFO)
    for _ in range(300):
        log.record(kind, "R", "")
    assert (len(caplog.records), len(log.newest(limit=0))) == (100, 300)
    clock.now += 1.0
    for _ in range(50):
        log.record(kind, "R", "")
    assert len(caplog.records) == 120
    assert caplog.records[100].suppressed == 200
    assert not hasattr(caplog.records[101], "suppressed")


def test_a_burst_of_one_kind_does_not_silence_another(log, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(300):
        log.record(Kind.HEALTH, "Flap", "")
    log.record(Kind.PROVIDER, "ProviderLost", "")
    assert caplog.records[-1].reason == "ProviderLost"


def test_every_act_of_an_operator_is_logged(log, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(300):
        log.record(Kind.OPERATOR, "Cleared", "")
    assert len(caplog.records) == 300


def test_a_long_rest_allows_no_more_than_one_burst(log, clock, caplog):
    caplog.set_level(logging.INFO)
    clock.now += 10_000
    for _ in range(300):
        log.record(Kind.HEALTH, "R", "")
    assert len(caplog.records) == 100
