"""No history without evidence ends a fault, with time that runs as it likes."""

from __future__ import annotations

import pytest
from device_api_fake_nvml import RecoveryAction
from device_api_nvml.healing import Terms, Trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TERMS = Terms(hold_seconds=60.0, relapse_seconds=3600.0)

STEP = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([None, 0, 0, 0, 1])),
    st.tuples(st.just("fail"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 20.0, 61.0])),
    st.tuples(st.just("strike"), st.none()),
    st.tuples(st.just("reset"), st.none()),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=40))
def test_evidence_is_a_row_of_good_looks_and_a_reason(steps):
    now, trial = 0.0, Trial().struck(0.0, TERMS)
    row: list[tuple[float, int | None]] = []  # good looks since the last thing that breaks a row
    was_reset = False
    for what, value in steps:
        if what == "wait":
            now += value
        elif what == "pass":
            trial = trial.passed(now, value)
            row = [*row, (now, value)] if value in (None, 0) else []
        elif what == "fail":
            trial, row = trial.failed(), []
        elif what == "strike":
            trial, row, was_reset = trial.struck(now, TERMS), [], False
        else:
            trial, row, was_reset = trial.was_reset("a reset"), [], True
        telling = next((i for i, (_, r) in enumerate(reversed(row)) if r is None), len(row))
        told = row[len(row) - telling :]
        held = len(row) >= 2 and now - row[0][0] >= 60
        expected = (held and was_reset) or (len(row) >= 2 and bool(told) and now - told[0][0] >= 60)
        assert bool(trial.evidence(now)) == expected
        assert bool(trial.evidence(now, level=True)) == (held or expected)


@settings(deadline=None)
@given(st.lists(st.floats(0, 5000), max_size=12))
def test_a_hold_grows_with_relapses_and_is_bounded(pauses):
    now, trial, heals = 0.0, Trial(), []
    for pause in pauses:
        now += pause
        trial = trial.struck(now, TERMS)
        recent = [t for t in heals if now - t < 3600]
        assert trial.hold == min(60 * 2 ** len(recent), 3600)
        trial = trial.ended(now)
        heals.append(now)


_QUERIES = ("nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetFieldValues")
HAPPENING = st.one_of(
    st.tuples(st.just("benign"), st.sampled_from((13, 31, 43, 45, 63, 94, 154, 162))),
    st.tuples(st.just("fail"), st.tuples(st.sampled_from(_QUERIES), st.sampled_from((3, 13, 999)))),
    st.tuples(st.just("mend"), st.none()),
    st.tuples(st.just("reload"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("time"), st.sampled_from((30, 61, 5000))),
)


class Story:
    """A GPU with a fault, and what happens to it."""

    def __init__(self, bench, model):
        self.bench = bench
        bench.call_seconds = 5.0  # nothing hangs here; a busy machine must not look like it
        self.node = bench.node(f"node{len(bench.nodes)}", gpus=1, model=model)
        self.gpu = self.node.gpu(0).uuid.lower()
        self.running = self._started(None)
        self.running.sink.wait(lambda: self.running.sink.is_synced)
        if model != "t4":  # the driver wants a reset, and nobody makes it
            self.node.health.ask_for(0, RecoveryAction.GPU_RESET)
        self.node.inject_xid(0, 48)
        self.running.sink.wait_for(self.gpu, "False")
        self.running.sink.polls(1)

    def _started(self, sink):
        return self.bench.start(self.node, sink, poll_seconds=0.02)

    def benign(self, code):
        self.node.inject_xid(0, code)

    def fail(self, how):
        self.node.calls.fail(*how, times=3)

    def mend(self, _):
        self.node.calls.clear()

    def reload(self, _):
        self.node.reload_driver()

    def restart(self, _):
        self.node.calls.clear()
        self.running.stop()
        self.running = self._started(self.running.sink.restarted())

    def time(self, seconds):
        self.bench.clock.add(seconds)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("model", ["t4", "h100"])
@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(HAPPENING, max_size=8))
def test_no_time_and_no_query_ends_a_fault_without_evidence(bench, model, steps):
    story = Story(bench, model)
    try:
        for what, value in [*steps, ("mend", None), ("time", 5000)]:
            getattr(story, what)(value)
            story.running.sink.rest()
        story.running.sink.rest(0.3)
        said = [s.status for s in story.running.sink.said]
        assert "True" not in said[said.index("False") :]
    finally:
        bench.close()
