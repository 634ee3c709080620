"""A provider of a storm: a process of its own that writes without end, through the client."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import NamedTuple

from records import Recorder, now

from device_api_core.client import Clientset
from device_api_core.client.errors import DeviceApiError
from device_api_core.client.v1alpha1 import Providers
from device_api_core.resources import Condition, ConditionStatus, GpuStatus

GPUS = tuple(f"gpu-{i}" for i in range(5))
HEARTBEAT_SECONDS = 1.0
_PAUSE_SECONDS = 0.012


class Post(NamedTuple):
    """Where an actor works: its name, how often it was started before, the seed, its record, and
    the sockets. ``until`` is a file: when it is there, the storm is over."""

    name: str
    start: int
    seed: int
    record: Path
    consumers: str
    providers: str
    until: Path


def types_of(name: str) -> tuple[str, str]:
    """The condition types that are a provider's own."""
    word = name.title().replace("-", "")
    return f"{word}Fan", f"{word}Link"


def provide(post: Post) -> None:
    """Write until killed, or until the storm is over."""
    with Clientset.connect(post.consumers, provider_target=post.providers) as clients:
        provider = Provider(post, clients.v1alpha1.providers)
        while not post.until.exists():
            try:
                provider.work(post.until)
            except DeviceApiError:
                time.sleep(0.05)
        provider.make_peace()


class Provider:
    """Its writes follow from the seed; which of them are reached does not."""

    def __init__(self, post: Post, writes: Providers) -> None:
        self._name = post.name
        self._writes = writes
        self._types = types_of(post.name)
        self._chance = random.Random(f"{post.seed}/{post.name}/{post.start}")
        self._recorder = Recorder(post.record)
        self._numbers = itertools.count(post.start * 1_000_000)
        self._heard = 0.0

    def work(self, until: Path) -> None:
        """Register, and report; raises what the server or the connection says."""
        for gpu in GPUS:
            self._writes.register(gpu, provider_id=self._name)
        acts = (self.set_condition, self.set_status, self.hold)
        while not until.exists():
            if time.monotonic() > self._heard + HEARTBEAT_SECONDS:
                self._writes.heartbeat(self._name, interval_seconds=HEARTBEAT_SECONDS)
                self._heard = time.monotonic()
            [act] = self._chance.choices(acts, (8, 2, 1))
            act(self._chance.choice(GPUS))
            time.sleep(self._chance.uniform(0, 2 * _PAUSE_SECONDS))

    def make_peace(self) -> None:
        """A last word on every GPU, for as long as it takes until it is heard."""
        for gpu in GPUS:
            while True:
                try:
                    self._writes.register(gpu, provider_id=self._name)
                    self.set_status(gpu)
                    break
                except DeviceApiError:
                    time.sleep(0.05)

    def set_condition(self, gpu: str) -> None:
        number, condition = self._next(gpu, self._chance.choice(self._types))
        version = self._writes.update_condition(gpu, condition, provider_id=self._name)
        self._recorder.note("acknowledged", number, now(), version)

    def set_status(self, gpu: str) -> None:
        said = [self._next(gpu, type_) for type_ in self._types]
        status = GpuStatus(tuple(condition for _, condition in said))
        version = self._writes.update_status(gpu, status, provider_id=self._name)
        for number, _ in said:
            self._recorder.note("acknowledged", number, now(), version)

    def hold(self, gpu: str) -> None:
        """Bad news on two GPUs at once, which readers wait for."""
        gpus = (gpu, self._chance.choice([g for g in GPUS if g != gpu]))
        update = self._writes.update(self._name, gpus)
        held = now()
        said = [(g, *self._next(g, self._types[0], ConditionStatus.FALSE)) for g in gpus]
        for name, _, condition in said:
            update.set_condition(name, condition)
        time.sleep(self._chance.uniform(0, 0.02))
        versions = update.commit()
        for name, number, _ in said:
            self._recorder.note("acknowledged", number, now(), versions[name], held)

    def _next(
        self, gpu: str, type_: str, status: ConditionStatus | None = None
    ) -> tuple[int, Condition]:
        number = next(self._numbers)
        chosen = status or self._chance.choice(tuple(ConditionStatus))
        text = f"{self._name}:{number}"
        self._recorder.note("write", number, now(), gpu, type_, chosen.value, text)
        return number, Condition(type_, chosen, "", text)
