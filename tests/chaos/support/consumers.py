"""The consumers of a storm, each a process of its own: they read, watch, and follow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from records import Recorder, now, packed
from writers import GPUS, Post

from device_api_core.client import AsyncClientset, AsyncGpuInformer, Clientset, GpuInformer
from device_api_core.client.errors import DeviceApiError, NotFound, NotSynced, WatchExpired
from device_api_core.client.watch import EventType
from device_api_core.resources import Gpu

_PAUSE_SECONDS = 0.02
_PROBE_SECONDS = 0.25
_LONG_STREAM_EVENTS = 300
_ALL = ("",) * len(GPUS)


def read(post: Post) -> None:
    """Get and list."""
    chance, recorder = random.Random(f"{post.seed}/{post.name}/{post.start}"), Recorder(post.record)
    with _gpus(post) as gpus:
        while not post.until.exists():
            time.sleep(chance.uniform(0, 2 * _PAUSE_SECONDS))
            start, name = now(), chance.choice((*GPUS, *_ALL))
            try:
                version, shown = _shown(gpus, name)
            except DeviceApiError:
                continue
            recorder.note("read", start, now(), version, shown)


def _shown(gpus: Any, name: str) -> tuple[int, list[Any]]:
    """The version of the list of all, or 0 and one GPU."""
    if not name:
        listed = gpus.list()
        return listed.resource_version, [packed(g) for g in listed.items]
    try:
        return 0, [packed(gpus.get(name))]
    except NotFound:
        return 0, [(name, 0, {})]


def watch(post: Post) -> None:
    """Watch, from the start or from where the last watch broke off."""
    recorder = Recorder(post.record)
    last: int | None = None
    with _gpus(post) as gpus:
        while True:
            try:
                for version in _events(gpus, recorder, last):
                    last = version
            except WatchExpired:
                last = None
            except DeviceApiError:
                time.sleep(0.05)


def _events(gpus: Any, recorder: Recorder, since: int | None) -> Iterator[int]:
    """The version after each event of one stream, which is given up after a while."""
    initial: list[Any] = []
    if since is not None:
        recorder.note("stream_from", since, [])
    with gpus.watch(since, allow_bookmarks=True, send_initial_events=since is None) as events:
        for count, event in enumerate(events):
            if event.type is EventType.BOOKMARK:
                if since is None:
                    since = event.resource_version
                    recorder.note("stream_from", since, initial)
            elif since is None:
                initial.append(packed(event.object))
            else:
                recorder.note("event", now(), packed(event.object))
            if since is not None:
                yield event.resource_version
                if count > _LONG_STREAM_EVENTS:
                    return


def inform(post: Post) -> None:
    """Follow with the informer of threads."""
    recorder = Recorder(post.record)
    recorder.note("informer")
    with _gpus(post) as gpus, GpuInformer(gpus, probe_seconds=_PROBE_SECONDS) as informer:
        informer.add_handler(**_handlers(recorder))
        while True:
            time.sleep(_PAUSE_SECONDS)
            _note_store(informer, recorder)


def inform_aio(post: Post) -> None:
    """Follow with the informer of asyncio."""
    asyncio.run(_inform_aio(post))


async def _inform_aio(post: Post) -> None:
    recorder = Recorder(post.record)
    recorder.note("informer")
    async with (
        AsyncClientset.connect(post.consumers) as clients,
        AsyncGpuInformer(clients.v1alpha1.gpus, probe_seconds=_PROBE_SECONDS) as informer,
    ):
        informer.add_handler(**_handlers(recorder))
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            _note_store(informer, recorder)


def _handlers(recorder: Recorder) -> dict[str, Callable[..., None]]:
    def added(new: Gpu) -> None:
        recorder.note("change", 0, packed(new))

    def updated(old: Gpu, new: Gpu) -> None:
        recorder.note("change", old.metadata.resource_version, packed(new))

    return {"on_add": added, "on_update": updated}


def _note_store(informer: Any, recorder: Recorder) -> None:
    """The store is a read of the moment that the informer vouches for."""
    before = now()
    age = informer.age_seconds
    try:
        snapshot = informer.lister.snapshot
    except NotSynced:
        return
    if age is not None:
        shown = [packed(g) for g in snapshot.objects.values()]
        proven = before - round(age * 1e9)
        recorder.note("read", proven, now(), snapshot.resource_version, shown)


@contextmanager
def _gpus(post: Post) -> Iterator[Any]:
    with Clientset.connect(post.consumers) as clients:
        yield clients.v1alpha1.gpus
