"""Random histories of a node, through the real pynvml: no False becomes True without evidence."""

from __future__ import annotations

import pytest
from device_api_fake_nvml import RecoveryAction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GPUS = 2
BENIGN = (13, 31, 43, 45, 63, 94, 154, 162)
QUERIES = (None, "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetHandleByIndex")

_gpu = st.integers(0, GPUS - 1)
STEPS = st.one_of(
    st.tuples(st.just("benign"), _gpu, st.sampled_from(BENIGN)),
    st.tuples(st.just("fatal"), _gpu, st.sampled_from((48, 79, 119, 999))),
    st.tuples(st.just("fail"), st.sampled_from(QUERIES), st.sampled_from((999, 15, 16, 3, 2))),
    st.tuples(st.just("mend"), st.none(), st.none()),
    st.tuples(st.just("hang"), _gpu, st.none()),
    st.tuples(st.just("remove"), _gpu, st.none()),
    st.tuples(st.just("add"), _gpu, st.none()),
    st.tuples(st.just("reload"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
    st.tuples(st.just("advise"), _gpu, st.sampled_from(RecoveryAction)),
    st.tuples(st.just("wait"), st.sampled_from((2, 15, 999)), st.none()),
)


class History:
    """A node and the provider on it, driven step by step."""

    def __init__(self, bench, name):
        self.bench = bench
        self.node = bench.node(name, gpus=GPUS)
        self.running = self._started(None)
        self.removed = set()

    def _started(self, sink):
        return self.bench.start(
            self.node, sink, poll_seconds=0.02, call_seconds=0.1, retry_seconds=0.05
        )

    def take(self, what, a, b):
        getattr(self, what)(a, b)
        self.running.sink.rest()
        assert self.running.alive

    def benign(self, gpu, code):
        if gpu not in self.removed:
            self.node.inject_xid(gpu, code)

    fatal = benign

    def fail(self, function, error):
        self.node.calls.fail(function, error, times=3)

    def mend(self, *_):
        self.node.calls.clear()

    def hang(self, gpu, _):
        if gpu not in self.removed:
            self.node.calls.hang(None, gpu=gpu, seconds=0.2)

    def remove(self, gpu, _):
        if gpu not in self.removed:
            self.removed.add(gpu)
            self.node.remove(gpu)

    def add(self, gpu, _):
        if gpu in self.removed:
            self.removed.discard(gpu)
            self.node.add(gpu)

    def reload(self, *_):
        self.node.reload_driver()

    def restart(self, *_):
        self.node.calls.clear()
        self.running.stop()
        self.running = self._started(self.running.sink.restarted())

    def advise(self, gpu, action):
        if gpu not in self.removed:
            self.node.health.ask_for(gpu, action)

    def wait(self, error, _):
        self.node.calls.fail("nvmlEventSetWait", error, times=1)


@pytest.mark.timeout(120)
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=10))
def test_no_false_becomes_anything_else_by_itself(bench, steps):
    history = History(bench, f"node{len(bench.nodes)}")
    try:
        history.running.sink.wait(lambda: history.running.sink.is_synced)
        for step in steps:
            history.take(*step)
        history.node.calls.clear()
        sink = history.running.sink
        faulty = {said.gpu for said in sink.said if said.status == "False"}
        for gpu in history.node.gpus():
            name = gpu.uuid.lower()
            sink.wait(lambda n=name: sink.is_(n, "True") or sink.is_(n, "False"))
            assert name not in faulty or sink.is_(name, "False")
    finally:
        bench.close()
    false = set()
    for said in sink.said:
        assert said.gpu not in false or said.status == "False", said
        if said.status == "False":
            false.add(said.gpu)
