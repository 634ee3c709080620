"""Numbers of providers: what they may be, and what the server keeps of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from device_api_core import codec
from device_api_core._proto import provider_pb2
from device_api_core.conversion import numbers_to_proto
from device_api_core.errors import InvalidArgument
from device_api_core.exposition.tallied import PREFIX, TalliesCollector
from device_api_core.series import MAX_SERIES, Numbers, Series, Tally
from device_api_core.tallies import MAX_ALL_SERIES, Tallies

XIDS, FANS = Series("xids"), Series("fans", (("gpu", "a"),))


def page(tallies):
    """The samples of the metrics page, through its text."""
    registry = CollectorRegistry()
    registry.register(TalliesCollector(tallies))
    return {
        (s.name.removeprefix(PREFIX), *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for s in family.samples
    }


def told(run, count, **gauges):
    return Numbers(run, {XIDS: count}, {Series(name): v for name, v in gauges.items()})


# --- what the server keeps


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # counted since the last message
            st.sampled_from(("told", "lost", "twice", "restart")),
        )
    )
)
def test_a_counter_is_the_sum_of_what_was_told(steps):
    tallies, tally = Tallies(), Tally()
    expected = told_before = 0
    for amount, what in steps:
        if what == "restart":
            expected, told_before = told_before, told_before
            tally = Tally()
        tally.count("xids", amount, {})
        expected += amount
        if what == "lost":
            continue
        for _ in range(2 if what == "twice" else 1):
            tallies.take("p", tally.read())
        told_before = expected
        assert page(tallies)["xids_total", "provider_id=p"] == expected


def test_a_late_message_lowers_nothing():
    tallies = Tallies()
    tallies.take("p", told(1, 5))
    tallies.take("p", told(1, 4))
    assert page(tallies)["xids_total", "provider_id=p"] == 5


def test_gauges_are_those_of_the_last_message():
    tallies = Tallies()
    tallies.take("p", told(1, 1, speed=3, load=1))
    tallies.take("p", told(1, 1, speed=4))
    assert page(tallies) == {
        ("xids_total", "provider_id=p"): 1,
        ("speed", "provider_id=p"): 4,
    }
    tallies.lapse("p")
    assert page(tallies) == {("xids_total", "provider_id=p"): 1}
    tallies.forget("p")
    assert page(tallies) == {}


def test_one_family_holds_every_provider_and_one_name_both_kinds():
    tallies = Tallies()
    tallies.take("a", told(1, 1))
    tallies.take("b", Numbers(1, {FANS: 1}, {XIDS: 7}))
    registry = CollectorRegistry()
    registry.register(TalliesCollector(tallies))
    lines = generate_latest(registry).decode().splitlines()
    types = [line for line in lines if line.startswith("# TYPE")]
    assert sorted(types) == [
        "# TYPE device_api_provider_fans_total counter",
        "# TYPE device_api_provider_xids gauge",
        "# TYPE device_api_provider_xids_total counter",
    ]
    assert all(f"# HELP {line.split()[2]} A " in "\n".join(lines) for line in types)


def test_a_source_is_read_when_the_page_is_and_a_last_time():
    tallies, tally = Tallies(), Tally()
    tallies.attach("p", tally.read)
    tally.count("xids", 1, {})
    assert page(tallies)["xids_total", "provider_id=p"] == 1
    tally.count("xids", 1, {})
    tallies.detach("p", tally.read)
    tally.count("xids", 1, {})
    assert page(tallies)["xids_total", "provider_id=p"] == 2
    # One that was abandoned does not put an end to its successor.
    tallies.attach("p", Tally().read)
    tallies.detach("p", tally.read)
    assert page(tallies)["xids_total", "provider_id=p"] == 2


def test_nobody_takes_up_all_the_room(caplog):
    tallies = Tallies()
    many = {Series("noise", (("number", str(n)),)): 1.0 for n in range(MAX_SERIES + 10)}
    for provider in range(MAX_ALL_SERIES // MAX_SERIES + 1):
        tallies.take(str(provider), Numbers(1, many, {}))
    shown = page(tallies)
    assert sum(name == "noise_total" for name, *_ in shown) == MAX_ALL_SERIES
    refused = {labels[0]: n for (name, *labels), n in shown.items() if name.startswith("series")}
    assert refused["provider_id=0"] == 10
    assert refused["provider_id=4"] == MAX_SERIES + 10
    assert len(caplog.records) == 5
    # What is known goes on being counted, and is not logged again and again.
    tallies.take("0", Numbers(1, dict.fromkeys(many, 2.0), {XIDS: 1}))
    assert page(tallies)["noise_total", "number=0", "provider_id=0"] == 2
    assert page(tallies)["series_refused_total", "provider_id=0"] == 10 + 10 + 1
    assert len(caplog.records) == 5
    # Room that is made is used.
    tallies.forget("1")
    tallies.take("4", Numbers(1, many, {}))
    assert page(tallies)["noise_total", "number=0", "provider_id=4"] == 1


# --- what a provider may say


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(), max_size=6))
def test_whatever_is_accepted_can_be_shown_and_sent(name, labels):
    tally = Tally()
    try:
        tally.count(name, 1, labels)
    except InvalidArgument:
        assert tally.read().counts == {}
        return
    told = provider_pb2.ProviderNumbers.FromString(
        numbers_to_proto(tally.read()).SerializeToString()
    )
    tallies = Tallies()
    tallies.take("p", codec.decode_numbers(told))
    [(sample, *_)] = page(tallies)
    assert sample == f"{name}_total"


def test_label_values_are_texts_and_cut():
    tally = Tally()
    tally.count("errors", 1, {"code": 79, "kind": "x" * 200, "file": "\udcff"})
    [series] = tally.read().counts
    assert dict(series.labels) == {"code": "79", "kind": "x" * 128, "file": "?"}


@pytest.mark.parametrize("suffix", ["total", "count", "sum", "bucket", "created", "info"])
def test_a_name_leaves_the_suffix_to_the_page(suffix):
    with pytest.raises(InvalidArgument, match=r"^name: must be like scrape_errors"):
        Tally().count(f"xids_{suffix}", 1, {})


@pytest.mark.parametrize("amount", [-1, float("inf"), float("nan")])
def test_a_counter_only_rises(amount):
    with pytest.raises(InvalidArgument, match=r"^amount: must be a number from 0 up"):
        Tally().count("xids", amount, {})
