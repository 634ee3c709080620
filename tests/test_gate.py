"""The read gate: who waits for what, and for how long. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from device_api_core.errors import LimitExceeded
from device_api_core.gate import ReadGate

HOLD_SECONDS = 5.0


def gate_on(loop, expired=lambda held: None):
    return ReadGate(max_hold_seconds=HOLD_SECONDS, clock=loop.time, expired=expired)


@pytest.fixture
def on(virtual_loop):
    """Run a scenario, given a gate, on the virtual loop."""

    def run(scenario, **options):
        return virtual_loop.run_until_complete(scenario(gate_on(virtual_loop, **options)))

    return run


async def settled():
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_reader_passes_an_open_gate_at_once(on):
    async def scenario(gate):
        with pytest.raises(StopIteration):
            gate.passage().send(None)

    on(scenario)


def test_reader_waits_while_an_update_is_held(on):
    async def scenario(gate):
        held = gate.hold("a", ())
        reader = asyncio.create_task(gate.passage())
        await settled()
        assert not reader.done()
        assert (gate.parked, gate.held) == (1, 1)
        assert gate.release(held)
        await reader
        assert (gate.parked, gate.held) == (0, 0)

    on(scenario)


def test_holds_and_the_waits_for_them_are_timed_but_not_a_free_passage(on):
    async def scenario(gate):
        await gate.passage()
        held = gate.hold("a", ())
        await asyncio.sleep(1)
        reader = asyncio.create_task(gate.passage())
        gone = asyncio.create_task(gate.passage())
        await asyncio.sleep(2)
        gone.cancel()
        await settled()
        await asyncio.sleep(1)
        gate.release(held)
        await reader
        gate.hold("b", ())
        await asyncio.sleep(HOLD_SECONDS + 1)
        assert (gate.waits.count, gate.waits.seconds) == (2, pytest.approx(5))
        assert (gate.holds.count, gate.holds.seconds) == (2, pytest.approx(4 + HOLD_SECONDS))

    on(scenario)


def test_reader_waits_for_all_updates_of_its_arrival_and_for_none_later(on):
    async def scenario(gate):
        first, second = gate.hold("a", ()), gate.hold("b", ())
        reader = asyncio.create_task(gate.passage())
        await settled()
        gate.hold("c", ())
        gate.release(second)
        await settled()
        assert not reader.done()
        gate.release(first)
        await reader
        assert gate.held == 1

    on(scenario)


def test_a_later_hold_of_the_same_provider_is_not_waited_for(on):
    async def scenario(gate):
        first = gate.hold("a", ())
        reader = asyncio.create_task(gate.passage())
        await settled()
        gate.release(first)
        gate.hold("a", ())
        await settled()
        assert reader.done()

    on(scenario)


def test_a_provider_that_reads_does_not_wait_for_itself(on):
    async def scenario(gate):
        gate.hold("a", ())
        await gate.passage(but_for="a")
        theirs = gate.hold("b", ())
        reader = asyncio.create_task(gate.passage(but_for="a"))
        await settled()
        assert not reader.done()
        gate.release(theirs)
        await reader

    on(scenario)


def test_cancelling_a_reader_harms_nobody_else(on):
    async def scenario(gate):
        held = gate.hold("a", ())
        one, other = (asyncio.create_task(gate.passage()) for _ in range(2))
        await settled()
        one.cancel()
        await settled()
        assert (one.cancelled(), other.done(), gate.parked, gate.held) == (True, False, 1, 1)
        gate.release(held)
        await other

    on(scenario)


def test_a_readers_deadline_is_honoured(on):
    async def scenario(gate):
        gate.hold("a", ())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await gate.passage()
        assert (gate.parked, gate.held) == (0, 1)

    on(scenario)


def test_a_provider_holds_one_update(on):
    async def scenario(gate):
        held = gate.hold("a", ("g",))
        with pytest.raises(LimitExceeded, match="provider a already holds an update"):
            gate.hold("a", ())
        assert gate.held_by("a") is held
        assert gate.held_by("b") is None

    on(scenario)


def test_the_next_update_may_begin_no_sooner_than_the_last_had_lasted(on):
    async def scenario(gate):
        held = gate.hold("a", ())
        await asyncio.sleep(2)
        gate.release(held)
        await asyncio.sleep(1.5)
        with pytest.raises(LimitExceeded, match=r"in 0\.500 s"):
            gate.hold("a", ())
        gate.hold("b", ())
        await asyncio.sleep(0.5)
        gate.hold("a", ())

    on(scenario)


def test_a_forgotten_provider_starts_afresh(on):
    async def scenario(gate):
        held = gate.hold("a", ())
        await asyncio.sleep(2)
        gate.release(held)
        gate.forget("a")
        gate.forget("never heard of")
        gate.hold("a", ())

    on(scenario)


def test_an_update_expires_and_its_owner_is_told_before_the_readers_pass(on):
    told = []

    def expired(held):
        told.append((held.provider_id, held.ended.is_set()))

    async def scenario(gate):
        held = gate.hold("a", ())
        loop = asyncio.get_running_loop()
        began = loop.time()
        await gate.passage()
        assert loop.time() - began == pytest.approx(HOLD_SECONDS)
        assert told == [("a", False)]
        assert not gate.is_held(held)
        assert not gate.release(held)

    on(scenario, expired=expired)


def test_readers_pass_though_the_expiry_goes_wrong(on):
    def expired(held):
        raise ValueError("a defect")

    async def scenario(gate):
        failures = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        gate.hold("a", ())
        await gate.passage()
        assert [str(f) for f in failures] == ["a defect"]

    on(scenario, expired=expired)


def test_a_released_update_leaves_no_timer(on, virtual_loop):
    told = []
    began = virtual_loop.time()

    async def scenario(gate):
        gate.release(gate.hold("a", ()))
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        on(scenario, expired=told.append)
    assert (told, virtual_loop.time()) == ([], began)


def test_releasing_an_old_update_leaves_the_new_one_held(on):
    async def scenario(gate):
        old = gate.hold("a", ())
        gate.release(old)
        new = gate.hold("a", ())
        assert not gate.release(old)
        assert gate.is_held(new)
        assert repr(gate) == "<ReadGate held by ['a'], 0 parked>"

    on(scenario)


PROVIDERS = st.sampled_from("abc")


class GateMachine(RuleBasedStateMachine):
    """Any interleaving of holds, releases, readers and time."""

    loop_factory = None

    def __init__(self):
        super().__init__()
        self.loop = self.loop_factory()
        self.expired = []
        self.gate = gate_on(self.loop, self.expired.append)
        self.holds = {}  # provider -> (Hold, opened)
        self.reopens = {}
        self.readers = []  # (task, the holds it must wait for)
        self.cancelled = 0

    def teardown(self):
        for task, _ in self.readers:
            task.cancel()
        self.loop.run_until_complete(settled())
        self.loop.close()

    def end(self, provider):
        held, opened = self.holds.pop(provider)
        now = self.loop.time()
        self.reopens[provider] = now + (now - opened)
        return held

    @rule(provider=PROVIDERS)
    def hold(self, provider):
        async def attempt():
            return self.gate.hold(provider, ())

        now = self.loop.time()
        if provider in self.holds or now < self.reopens.get(provider, now):
            with pytest.raises(LimitExceeded):
                self.loop.run_until_complete(attempt())
        else:
            self.holds[provider] = (self.loop.run_until_complete(attempt()), now)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def release(self, data):
        held = self.end(data.draw(st.sampled_from(sorted(self.holds))))
        assert self.gate.release(held)
        assert not self.gate.release(held)

    @rule()
    def arrive(self):
        awaited = [held for held, _ in self.holds.values()]
        self.readers.append((self.loop.create_task(self.gate.passage()), awaited))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leave(self, data):
        self.loop.run_until_complete(settled())
        task, _ = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        task.cancel()

    @rule(seconds=st.sampled_from((0.25, 1.0, 2.5, HOLD_SECONDS)))
    def pass_time(self, seconds):
        until = self.loop.time() + seconds
        while True:
            due = [opened + HOLD_SECONDS for _, opened in self.holds.values()]
            if not due or min(due) > until:
                break
            self.loop.advance(min(due) - self.loop.time() + 1e-6)
            for provider, (_, opened) in list(self.holds.items()):
                if opened + HOLD_SECONDS <= self.loop.time():
                    assert self.end(provider) in self.expired
                    # It ended a moment before it was looked at.
                    self.reopens[provider] = opened + 2 * HOLD_SECONDS
        self.loop.advance(max(0.0, until - self.loop.time()) + 1e-3)

    @invariant()
    def readers_wait_for_exactly_the_holds_of_their_arrival(self):
        self.loop.run_until_complete(settled())
        live = [held for held, _ in self.holds.values()]
        waiting = 0
        for task, awaited in self.readers:
            must_wait = any(held in live for held in awaited)
            assert task.done() != must_wait
            waiting += must_wait
        assert (self.gate.held, self.gate.parked) == (len(live), waiting)


def test_any_interleaving_keeps_the_promise(loop_type):
    class Machine(GateMachine):
        loop_factory = loop_type

    run_state_machine_as_test(Machine)
