"""Ids and types of the plugins that run here are theirs."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.errors import PermissionDenied, PluginError
from device_api_core.reservations import Reservations, SoleProvider, covers
from device_api_core.resources import READY, Condition, ConditionStatus


def conditions(*types):
    return [Condition(t, ConditionStatus.TRUE) for t in types]


@pytest.fixture
def reserved():
    reservations = Reservations()
    reservations.reserve("nvml", ["NVMLReady", "example.com/*"])
    return reservations


@pytest.mark.parametrize(
    ("type_", "covered"),
    [
        ("NVMLReady", True),
        ("NVMLReadyToo", False),
        ("example.com/Fan", True),
        ("example.com/", True),
        ("example.org/Fan", False),
        ("sub.example.com/Fan", False),
        ("Fan", False),
    ],
)
def test_a_wildcard_covers_its_domain(type_, covered, reserved):
    assert covers(frozenset({"NVMLReady", "example.com/*"}), type_) is covered
    if covered:
        with pytest.raises(PermissionDenied, match=f"{type_} is reserved for the plugin nvml"):
            reserved.check("remote", conditions("Other", type_))
    else:
        reserved.check("remote", conditions("Other", type_))


def test_a_reserved_id_may_not_be_used_with_any_type(reserved):
    with pytest.raises(PermissionDenied, match="provider id nvml is reserved"):
        reserved.check("nvml", ())
    reserved.check("", conditions(READY))


def test_nothing_is_reserved_for_plugins_that_do_not_run():
    Reservations().check("nvml", conditions("NVMLReady"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("X", "X"), ("a.b/X", "a.b/X"), ("a.b/*", "a.b/X"), ("a.b/X", "a.b/*"), ("a.b/*", "a.b/*")],
)
def test_two_plugins_may_not_declare_one_type(one, other):
    reservations = Reservations()
    reservations.reserve("first", [one])
    with pytest.raises(PluginError, match="providers first and second both declare"):
        reservations.reserve("second", ["Fine", other])


def test_a_plugin_may_declare_a_type_and_its_domain():
    reservations = Reservations()
    reservations.reserve("first", ["a.b/X", "a.b/*", "a.b/Y"])
    reservations.reserve("second", ["a.bc/*", "X", "a.b.c/X"])


@given(
    st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from(("X", "a/X", "a/Y", "a/*", "b/X"))),
        max_size=4,
    )
)
def test_a_collision_is_found_in_whatever_order_plugins_come(declared):
    def collides(order):
        reservations = Reservations()
        try:
            for provider, type_ in order:
                reservations.reserve(provider, [type_])
        except PluginError:
            return True
        return False

    assert len({collides(order) for order in permutations(declared)}) == 1


def test_a_plugins_own_socket_is_for_its_id_and_types_only():
    own = SoleProvider("dcgm", ["a.b/*", "X"])
    own.check("dcgm", conditions("X", "a.b/Y", READY))
    for id_, told in (("nvml", ()), ("", ()), ("dcgm", conditions("Z"))):
        with pytest.raises(PermissionDenied):
            own.check(id_, told)
