"""Following the changes of GPUs, over a break of the connection if wanted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import click

from device_api_core.cli.failures import Failure, reason_of
from device_api_core.client import EventType, GpuEvent, GpuList
from device_api_core.client.errors import (
    DeadlineExceeded,
    DeviceApiError,
    LimitExceeded,
    RpcFailed,
    Unavailable,
    WatchExpired,
)
from device_api_core.client.v1alpha1 import Gpus
from device_api_core.resources import Gpu

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

_PASSING = (WatchExpired, LimitExceeded, Unavailable, DeadlineExceeded, RpcFailed)
"""What a later attempt may get over. The last one is also what a server that stops in the moment in
which the watch begins answers: CANCELLED."""


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C is the good end of a stream, and ends this process at once. As an exception in the
    midst of gRPC it would now and then leave a channel that nobody can close (grpc/grpc#19973)."""
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Follower:
    """The changes of some GPUs (all, if no names are given), each once and in order.

    With ``reconnect`` a broken stream is resumed. Where that is impossible the GPUs are listed
    again, and what changed meanwhile comes as events, though several changes of a GPU are then one.
    """

    def __init__(self, gpus: Gpus, names: Sequence[str] = (), *, reconnect: bool = False) -> None:
        self._gpus = gpus
        self._names = frozenset(names)
        self._reconnect = reconnect
        self._known: dict[str, Gpu] = {}
        self._version = 0
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def events(self, resource_version: int | None = None) -> Iterator[GpuEvent]:
        """The present GPUs as ``ADDED`` and then every change; with a version, every change after
        it.

        Raises:
            Failure: the stream broke and is not to be resumed.
        """
        if resource_version is None:
            return self._wanted(self._run())
        return self.changes_since(replace(self._gpus.list(), resource_version=resource_version))

    def changes_since(self, listed: GpuList) -> Iterator[GpuEvent]:
        """Every change after a list."""
        self._known = {gpu.name: gpu for gpu in listed.items}
        self._version = listed.resource_version
        return self._wanted(self._run())

    def _run(self) -> Iterator[GpuEvent]:
        while True:
            try:
                if not self._version:
                    yield from self._list()
                yield from self._watch()
            except _PASSING as error:
                if not self._reconnect:
                    raise self._failure(error) from error
                self._recover(error)

    def _failure(self, error: DeviceApiError) -> Exception:
        # Before the first list there was no watch that could have ended.
        if not self._version:
            return error
        hint = "list again, or let `device-api watch gpus --reconnect` go on by itself"
        return Failure(f"the watch ended: {reason_of(error)}", hint=hint)

    def _list(self) -> Iterator[GpuEvent]:
        listed = self._gpus.list()
        now = {gpu.name: gpu for gpu in listed.items}
        before, self._known, self._version = self._known, now, listed.resource_version
        for name in sorted(before.keys() - now.keys()):
            yield GpuEvent(EventType.DELETED, before[name], listed.resource_version)
        for name, gpu in now.items():
            version = gpu.metadata.resource_version
            if name not in before:
                yield GpuEvent(EventType.ADDED, gpu, version)
            elif before[name].metadata.resource_version != version:
                yield GpuEvent(EventType.MODIFIED, gpu, version)

    def _watch(self) -> Iterator[GpuEvent]:
        # Bookmarks keep the version young, so that a resumption after a quiet time succeeds.
        with self._gpus.watch(self._version, allow_bookmarks=True) as events:
            for event in events:
                self._version = event.resource_version
                self._pause_seconds = _FIRST_PAUSE_SECONDS
                if event.type is EventType.DELETED:
                    self._known.pop(event.gpu.name, None)
                elif event.type is not EventType.BOOKMARK:
                    self._known[event.gpu.name] = event.gpu
                if event.type is not EventType.BOOKMARK:
                    yield event

    def _recover(self, error: DeviceApiError) -> None:
        if isinstance(error, WatchExpired):
            self._version = 0
            click.echo(f"starting over from a new list: {reason_of(error)}", err=True)
        else:
            click.echo(f"reconnecting: {reason_of(error)}", err=True)
        if error.reason != "slow-watcher":
            time.sleep(self._pause_seconds)
            self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    def _wanted(self, events: Iterator[GpuEvent]) -> Iterator[GpuEvent]:
        return (e for e in events if not self._names or e.gpu.name in self._names)
