"""The contract of watching and waiting, on the real server and on the fakes, through the client of
threads and that of asyncio."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from device_api_core.client import EventType, condition_is, is_healthy
from device_api_core.client.errors import (
    DeadlineExceeded,
    InvalidArgument,
    WatchExpired,
)
from device_api_core.resources import Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def about(watch: Any, name: str, count: int) -> list[Any]:
    """The next events of one GPU."""
    return list(islice((e for e in watch if e.gpu.name == name), count))


# --- watching


def test_a_watch_from_a_list_misses_nothing_and_repeats_nothing(gpus, providers, name):
    providers.register(name, provider_id="p")
    listed = gpus.list()
    providers.update_condition(name, Condition("A", FALSE), provider_id="p")
    with gpus.watch(listed.resource_version) as watch:
        providers.update_condition(name, Condition("A", TRUE), provider_id="p")
        providers.unregister(name)
        events = about(watch, name, 3)
    assert [e.type for e in events] == [EventType.MODIFIED, EventType.MODIFIED, EventType.DELETED]
    assert [e.gpu.ready for e in events] == [FALSE, TRUE, TRUE]
    versions = [e.resource_version for e in events]
    assert versions == sorted(set(versions))
    assert versions[0] > listed.resource_version


def test_a_watch_without_a_version_begins_with_what_is_there(gpus, providers, name):
    providers.register(name, provider_id="p")
    with gpus.watch() as watch:
        [added] = about(watch, name, 1)
        providers.unregister(name)
        [deleted] = about(watch, name, 1)
    assert (added.type, deleted.type) == (EventType.ADDED, EventType.DELETED)
    assert deleted.resource_version > added.resource_version


def test_the_end_of_the_initial_state_is_a_bookmark(gpus, providers, name):
    providers.register(name, provider_id="p")
    seen = []
    with gpus.watch(allow_bookmarks=True, send_initial_events=True) as watch:
        for event in watch:
            seen.append(event)
            if event.type is EventType.BOOKMARK:
                break
    assert name in {e.gpu.name for e in seen}
    assert {e.type for e in seen[:-1]} == {EventType.ADDED}
    assert seen[-1].resource_version >= max(e.resource_version for e in seen[:-1])


def test_a_version_that_the_server_cannot_resume_from_is_expired(gpus):
    for version in (1, gpus.list().resource_version + 1_000_000):
        with gpus.watch(version) as watch, pytest.raises(WatchExpired, match="list again"):
            next(watch)


def test_options_that_contradict_each_other_are_refused(gpus):
    version = gpus.list().resource_version
    with (
        gpus.watch(version, allow_bookmarks=True, send_initial_events=True) as watch,
        pytest.raises(InvalidArgument, match="send_initial_events"),
    ):
        next(watch)


def test_a_closed_watch_ends(gpus):
    watch = gpus.watch(gpus.list().resource_version)
    watch.close()
    assert list(watch) == []


# --- waiting


def test_waiting_for_a_condition(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", TRUE, "Fine"), provider_id="p")
    found = gpus.wait_for(name, condition_is("A", reason="Fine"), timeout_seconds=20)
    assert is_healthy(found)
    with pytest.raises(DeadlineExceeded, match=name):
        gpus.wait_for(name, condition_is("B"), timeout_seconds=0.05)
    providers.unregister(name)
    gpus.wait_for_deletion(name, timeout_seconds=20)
    with pytest.raises(DeadlineExceeded, match=name):
        gpus.wait_for(name, is_healthy, timeout_seconds=0.05)
