"""The cache and its watch hub: any history against a plain model, and the promises one by one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from device_api_core import codec, conditions
from device_api_core._proto import gpu_pb2
from device_api_core.cache import DeviceCache
from device_api_core.conversion import gpu_spec_from_proto
from device_api_core.entries import SetCondition, SetStatus, merge_spec
from device_api_core.errors import (
    AlreadyExists,
    Conflict,
    DeviceApiError,
    LimitExceeded,
    NotFound,
    WatchExpired,
)
from device_api_core.events import EventLog, Kind
from device_api_core.exposition import registry_of
from device_api_core.metrics import Metrics
from device_api_core.resources import (
    READY,
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)
from device_api_core.tallies import Tallies
from device_api_core.validation import (
    LIST_RESERVE_BYTES,
    MAX_CONDITIONS,
    MAX_GPUS,
    MAX_LIST_BYTES,
    MAX_OBJECT_BYTES,
)
from device_api_core.watch import SLOW_WATCHER, WATCHER_LIMIT, WatchHub

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
START = 1_000


class World:
    """A cache with everything it needs, and a clock that moves when told."""

    def __init__(self, *, strict=False, **hub_options):
        self.now = 10
        self.versions = []
        self.noted = {}
        self.hub = WatchHub(START, encode_bookmark=codec.bookmark, **hub_options)
        self.events = EventLog(wall=lambda: self.now, monotonic=lambda: self.now)
        self.metrics = Metrics(version="1", node="n")
        self.cache = DeviceCache(
            self.hub,
            events=self.events,
            metrics=self.metrics,
            wall=lambda: self.now,
            noted=self.note,
            strict_unregister=strict,
        )

    def note(self, name, before, after, version):
        assert self.noted.pop(name, None) is before
        if after is not None:
            self.noted[name] = after
        if version != (self.versions or [START])[-1]:
            self.versions.append(version)

    def set(self, gpu, type_, status, reason="", *, by="a", message=""):
        change = SetCondition(gpu, Condition(type_, status, reason, message, None, by))
        return self.cache.apply(by, [change])[gpu]

    def counted(self, name, **labels):
        return registry_of(self.metrics, Tallies()).get_sample_value(
            f"device_api_server_{name}_total", labels
        )

    def listed(self):
        return gpus_of(self.cache.list_response())[1]


@pytest.fixture
def world():
    return World()


def value_of(message):
    """A Gpu message as a value, every field of it."""
    told = tuple(
        replace(codec.decode_condition(c, "", "c"), provider_id=c.provider_id)
        for c in message.status.conditions
    )
    assert message.metadata.resource_version == str(message.resource_version)
    return Gpu(
        ObjectMeta(message.metadata.name, message.resource_version),
        gpu_spec_from_proto(message.spec),
        GpuStatus(told, message.status.recommended_action),
    )


def gpus_of(data):
    parsed = gpu_pb2.ListGpusResponse.FromString(data).gpu_list
    return int(parsed.metadata.resource_version), {
        gpu.metadata.name: value_of(gpu) for gpu in parsed.items
    }


def event_of(frame):
    parsed = gpu_pb2.WatchGpusResponse.FromString(frame)
    return parsed.type, value_of(parsed.object)


def next_now(subscription):
    """The next frame of a subscription that has one, or the error that ended it."""
    step = subscription.next()
    try:
        step.send(None)
    except StopIteration as returned:
        return returned.value
    step.close()
    raise AssertionError("the subscription waits")


# --- any history

NAMES = ("g0", "g1", "g2")
PROVIDERS = ("", "a", "b")
TYPES = (READY, "X", "Y")
QUEUE, HISTORY, WATCHES = 5, 8, 4

names, providers = st.sampled_from(NAMES), st.sampled_from(PROVIDERS)
words = st.sampled_from(("", "R", "S"))
statuses = st.sampled_from(ConditionStatus)
actions = st.sampled_from(("", "CUSTOM", "RESTART_BM"))
specs = st.builds(
    GpuSpec,
    uuid=st.sampled_from(("", "GPU-1", "gpu-1", "GPU-2")),
    index=st.none() | st.integers(0, 1),
    product_name=st.sampled_from(("", "H100")),
)


@st.composite
def changes(draw, by):
    def condition(type_):
        return Condition(type_, draw(statuses), draw(words), draw(words), None, by)

    gpu = draw(names)
    if draw(st.booleans()):
        action = draw(st.none() | actions)
        return SetCondition(gpu, condition(draw(st.sampled_from(TYPES))), action)
    types = draw(st.lists(st.sampled_from(TYPES), unique=True))
    return SetStatus(gpu, tuple(condition(t) for t in types), draw(actions))


@dataclass
class Known:
    spec: GpuSpec
    registrants: set
    health: conditions.Health
    version: int = 0

    def seen(self, name, version=None):
        return Gpu(
            ObjectMeta(name, version or self.version),
            self.spec,
            GpuStatus(self.health.published, self.health.recommended_action),
        )


@dataclass
class Watcher:
    subscription: object
    pending: deque
    initial: int
    replayed: dict = field(default_factory=dict)
    ended: bool = False


class CacheMachine(RuleBasedStateMachine):
    watchers = Bundle("watchers")

    def __init__(self):
        super().__init__()
        self.world = World(queue_events=QUEUE, history_events=HISTORY, max_watches=WATCHES)
        self.cache = self.world.cache
        self.model: dict[str, Known] = {}
        self.version = START
        self.log = []  # (version, event type, Gpu)
        self.open: list[Watcher] = []

    # --- the model

    def publish(self, kind, name):
        self.version += 1
        known = self.model[name]
        if kind == "DELETED":
            gpu = self.model.pop(name).seen(name, self.version)
        else:
            known.version = self.version
            gpu = known.seen(name)
        self.log.append((self.version, kind, gpu))
        for watcher in self.open:
            if not watcher.ended:
                watcher.ended = len(watcher.pending) - watcher.initial >= QUEUE
                watcher.pending.append((kind, gpu))

    def become(self, name, health, registrants=None):
        """A known GPU's health, and what follows from it."""
        known = self.model[name]
        before = known.seen(name)
        if registrants is not None:
            known.registrants = registrants
        if not known.registrants and not health.conditions:
            self.publish("DELETED", name)
            return
        known.health = health
        if known.seen(name) != before:
            self.publish("MODIFIED", name)

    def tick(self):
        self.world.now += 1
        return self.world.now

    # --- what may happen

    @rule(name=names, spec=specs, by=providers, data=st.data())
    def register(self, name, spec, by, data):
        now = self.tick()
        first = data.draw(st.none() | changes(by))
        initial = GpuStatus(first.conditions, first.recommended_action or "") if first else None
        holder = next(
            (
                n
                for n, k in self.model.items()
                if spec.uuid and k.spec.uuid.lower() == spec.uuid.lower()
            ),
            name,
        )
        known = self.model.get(name)
        differs = (
            known and known.spec.uuid and spec.uuid.lower() not in ("", known.spec.uuid.lower())
        )
        if holder != name or differs:
            with pytest.raises(AlreadyExists):
                self.cache.register(name, spec, by, initial)
            return
        created, version = self.cache.register(name, spec, by, initial)
        assert created == (known is None)
        if known is None:
            health = conditions.new_health(now)
            if initial:
                health = conditions.set_status(health, by, initial.conditions, now)
                health = conditions.set_action(health, by, initial.recommended_action)
            self.model[name] = Known(spec, {by}, health)
            self.publish("ADDED", name)
        else:
            known.registrants.add(by)
            merged = merge_spec(known.spec, spec)
            if merged != known.spec:
                known.spec = merged
                self.publish("MODIFIED", name)
        assert version == self.model[name].version

    @rule(by=providers, data=st.data())
    def apply(self, by, data):
        now = self.tick()
        some = data.draw(st.lists(changes(by), min_size=1, max_size=3))
        staged = {}
        try:
            for change in some:
                health = staged.get(change.gpu) or self.model[change.gpu].health
                staged[change.gpu] = change.apply(health, by, now)
        except (KeyError, Conflict) as error:
            with pytest.raises(NotFound if isinstance(error, KeyError) else Conflict):
                self.cache.apply(by, some)
            return
        versions = self.cache.apply(by, some)
        # Removals come last; the order among the rest is that of the changes.
        gone = [n for n, h in staged.items() if not self.model[n].registrants and not h.conditions]
        for name in (*(n for n in staged if n not in gone), *gone):
            self.become(name, staged[name])
        for name, version in versions.items():
            if name in self.model:
                assert version == self.model[name].version

    @rule(name=names)
    def unregister(self, name):
        self.tick()
        assert self.cache.unregister(name) == (name in self.model)
        if name in self.model:
            self.publish("DELETED", name)

    @rule(name=names, by=providers)
    def withdraw(self, name, by):
        now = self.tick()
        removed = self.cache.withdraw(name, by)
        if name in self.model:
            known = self.model[name]
            self.become(name, conditions.withdraw(known.health, by, now), known.registrants - {by})
            assert removed == (name not in self.model)

    @rule(by=providers)
    def forget(self, by):
        now = self.tick()
        self.cache.forget(by)
        for name, known in list(self.model.items()):
            if by in known.registrants or known.health.of(by):
                health = conditions.forget(known.health, by, now)
                self.become(name, health, known.registrants - {by})

    @rule(by=providers, gpus=st.lists(names, unique=True))
    def lapse(self, by, gpus):
        now = self.tick()
        changed = self.cache.lapse(by, "ProviderLost", "silent", gpus)
        before = self.version
        for name, known in list(self.model.items()):
            if not gpus or name in gpus:
                self.become(name, conditions.lapse(known.health, by, "ProviderLost", "silent", now))
        assert changed == self.version - before

    @rule(name=names, type_=st.sampled_from(TYPES))
    def clear(self, name, type_):
        now = self.tick()
        try:
            health, owner = conditions.clear(
                self.model[name].health,
                type_,
                "cleared by an operator; waiting for its provider to report again",
                now,
            )
        except (KeyError, Conflict, NotFound):
            with pytest.raises((Conflict, NotFound)):
                self.cache.clear(name, type_)
            return
        version, told = self.cache.clear(name, type_)
        self.become(name, health)
        assert (version, told) == (self.model[name].version, owner)

    # --- those who watch

    def watch(self, pending, **how):
        if len([w for w in self.open if not w.ended]) >= WATCHES:
            with pytest.raises(LimitExceeded) as caught:
                self.world.hub.subscribe([], **how)
            assert caught.value.reason == WATCHER_LIMIT
            return Watcher(None, deque(), 0, ended=True)
        snapshot = self.cache.snapshot_events()
        subscription = self.world.hub.subscribe(snapshot, **how)
        watcher = Watcher(subscription, deque(pending), len(pending))
        self.open.append(watcher)
        return watcher

    @rule(target=watchers)
    def watch_from_now(self):
        return self.watch([("ADDED", known.seen(n)) for n, known in self.model.items()])

    @rule(target=watchers, back=st.integers(-1, HISTORY + 2))
    def watch_from_a_version(self, back):
        since = self.version - back
        oldest = self.log[-HISTORY - 1][0] if len(self.log) > HISTORY else START
        if since > self.version or since < oldest:
            if self.world.hub.active < WATCHES:
                with pytest.raises(WatchExpired):
                    self.world.hub.subscribe([], since=since)
            return Watcher(None, deque(), 0, ended=True)
        later = [(kind, gpu) for version, kind, gpu in self.log if version > since]
        watcher = self.watch(later, since=since)
        state = {}
        for version, kind, gpu in self.log:
            if version <= since:
                self.replay(state, kind, gpu)
        watcher.replayed = state
        return watcher

    @staticmethod
    def replay(state, kind, gpu):
        if kind == "DELETED":
            del state[gpu.name]
        else:
            assert kind == ("MODIFIED" if gpu.name in state else "ADDED")
            state[gpu.name] = gpu

    @rule(watcher=watchers, most=st.integers(1, 12))
    def read(self, watcher, most):
        if watcher not in self.open:
            return
        if watcher.ended:
            with pytest.raises(LimitExceeded) as caught:
                next_now(watcher.subscription)
            assert caught.value.reason == SLOW_WATCHER
            assert watcher.subscription.queued == 0, "its queue is freed at once"
            return
        for _ in range(min(most, len(watcher.pending))):
            kind, gpu = event_of(next_now(watcher.subscription))
            assert (kind, gpu) == watcher.pending.popleft()
            watcher.initial = max(0, watcher.initial - 1)
            self.replay(watcher.replayed, kind, gpu)
        if not watcher.pending:
            assert watcher.replayed == {n: k.seen(n) for n, k in self.model.items()}

    @rule(watcher=consumes(watchers))
    def leave(self, watcher):
        if watcher in self.open:
            watcher.subscription.close()
            watcher.subscription.close()
            self.open.remove(watcher)

    # --- what always holds

    @invariant()
    def the_list_is_the_model(self):
        version, listed = gpus_of(self.cache.list_response())
        assert version == self.cache.version == self.world.hub.version == self.version
        assert listed == {name: known.seen(name) for name, known in self.model.items()}

    @invariant()
    def each_gpu_is_the_model(self):
        assert len(self.cache) == len(self.model)
        for name, known in self.model.items():
            entry = self.cache.get(name)
            got = gpu_pb2.GetGpuResponse.FromString(entry.get_response).gpu
            assert value_of(got) == entry.gpu == known.seen(name)
            assert entry.registrants == known.registrants
            assert entry.health == known.health

    @invariant()
    def every_change_was_one_version(self):
        assert self.world.versions == [version for version, _, _ in self.log]
        assert all(b == a + 1 for a, b in pairwise([START, *self.world.versions]))

    @invariant()
    def everything_is_noted_hidden_changes_too(self):
        assert self.world.noted == {e.name: e for e in self.world.cache.entries}

    @invariant()
    def owners_are_found(self):
        for by in PROVIDERS:
            owned = {n for n, k in self.model.items() if by in k.registrants or k.health.of(by)}
            assert {e.name for e in self.cache.owned_by(by)} == owned
            known = {n: k.health.of(by) for n, k in self.model.items() if k.health.of(by)}
            assert self.cache.known(by) == known

    @invariant()
    def slots_and_sizes_are_counted(self):
        assert self.world.hub.active == len([w for w in self.open if not w.ended])
        items = sum(len(e.item) for e in self.cache.entries)
        assert len(self.cache.list_response()) - items < 64


TestAnyHistory = CacheMachine.TestCase


# --- registration


def test_a_registered_gpu_is_unknown_until_somebody_reports(world):
    assert world.cache.register("g", GpuSpec(), "a") == (True, START + 1)
    assert world.cache.get("g").gpu.ready is UNKNOWN


def test_registering_again_keeps_health_and_version(world):
    world.cache.register("g", GpuSpec("GPU-1"), "a")
    version = world.set("g", "X", FALSE)
    initial = GpuStatus((Condition("X", TRUE, provider_id="a"),))
    assert world.cache.register("g", GpuSpec("gpu-1"), "a", initial) == (False, version)
    assert world.cache.get("g").gpu.ready is FALSE
    assert world.cache.get("g").spec.uuid == "GPU-1", "the driver's first spelling stays"


def test_a_uuid_belongs_to_one_name_and_a_name_to_one_uuid(world):
    world.cache.register("g", GpuSpec("GPU-1"), "a")
    with pytest.raises(AlreadyExists, match='uuid gpu-1 belongs to gpu "g"'):
        world.cache.register("h", GpuSpec("gpu-1"), "a")
    with pytest.raises(AlreadyExists, match='gpu "g" has uuid GPU-1, not GPU-2'):
        world.cache.register("g", GpuSpec("GPU-2"), "a")
    assert len(world.cache) == 1
    assert world.cache.version == START + 1


def test_a_uuid_filled_in_later_is_held_and_given_up_with_the_gpu(world):
    world.cache.register("g", GpuSpec(), "a")
    world.cache.register("g", GpuSpec("GPU-1"), "a")
    with pytest.raises(AlreadyExists):
        world.cache.register("h", GpuSpec("GPU-1"), "a")
    world.cache.unregister("g")
    assert world.cache.register("h", GpuSpec("GPU-1"), "a") == (True, START + 4)


def test_only_set_fields_of_a_spec_are_merged(world):
    world.cache.register("g", GpuSpec("GPU-1", 3, product_name="H100"), "a")
    world.cache.register("g", GpuSpec(index=0, serial="s"), "b")
    assert world.cache.get("g").spec == GpuSpec("GPU-1", 0, product_name="H100", serial="s")


def test_names_are_exact(world):
    world.cache.register("Gpu", GpuSpec(), "a")
    with pytest.raises(NotFound, match='gpu "gpu" not found'):
        world.cache.get("gpu")


# --- writes


def test_changes_are_applied_together_or_not_at_all(world):
    for name in ("g", "h"):
        world.cache.register(name, GpuSpec(), "a")
    world.set("h", "X", TRUE, by="b")
    before = world.cache.list_response()
    changes_ = [
        SetCondition("g", Condition("X", FALSE, provider_id="a")),
        SetCondition("h", Condition("X", FALSE, provider_id="a")),
    ]
    with pytest.raises(Conflict):
        world.cache.apply("a", changes_)
    with pytest.raises(NotFound):
        world.cache.apply("a", [changes_[0], SetStatus("gone", ())])
    assert world.cache.list_response() == before


def test_a_refused_false_is_logged_and_counted(world):
    world.cache.register("g", GpuSpec(), "a")
    world.set("g", "X", TRUE)
    for status in (TRUE, FALSE):
        with pytest.raises(Conflict):
            world.set("g", "X", status, by="b")
    assert world.counted("refused_false") == 1
    (event,) = world.events.newest(provider_id="b", limit=0)
    assert (event.reason, event.gpu, event.warning) == ("FalseRefused", "g", True)
    assert "belongs to provider a" in event.message


def test_effective_and_idle_successes_are_counted_and_refusals_are_not(world):
    world.cache.register("g", GpuSpec(), "a")
    for _ in range(2):
        world.set("g", "X", TRUE)
    world.cache.apply("a", [SetStatus("g", ())])
    with pytest.raises(NotFound):
        world.set("h", "X", TRUE)
    with pytest.raises(AlreadyExists):
        world.cache.register("h", GpuSpec("U"), "a") and world.cache.register(
            "i", GpuSpec("U"), "a"
        )
    world.cache.unregister("absent")
    operations = ("register", "update_condition", "update_status", "unregister")
    counts = [world.counted("cache_updates", operation=o) for o in operations]
    assert counts == [2, 2, 1, 1]
    assert world.counted("watch_events", type="MODIFIED") == 2


def test_a_change_of_status_is_an_event_and_a_change_of_text_is_none(world):
    world.cache.register("g", GpuSpec(), "a")
    world.set("g", "X", TRUE)
    assert world.events.newest(limit=0) == []
    world.set("g", "X", FALSE, "Xid79", message="fell off")
    world.set("g", "X", FALSE, "Xid79", message="still off")
    (event,) = world.events.newest(limit=0)
    assert (event.reason, event.message) == ("Xid79", "X True -> False (Xid79) fell off")


# --- removal


def test_a_gpu_goes_with_its_last_registrant_and_condition(world):
    world.cache.register("g", GpuSpec(), "a")
    world.set("g", "X", FALSE)
    assert not world.cache.withdraw("g", "a"), "its fault stays, and with it the GPU"
    assert world.cache.apply("a", [SetStatus("g", ())]) == {"g": world.cache.version}
    assert len(world.cache) == 0
    assert world.events.newest(limit=1)[0].reason == "GpuWithdrawn"


def test_a_gpu_stays_while_another_registered_it(world):
    for by in ("a", "b"):
        world.cache.register("g", GpuSpec(), by)
    assert not world.cache.withdraw("g", "a")
    assert world.cache.withdraw("g", "b")


def test_deleted_carries_the_last_state_and_the_lists_version(world):
    world.cache.register("g", GpuSpec("GPU-1"), "a")
    world.set("g", "X", FALSE, "Fault")
    last = world.cache.get("g").gpu
    watch = world.hub.subscribe((), since=world.cache.version)
    assert world.cache.unregister("g")
    version, listed = gpus_of(world.cache.list_response())
    deleted = replace(last, metadata=replace(last.metadata, resource_version=version))
    assert event_of(next_now(watch)) == ("DELETED", deleted)
    assert listed == {}
    assert not world.cache.unregister("g")


def test_unregistering_is_an_operators_act(world):
    world.cache.register("g", GpuSpec(), "a")
    world.cache.unregister("g")
    assert world.events.newest(limit=1)[0].kind is Kind.OPERATOR


def test_strict_unregister_refuses_while_a_fault_is_held():
    world = World(strict=True)
    world.cache.register("g", GpuSpec(), "a")
    world.set("g", "X", FALSE)
    with pytest.raises(Conflict, match="X=False, held by provider a"):
        world.cache.unregister("g")
    world.set("g", "X", UNKNOWN)
    assert world.cache.unregister("g")


def test_forgetting_tells_what_it_touched(world):
    for name in ("g", "h", "i"):
        world.cache.register(name, GpuSpec(), "a" if name != "i" else "b")
    world.set("g", "X", FALSE)
    world.set("g", "Y", TRUE)
    world.set("i", "X", TRUE)
    assert world.cache.forget("a") == (3, 3)
    assert [e.name for e in world.cache.entries] == ["i"]


# --- bad news survives


def test_a_lapse_is_one_event_per_gpu(world):
    world.cache.register("g", GpuSpec(), "a")
    world.set("g", "X", TRUE)
    world.set("g", "Y", TRUE)
    before = world.cache.version
    assert world.cache.lapse("a", "ProviderLost", "silent") == 1
    assert world.cache.version == before + 1


def test_a_lapse_takes_any_text(world):
    world.cache.register("g", GpuSpec(), "a")
    world.set("g", "X", TRUE)
    world.cache.lapse("a", "UpdateAborted", "\ud800" + "x" * 1_000_000)
    lapsed = world.listed()["g"].condition("X")
    assert lapsed.message == "?" + "x" * 511


# --- limits


def filled(world, used, *, gpus=61):
    """Register GPUs whose items take ``used`` bytes together."""
    for i in range(gpus):
        size = used // gpus if i else used - (gpus - 1) * (used // gpus)
        world.cache.register(f"f{i}", GpuSpec(), "fat", fat_status(world, f"f{i}", size))
    assert sum(len(e.item) for e in world.cache.entries) == used


def fat_status(world, name, size):
    """A status that makes a new GPU's item exactly that long, of two True conditions."""

    def status(text):
        half = min(len(text), 32_000)
        return GpuStatus(
            (
                Condition("P", TRUE, "", text[:half], world.now, "fat"),
                Condition("Q", TRUE, "", text[half:], world.now, "fat"),
            )
        )

    guess = size - 200
    for _ in range(6):
        probe = World()
        probe.now = world.now
        probe.cache.register(name, GpuSpec(), "fat", status("x" * guess))
        guess += size - len(probe.cache.get(name).item)
    return status("x" * guess)


PLAIN_LIMIT = MAX_LIST_BYTES - LIST_RESERVE_BYTES - 64


def test_the_1025th_gpu_is_refused(world):
    for i in range(MAX_GPUS):
        world.cache.register(f"g{i}", GpuSpec(), "a")
    before = world.cache.version
    with pytest.raises(LimitExceeded, match="1024 GPUs"):
        world.cache.register("one-more", GpuSpec(), "a")
    assert (len(world.cache), world.cache.version) == (MAX_GPUS, before)
    world.cache.register("g0", GpuSpec(serial="s"), "b")


@pytest.mark.parametrize("status", [TRUE, FALSE])
def test_the_65th_condition_is_refused_and_ready_does_not_count(world, status):
    world.cache.register("g", GpuSpec(), "a")
    some = [Condition(f"T{i}", status, provider_id="a") for i in range(MAX_CONDITIONS + 1)]
    world.cache.apply("a", [SetStatus("g", tuple(some[:-1]))])
    before = world.cache.list_response()
    for change in (SetCondition("g", some[-1]), SetStatus("g", tuple(some))):
        with pytest.raises(LimitExceeded, match="65 conditions; the limit is 64"):
            world.cache.apply("a", [change])
    assert world.cache.list_response() == before


def two_messages(total, status=TRUE):
    """A status of one GPU with two long messages."""
    return SetStatus(
        "g",
        (
            Condition("A", TRUE, "", "x" * 32_768, None, "a"),
            Condition("B", status, "", "x" * (total - 32_768), None, "a"),
        ),
    )


def test_an_object_has_a_limit(world):
    world.cache.register("g", GpuSpec(), "a")
    world.cache.apply("a", [two_messages(60_000)])
    entry = world.cache.get("g")
    size = len(entry.item) - len(entry.parts[0])
    exactly = 60_000 + MAX_OBJECT_BYTES - size
    world.cache.apply("a", [two_messages(exactly)])
    before = world.cache.list_response()
    with pytest.raises(LimitExceeded, match="would take 65537 bytes") as caught:
        world.cache.apply("a", [two_messages(exactly + 1)])
    assert caught.value.reason == "size"
    assert world.cache.list_response() == before


def test_a_fault_on_a_full_object_is_stored_with_its_text_cut(world):
    world.cache.register("g", GpuSpec(), "a")
    world.cache.apply("a", [two_messages(65_000)])
    world.set("g", "C", FALSE, "Xid79" * 50, by="b", message="ü" * 10_000)
    fault = world.listed()["g"].condition("C")
    assert fault.message == "ü" * 128 + " [cut: no room]"
    assert fault.reason == ("Xid79" * 50)[:64]
    assert world.listed()["g"].ready is FALSE
    assert world.counted("messages_cut") == 1


def test_the_same_fault_reported_again_is_cut_again_and_changes_nothing(world):
    world.cache.register("g", GpuSpec(), "a")
    world.cache.apply("a", [two_messages(65_000)])
    version = world.set("g", "C", FALSE, by="b", message="x" * 10_000)
    assert world.set("g", "C", FALSE, by="b", message="x" * 10_000) == version


def test_an_object_above_its_limit_may_become_smaller(world):
    owner = "p" * 128
    types = [f"{'d' * 253}/{'X' * 126}{i:02}" for i in range(MAX_CONDITIONS)]
    many = [Condition(t, TRUE, "", "x" * 460, None, owner) for t in types]
    world.cache.register("g", GpuSpec(), owner)
    world.cache.apply(owner, [SetStatus("g", tuple(many))])
    world.cache.lapse(owner, "ProviderLost", "y" * 512)
    entry = world.cache.get("g")
    assert len(entry.item) - len(entry.parts[0]) > MAX_OBJECT_BYTES, "a lapse is never refused"
    for condition in many:
        world.cache.apply(owner, [SetCondition("g", condition)])
    assert world.cache.get("g").gpu.ready is TRUE


def test_a_list_has_a_limit_that_leaves_room_for_faults(world):
    filled(world, PLAIN_LIMIT - 300)
    world.cache.register("g", GpuSpec(), "a")
    before = world.cache.list_response()
    with pytest.raises(LimitExceeded, match="all GPUs together") as caught:
        world.set("g", "X", TRUE, message="x" * 300)
    assert caught.value.reason == "size"
    assert world.cache.list_response() == before
    world.set("g", "X", FALSE, message="x" * 300)
    assert world.listed()["g"].condition("X").message == "x" * 256 + " [cut: no room]"
    with pytest.raises(LimitExceeded):
        world.cache.register("h", GpuSpec(), "a")
    world.set("f0", "P", TRUE, by="fat", message="short")
    world.cache.register("h", GpuSpec(), "a")


def test_the_lists_limit_is_exact(world):
    filled(world, PLAIN_LIMIT - 100)
    text = world.cache.get("f0").gpu.condition("P").message
    world.set("f0", "P", TRUE, by="fat", message=text + "x" * 100)
    with pytest.raises(LimitExceeded):
        world.set("f0", "P", TRUE, by="fat", message=text + "x" * 101)
    with pytest.raises(LimitExceeded):
        world.cache.register("g", GpuSpec(), "a")
    assert len(world.cache.list_response()) <= MAX_LIST_BYTES - LIST_RESERVE_BYTES


def test_a_gpu_that_goes_makes_room(world):
    filled(world, PLAIN_LIMIT)
    for i in range(3):
        world.cache.unregister(f"f{i}")
        world.cache.register(f"n{i}", GpuSpec(), "a")
        world.set(f"n{i}", "X", TRUE, message="x" * 32_000)


def test_every_gpu_may_break_at_once_on_a_full_list(world):
    for i in range(MAX_GPUS):
        world.cache.register(f"g{i}", GpuSpec(), "a")
    padding = PLAIN_LIMIT - sum(len(e.item) for e in world.cache.entries)
    for i in range(MAX_GPUS):
        world.set(f"g{i}", "Fat", TRUE, message="x" * (padding // MAX_GPUS - 60))
    for i in range(MAX_GPUS):
        world.set(f"g{i}", "X", FALSE, "R" * 64, message="fell off the bus " * 20)
    assert all(e.gpu.ready is FALSE for e in world.cache.entries)
    assert len(world.cache.list_response()) <= MAX_LIST_BYTES


long_texts = st.sampled_from(("", "x" * 200, "ü" * 3_000, "x" * 32_768))


@st.composite
def large_changes(draw):
    by = draw(st.sampled_from(("a", "fat")))
    gpu = draw(st.sampled_from(("g", "f0", "f1", "f2")))
    some = tuple(
        Condition(f"{by.upper()}{i}", draw(statuses), draw(words), draw(long_texts), None, by)
        for i in draw(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
    )
    return by, SetStatus(gpu, some)


@settings(max_examples=25)
@given(st.integers(-5_000, 0), st.lists(large_changes(), max_size=12))
def test_bad_news_is_never_refused_for_size_and_a_list_always_fits(room, writes):
    world = World()
    for i in range(60):
        size = (PLAIN_LIMIT + room) // 60 - 400
        told = tuple(Condition(t, TRUE, "", "x" * (size // 2), 1, "fat") for t in ("P", "Q"))
        world.cache.register(f"f{i}", GpuSpec(), "fat", GpuStatus(told))
    world.cache.register("g", GpuSpec(), "a")
    for by, change in writes:
        world.now += 1
        before = world.cache.list_response()
        health = world.cache.get(change.gpu).health
        faults = {(c.type, c.provider_id) for c in health.conditions if c.status is FALSE}
        try:
            world.cache.apply(by, [change])
        except LimitExceeded:
            said = {(c.type, by) for c in change.conditions if c.status is FALSE}
            assert said <= faults, "a new fault was refused"
            assert world.cache.list_response() == before
        else:
            got = world.listed()[change.gpu]
            assert [got.condition(c.type).status for c in change.conditions] == [
                c.status for c in change.conditions
            ]
        assert len(world.cache.list_response()) <= MAX_LIST_BYTES
    world.cache.lapse("fat", "ProviderLost", "y" * 5_000)
    assert len(world.cache.list_response()) <= MAX_LIST_BYTES
    assert all(c.status is not TRUE for e in world.cache.entries for c in e.health.of("fat"))


def test_a_lapse_of_very_many_conditions_loses_its_text_rather_than_the_lists_limit(world):
    told = tuple(Condition(f"T{i}", TRUE, provider_id="a") for i in range(10))
    for i in range(MAX_GPUS):
        world.cache.register(f"g{i}", GpuSpec(product_name="x" * 256, serial="x" * 256), "a")
    for i in range(MAX_GPUS):
        world.cache.apply("a", [SetStatus(f"g{i}", told)])
    padding = PLAIN_LIMIT - len(world.cache.list_response())
    for i in range(padding // 32_768):
        world.set(f"g{i}", "Fat", TRUE, message="x" * 32_600)
    world.now += 1
    assert world.cache.lapse("a", "ProviderLost", "z" * 500) == MAX_GPUS
    assert len(world.cache.list_response()) <= MAX_LIST_BYTES
    assert all(e.gpu.ready is UNKNOWN for e in world.cache.entries)
    assert world.counted("messages_cut") > 0


def test_every_error_has_a_message(world):
    for attempt in (
        lambda: world.cache.get("g"),
        lambda: world.cache.clear("g", "X"),
        lambda: world.cache.apply("a", [SetStatus("g", ())]),
    ):
        with pytest.raises(DeviceApiError) as caught:
            attempt()
        assert caught.value.message
