"""Reports, held updates, life and loss of providers, on a real cache in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core import codec
from device_api_core.cache import DeviceCache
from device_api_core.entries import SetCondition
from device_api_core.errors import Conflict, LimitExceeded, NotFound, UpdateAborted
from device_api_core.events import EventLog
from device_api_core.exposition import registry_of
from device_api_core.intake import MAX_HOLD_SECONDS, Intake
from device_api_core.leases import HEARTBEAT_SECONDS, MAX_PROVIDERS, LeaseTerms
from device_api_core.life import Life
from device_api_core.metrics import Metrics
from device_api_core.readiness import Readiness
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus
from device_api_core.series import Numbers, Series
from device_api_core.watch import WatchHub

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class World:
    """Everything between a provider's call and the readers."""

    def __init__(self, loop, *, expected=(), **options):
        self.loop = loop
        self.metrics = metrics = Metrics(version="1", node="n")
        self.hub = WatchHub(1_000, encode_bookmark=codec.bookmark, clock=loop.time)
        self.events = EventLog(wall=loop.wall, monotonic=loop.monotonic)
        self.cache = DeviceCache(
            self.hub,
            events=self.events,
            metrics=metrics,
            wall=loop.wall,
        )
        self.readiness = Readiness(
            (),
            expected,
            known_gpus=lambda: len(self.cache),
            clock=loop.monotonic,
            changed=lambda ready: None,
        )
        self.intake = Intake(
            self.cache,
            readiness=self.readiness,
            events=self.events,
            metrics=metrics,
            clock=loop,
            **options,
        )

    def register(self, *gpus, by="a"):
        for gpu in gpus:
            self.intake.register(by, gpu, GpuSpec())

    def set(self, gpu, type_, status, *, by="a"):
        self.intake.apply(by, [change(gpu, type_, status, by=by)])

    def status(self, gpu, type_):
        found = self.cache.get(gpu).gpu.condition(type_)
        return (found.status, found.reason) if found else None

    async def read(self):
        await self.intake.gate.passage()
        return self.loop.time(), {e.name: e.gpu for e in self.cache.entries}

    def registry(self):
        return registry_of(self.metrics, self.intake.tallies)

    def counted(self, name, by="a"):
        labels = {"provider_id": by}
        return self.registry().get_sample_value(f"device_api_server_{name}_total", labels)

    def reasons(self):
        return [e.reason for e in self.events.newest(limit=0)]


def change(gpu, type_, status, reason="", *, by="a"):
    return SetCondition(gpu, Condition(type_, status, reason, "", None, by))


@pytest.fixture
def on(virtual_loop):
    def run(scenario, **options):
        async def made():
            world = World(virtual_loop, **options)
            world.register("g", "h")
            world.set("g", "X", TRUE)
            world.set("h", "X", TRUE)
            await scenario(world)

        virtual_loop.run_until_complete(made())

    return run


# --- held updates


def test_readers_see_all_of_an_update_at_once(on):
    async def scenario(world):
        held = world.intake.hold("a", ("g",))
        reader = asyncio.create_task(world.read())
        await asyncio.sleep(1)
        assert not reader.done()
        assert world.status("g", "X") == (TRUE, "")
        world.intake.commit(held, [change("g", "X", FALSE), change("h", "X", FALSE)])
        committed = world.loop.time()
        passed, seen = await reader
        assert (passed, world.intake.gate.held) == (committed, 0)
        assert {gpu.ready for gpu in seen.values()} == {FALSE}

    on(scenario)


def test_an_update_delays_nobodys_writes(on):
    async def scenario(world):
        world.intake.hold("a", ())
        world.set("g", "X", FALSE)
        world.set("g", "Y", FALSE, by="b")
        assert world.status("g", "X") == (FALSE, "")

    on(scenario)


def test_an_update_that_expires_is_dropped_and_its_true_doubted(on):
    async def scenario(world):
        world.set("g", "Y", FALSE)
        held = world.intake.hold("a", ("g",))
        arrived = world.loop.time()
        passed, seen = await world.read()
        assert passed - arrived == pytest.approx(MAX_HOLD_SECONDS)
        assert seen["g"].condition("X").reason == "UpdateAborted"
        assert seen["g"].condition("Y").status is FALSE
        assert seen["h"].condition("X").status is TRUE, "it was not named"
        with pytest.raises(UpdateAborted):
            world.intake.commit(held, [change("g", "X", TRUE)])
        world.intake.abort(held, "again")
        assert world.counted("updates_aborted") == world.counted("updates_expired") == 1
        assert world.reasons().count("UpdateAborted") == 2  # the GPU's change, and the abort
        world.intake.abort(world.intake.hold("b", ()), "in time")
        assert world.counted("updates_expired", by="b") == 0

    on(scenario)


def test_an_update_that_names_no_gpu_doubts_all_of_them(on):
    async def scenario(world):
        world.intake.abort(world.intake.hold("a", ()), "RuntimeError: \ud800" + "x" * 100_000)
        assert world.status("g", "X") == world.status("h", "X") == (UNKNOWN, "UpdateAborted")
        assert len(world.cache.list_response()) < 5_000
        assert world.intake.gate.held == 0

    on(scenario)


@pytest.mark.parametrize(
    ("refused", "error"),
    [(change("gone", "X", TRUE), NotFound), (change("g", "Theirs", TRUE), Conflict)],
)
def test_a_refused_change_drops_the_whole_update(on, refused, error):
    async def scenario(world):
        world.set("g", "Theirs", TRUE, by="b")
        held = world.intake.hold("a", ("g",))
        with pytest.raises(error):
            world.intake.commit(held, [change("g", "X", FALSE), refused])
        assert world.status("g", "X") == (UNKNOWN, "UpdateAborted")
        assert world.intake.gate.held == 0

    on(scenario)


def test_an_update_on_an_absent_gpu_is_refused_and_nothing_held(on):
    async def scenario(world):
        with pytest.raises(NotFound):
            world.intake.hold("a", ("g", "gone"))
        assert world.intake.gate.held == 0

    on(scenario)


def test_a_provider_that_crashes_ends_its_update(on):
    async def scenario(world):
        world.intake.hold("a", ("g",))
        world.intake.failed("a", "ProviderFailed", "it crashed")
        assert world.status("g", "X") == (UNKNOWN, "UpdateAborted")
        assert world.status("h", "X") == (UNKNOWN, "ProviderFailed")
        assert world.intake.gate.held == 0

    on(scenario)


class Trial:
    """Providers hold, look, and commit one number to both GPUs; readers come at any moment."""

    def __init__(self, loop):
        self.world = World(loop)
        self.committed = {"a": [0], "b": [0]}
        self.held = {}  # provider -> the number that it will commit

    def told(self, by, number):
        return [change(gpu, f"T{by}", FALSE, f"N{number}", by=by) for gpu in ("g", "h")]

    async def provide(self, by, sequence):
        for number, (pause, look) in enumerate(sequence, 1):
            await asyncio.sleep(pause)
            with suppress(LimitExceeded):
                held = self.world.intake.hold(by, ())
                self.held[by] = number
                await asyncio.sleep(look)
                self.commit(held, by, look)

    def commit(self, held, by, look):
        number = self.held.pop(by)
        try:
            self.world.intake.commit(held, self.told(by, number))
        except UpdateAborted:
            assert look >= MAX_HOLD_SECONDS
        else:
            assert look <= MAX_HOLD_SECONDS
            self.committed[by].append(number)

    async def read_at(self, moment):
        await asyncio.sleep(moment)
        done = {by: numbers[-1] for by, numbers in self.committed.items()}
        awaited = {by: n for by, n in self.held.items() if self.world.intake.gate.held_by(by)}
        _, seen = await self.world.read()
        for by in ("a", "b"):
            shown = {seen[gpu].condition(f"T{by}").reason for gpu in ("g", "h")}
            assert len(shown) == 1, "an update is seen whole or not at all"
            number = int(shown.pop().removeprefix("N"))
            assert number >= done[by]
            if awaited.get(by) in self.committed[by]:
                assert number >= awaited[by]

    async def run(self, looks, arrivals):
        for by in ("a", "b"):
            self.world.register("g", "h", by=by)
            self.world.intake.apply(by, self.told(by, 0))
        await asyncio.gather(
            self.provide("a", looks),
            self.provide("b", looks[::-1]),
            *(self.read_at(moment) for moment in arrivals),
        )


moments = st.integers(0, 40).map(lambda n: n / 4)


@given(
    looks=st.lists(st.tuples(moments, moments), min_size=1, max_size=6),
    arrivals=st.lists(moments, min_size=1, max_size=8),
)
def test_no_reader_ever_sees_what_was_in_doubt_when_it_came(loop_type, looks, arrivals):
    with closing(loop_type()) as loop:
        loop.run_until_complete(Trial(loop).run(looks, arrivals))


# --- life and loss


def test_a_silent_provider_is_lost_and_its_false_stays(on):
    async def scenario(world):
        world.set("g", "Y", FALSE)
        assert world.intake.heartbeat("a", ["g"], Life())
        await asyncio.sleep(HEARTBEAT_SECONDS - 1)
        assert world.status("g", "X") == (TRUE, "")
        await asyncio.sleep(2)
        assert world.status("g", "X") == (UNKNOWN, "ProviderLost")
        assert world.status("g", "Y") == (FALSE, "")
        assert world.counted("provider_heartbeat_timeout") == 1
        assert not world.intake.heartbeat("a", ["g"], Life()), "it must report again"
        world.set("g", "X", TRUE)
        world.set("h", "X", TRUE)
        assert world.intake.heartbeat("a", [], Life())

    on(scenario)


def test_any_write_renews_a_lease_also_one_that_changes_nothing(on):
    async def scenario(world):
        world.intake.heartbeat("a", [], Life())
        for _ in range(5):
            await asyncio.sleep(HEARTBEAT_SECONDS - 1)
            world.set("g", "X", TRUE)
        assert world.status("g", "X") == (TRUE, "")

    on(scenario)


def test_a_lost_provider_shows_no_gauges_and_keeps_its_counters(on):
    def shown(world):
        sample = world.registry().get_sample_value
        names = ("device_api_provider_xids_total", "device_api_provider_speed")
        return [sample(name, {"provider_id": "a"}) for name in names]

    async def scenario(world):
        world.register("g")
        numbers = Numbers(1, {Series("xids"): 2}, {Series("speed"): 900})
        world.intake.heartbeat("a", [], Life(numbers=numbers))
        assert shown(world) == [2, 900]
        world.intake.heartbeat("a", [], Life())
        assert shown(world) == [2, 900], "nothing said is no change"
        await asyncio.sleep(HEARTBEAT_SECONDS + 1)
        assert shown(world) == [2, None]
        world.intake.forget("a")
        assert shown(world) == [None, None]

    on(scenario)


@pytest.mark.parametrize(("required", "status"), [(False, TRUE), (True, UNKNOWN)])
def test_a_writer_without_heartbeats_has_a_lease_only_if_required(on, required, status):
    async def scenario(world):
        await asyncio.sleep(10 * HEARTBEAT_SECONDS)
        assert world.status("g", "X")[0] is status

    on(scenario, terms=LeaseTerms(required=required))


def test_a_heartbeat_without_known_gpus_is_not_acknowledged_and_leaves_no_trace(on):
    async def scenario(world):
        assert not world.intake.heartbeat("b", [], Life())
        assert not world.intake.heartbeat("a", ["gone"], Life())
        await asyncio.sleep(2 * HEARTBEAT_SECONDS)
        assert world.intake.leases.get("b") is None

    on(scenario)


def test_a_cleared_fault_asks_its_remote_owner_to_report_again(on):
    async def scenario(world):
        world.set("g", "X", FALSE)
        assert world.intake.heartbeat("a", [], Life())
        world.cache.clear("g", "X")
        assert not world.intake.heartbeat("a", [], Life())
        world.set("g", "X", FALSE)
        assert world.intake.heartbeat("a", [], Life())

    on(scenario)


def test_forgetting_a_provider_drops_all_it_said(on):
    async def scenario(world):
        world.set("g", "Y", FALSE)
        world.intake.hold("a", ())
        assert world.intake.forget("a") == (2, 3)
        assert (len(world.cache), world.intake.gate.held) == (0, 0)
        assert not world.intake.knows("a")

    on(scenario)


def test_withdrawing_what_was_never_reported_is_not_remembered(on):
    async def scenario(world):
        for i in range(2 * MAX_PROVIDERS):
            world.intake.withdraw(f"stranger{i}", "g")
        assert len(world.intake.leases.signs) == 1

    on(scenario)


def test_too_many_providers_are_refused_before_anything_changes(on):
    async def scenario(world):
        for i in range(MAX_PROVIDERS - 1):
            world.register("g", by=f"p{i}")
        before = world.cache.list_response()
        for attempt in (
            lambda: world.set("g", "Z", FALSE, by="one-more"),
            lambda: world.register("new", by="one-more"),
            lambda: world.intake.hold("one-more", ()),
            lambda: world.intake.heartbeat("one-more", [], Life()),
        ):
            with pytest.raises(LimitExceeded):
                attempt()
        assert world.cache.list_response() == before

    on(scenario)


def test_an_id_that_owns_nothing_makes_room_the_oldest_first(on):
    async def scenario(world):
        for i in range(MAX_PROVIDERS - 3):
            world.register("g", by=f"p{i}")
        world.intake.on_lost("plugin", lambda: None)
        world.intake.heard("plugin")
        await asyncio.sleep(1)
        world.intake.heartbeat("first", [], Life())
        await asyncio.sleep(1)
        world.register("h", by="second")
        world.intake.withdraw("second", "h")
        ids = {s.provider_id for s in world.intake.leases.signs}
        assert {"first", "second"} & ids == {"second"}
        world.register("g", by="third")
        ids = {s.provider_id for s in world.intake.leases.signs}
        assert {"plugin", "second", "third", "a"} & ids == {"plugin", "third", "a"}
        with pytest.raises(LimitExceeded):
            world.register("g", by="fourth")

    on(scenario)


def test_a_provider_that_stays_lost_is_withdrawn_but_for_its_faults(on):
    async def scenario(world):
        world.register("i", by="b")
        world.set("i", "Z", TRUE, by="b")
        world.set("g", "Z", FALSE, by="b")
        world.set("g", "Y", UNKNOWN, by="b")
        world.intake.heartbeat("b", ["g"], Life())
        await asyncio.sleep(HEARTBEAT_SECONDS + 99)
        assert world.status("i", "Z") == (UNKNOWN, "ProviderLost")
        await asyncio.sleep(2)
        assert world.status("g", "Z") == (FALSE, "")
        assert world.status("g", "Y") is None
        assert world.status("g", "X") == (TRUE, "")
        assert {e.name for e in world.cache.entries} == {"g", "h"}
        assert world.reasons()[-1] == "ProviderGone"
        await asyncio.sleep(1_000)
        assert world.reasons().count("ProviderGone") == 1
        assert world.intake.leases.get("b").lapsed
        world.cache.clear("g", "Z")
        await asyncio.sleep(100)
        assert world.status("g", "Z") is None
        assert not world.intake.knows("b")

    on(scenario, terms=LeaseTerms(gone_seconds=100))


def test_a_provider_that_is_gone_and_has_no_fault_is_not_remembered(on):
    async def scenario(world):
        world.set("g", "Z", TRUE, by="b")
        world.intake.heartbeat("b", ["g"], Life())
        await asyncio.sleep(HEARTBEAT_SECONDS + 101)
        assert world.intake.leases.get("b") is None
        assert world.counted("provider_heartbeat", "b") is None

    on(scenario, terms=LeaseTerms(gone_seconds=100))


def test_a_plugin_of_this_server_is_never_gone_for_good(on):
    async def scenario(world):
        world.set("g", "Z", TRUE, by="b")
        world.intake.on_lost("b", lambda: None)
        world.intake.heard("b", lease_seconds=30)
        await asyncio.sleep(1_000)
        assert world.status("g", "Z") == (UNKNOWN, "ProviderLost")

    on(scenario, terms=LeaseTerms(gone_seconds=100))


def test_a_writer_without_a_lease_is_never_gone_for_good(on):
    async def scenario(world):
        await asyncio.sleep(1_000)
        assert world.status("g", "X") == (TRUE, "")

    on(scenario, terms=LeaseTerms(gone_seconds=100))


def test_the_first_heartbeat_after_a_restart_is_told_to_report(on):
    async def scenario(world):
        world.set("g", "Z", FALSE, by="b")
        world.intake.leases.forget("b")
        world.intake.leases.remember("b")
        assert not world.intake.heartbeat("b", ["g"], Life(synced=True))
        assert not world.intake.leases.get("b").synced
        assert world.intake.heartbeat("b", ["g"], Life(synced=True))

    on(scenario)


def test_a_first_report_makes_an_expected_provider_synced(virtual_loop):
    async def scenario():
        world = World(virtual_loop, expected=["a"])
        world.register("g")
        assert not world.readiness.evaluate()
        initial = GpuStatus((Condition("X", TRUE, provider_id="a"),))
        world.intake.register("a", "h", GpuSpec(), initial)
        assert world.readiness.evaluate()

    virtual_loop.run_until_complete(scenario())
