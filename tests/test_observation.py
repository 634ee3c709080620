"""The gauges that are made of the state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.conditions import lapse, new_health, set_action, set_condition
from device_api_core.durations import Durations
from device_api_core.entries import Entry
from device_api_core.exposition import registry_of
from device_api_core.exposition.gauges import MAX_CONDITION_KINDS, MAX_LABEL_BYTES
from device_api_core.metrics import PREFIX, Metrics
from device_api_core.observation import (
    PROVIDER_STATES,
    Observation,
    ProviderObservation,
)
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.tallies import Tallies

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


def gpu(name, *conditions, action="", **spec):
    health = new_health(0)
    for condition in conditions:
        health = set_condition(health, condition, 0)
    health = set_action(health, "p", action)
    return Entry(name, GpuSpec(**spec), frozenset(), health)


def said(type_="Fan", status=TRUE, reason="", provider_id="p"):
    return Condition(type_, status, reason, provider_id=provider_id)


class Scraped:
    """A registry over a state that the test changes."""

    def __init__(self, *gpus, providers=()):
        self.gpus = gpus
        self.version = 1
        self.providers = providers
        metrics = Metrics(version="1", node="n")
        metrics.observe = self._observe
        self.registry = registry_of(metrics, Tallies())

    def _observe(self):
        none = Durations()
        return Observation(
            self.gpus,
            self.version,
            0,
            0,
            0,
            none,
            0,
            none,
            0,
            none,
            None,
            0,
            0,
            True,
            self.providers,
        )

    def samples(self, name):
        return {
            tuple(s.labels.values()): s.value
            for family in self.registry.collect()
            for s in family.samples
            if s.name == PREFIX + name
        }


def test_conditions_are_counted_by_type_status_and_provider():
    scraped = Scraped(
        gpu("a", said("Fan", FALSE), said("Link", provider_id="q")), gpu("b", said("Fan"))
    )
    assert scraped.samples("conditions") == {
        ("Fan", "True", "p"): 1,
        ("Fan", "False", "p"): 1,
        ("Fan", "Unknown", "p"): 0,
        ("Link", "True", "q"): 1,
        ("Link", "False", "q"): 0,
        ("Link", "Unknown", "q"): 0,
    }


def test_an_unhealthy_gpu_is_a_series_of_its_own():
    sick = gpu(
        "gpu-1",
        said("Fan", FALSE, "Stuck"),
        action="COMPONENT_RESET",
        uuid="GPU-1",
        pci_bus_id="0000:1b:00.0",
    )
    scraped = Scraped(gpu("gpu-0", said()), sick)
    labels = ("gpu-1", "GPU-1", "0000:1b:00.0", "Stuck", "COMPONENT_RESET")
    assert scraped.samples("gpu_unhealthy") == {labels: 1}


@pytest.mark.parametrize(
    ("action", "label"),
    [
        ("", "NONE"),
        ("ask the vendor " * 100, "CUSTOM"),
        ("CONTACT_SUPPORT", "CONTACT_SUPPORT"),
        ("RESTART_BM", "RESTART_BM"),
        ("RUN_FIELDDIAG", "RUN_FIELDDIAG"),
    ],
)
def test_an_action_is_one_of_a_few_words(action, label):
    scraped = Scraped(gpu("a", said("Fan", FALSE, "r" * 1_000), action=action))
    [(_, _, _, reason, shown)] = scraped.samples("gpu_unhealthy")
    assert shown == label
    assert reason == "r" * MAX_LABEL_BYTES


def test_what_the_server_no_longer_believes_is_stale():
    known = gpu("a", said("Fan"), said("Pump", ConditionStatus.UNKNOWN, "NotYet"))
    health = lapse(known.health, "p", "ProviderLost", "", 1)
    stale = Scraped(known.with_health(health)).samples("conditions_stale")
    assert stale == {(reason,): float(reason == "ProviderLost") for (reason,) in stale}
    assert len(stale) == 5


def test_types_without_end_do_not_make_series_without_end():
    gpus = [
        gpu(f"gpu-{n}", *(said(f"Type{n}x{m}", FALSE if m % 2 else TRUE) for m in range(60)))
        for n in range(20)
    ]
    conditions = Scraped(*gpus).samples("conditions")
    assert len(conditions) == 3 * (MAX_CONDITION_KINDS + 1)
    assert sum(conditions.values()) == 1_200
    assert conditions["other", "True", ""] + conditions["other", "False", ""] == 1_200 - 512


def test_health_is_counted_again_only_for_a_new_version():
    scraped = Scraped(gpu("a", said()))
    assert scraped.samples("cache_gpus_healthy") == {(): 1}
    scraped.gpus = (gpu("a", said("Fan", FALSE)),)
    assert scraped.samples("cache_gpus_healthy") == {(): 1}
    scraped.version += 1
    assert scraped.samples("cache_gpus_healthy") == {(): 0}
    assert scraped.samples("cache_gpus_unhealthy") == {(): 1}


def test_a_provider_is_in_one_state():
    lost = ProviderObservation("far", "lost", 12.5, 70.0, 60.0, 0.0, 2, 0, plugin=False)
    mute = ProviderObservation("new", "starting", None, None, None, None, 0, 3, plugin=True)
    scraped = Scraped(providers=(lost, mute))
    states = scraped.samples("provider_state")
    assert len(states) == 2 * len(PROVIDER_STATES)
    assert {labels for labels, value in states.items() if value} == {
        ("far", "lost"),
        ("new", "starting"),
    }
    assert scraped.samples("provider_lease_age_seconds") == {("far",): 70}
    assert scraped.samples("provider_lease_seconds") == {("far",): 60}
    assert scraped.samples("provider_connection_state") == {("far",): 0, ("new",): 0}
    assert scraped.samples("provider_restarts_total") == {("far",): 0, ("new",): 3}


@given(st.lists(st.floats(0, 20)))
def test_durations_fall_into_the_bucket_that_holds_them(seconds):
    bounds = (0.5, 1.0, 10.0)
    durations = Durations(bounds)
    for each in seconds:
        durations.observed(each)
    assert durations.count == len(seconds)
    assert durations.seconds == pytest.approx(sum(seconds))
    expected = [sum(s <= bound for s in seconds) for bound in (*bounds, float("inf"))]
    assert [count for _, count in durations.cumulative] == expected
    twice = Durations(bounds)
    twice.add(durations)
    twice.add(durations)
    assert twice.cumulative[-1] == ("+Inf", 2 * len(seconds))
