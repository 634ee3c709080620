"""How old a store may be is never told too small, and not too large either."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.client import GPUS, GpuInformer
from device_api_core.client.errors import ConfigurationError
from device_api_core.client.fake import FakeClientset
from device_api_core.client.freshness import Freshness
from device_api_core.client.options import (
    Keepalive,
    Options,
    Tls,
    default_timeout_seconds,
    default_tls,
)
from device_api_core.client.retry import RetryPolicy

pytestmark = pytest.mark.once("it is about the fake server")


class Timeline:
    """A server, a client and a probe. Time is the number of steps; each change of the server is one
    version."""

    def __init__(self) -> None:
        self.now = 0.0
        self.freshness = Freshness(lambda: self.now, lambda: round(self.now * 1e9))
        self.changes: list[float] = []
        self.held = 0
        self.probe = None
        self.answered = None

    def change(self) -> None:
        self.changes.append(self.now)

    def list(self) -> None:
        """Asked for a step ago, answered with what was there then."""
        self.held = max(self.held, self.made_by(self.now - 1))
        self.freshness.broken()
        self.freshness.listed(self.now - 1)

    def watch(self) -> None:
        self.freshness.watching()

    def lose(self) -> None:
        self.freshness.broken()

    def receive(self) -> None:
        self.held = min(self.held + 1, len(self.changes))
        self.freshness.reached(self.held)

    def ask(self) -> None:
        if self.probe is None:
            self.probe, self.answered = self.freshness.probe(), None

    def answer(self) -> None:
        self.answered = len(self.changes)

    def arrive(self) -> None:
        if self.probe is not None and self.answered is not None:
            self.freshness.answered(self.probe, self.answered, self.held)
            self.probe = None

    def made_by(self, time: float) -> int:
        return bisect_right(self.changes, time)


STEPS = ["change", "receive", "ask", "answer", "arrive", "lose", "watch", "list"]


@given(st.lists(st.sampled_from(STEPS), max_size=80))
def test_the_store_holds_every_change_made_before_the_moment_that_is_proven(steps):
    line = Timeline()
    for step in steps:
        line.now += 1
        getattr(line, step)()
        if line.freshness.proven is not None:
            assert line.held >= line.made_by(line.freshness.proven.monotonic)


def proven_after(*acts):
    now = [0.0]
    freshness = Freshness(lambda: now[0], lambda: round(now[0] * 1e9))
    for act in acts:
        now[0] += 1
        act(freshness)
    return freshness


def test_a_list_is_as_old_as_its_question():
    fresh = proven_after(lambda f: None, lambda f: f.listed(1.0))
    assert (fresh.proven.monotonic, fresh.proven.wall, fresh.age_seconds) == (1.0, 10**9, 1.0)


def test_a_probe_counts_from_when_it_was_sent_and_once_the_store_has_what_it_saw():
    fresh = proven_after(lambda f: f.listed(0.5), lambda f: f.watching())
    probe = fresh.probe()
    assert fresh.answered(probe, version=9, reached=8)
    assert fresh.proven.monotonic == 0.5
    fresh.reached(9)
    assert fresh.proven.monotonic == 2.0


def test_a_probe_never_counts_from_when_it_was_answered():
    line = Timeline()
    line.freshness.watching()
    line.now = 1.0
    probe = line.freshness.probe()
    line.now = 9.0
    assert line.freshness.answered(probe, version=3, reached=3)
    assert (line.freshness.proven.monotonic, line.freshness.age_seconds) == (1.0, 8.0)


def test_what_a_probe_saw_is_not_owed_by_the_next_watch():
    fresh = proven_after(lambda f: f.listed(0.5), lambda f: f.watching())
    fresh.answered(fresh.probe(), version=9, reached=8)
    fresh.broken()
    fresh.watching()
    assert fresh.answered(fresh.probe(), version=9, reached=8)


def test_a_watch_that_still_owes_what_a_probe_saw_has_stalled():
    fresh = proven_after(lambda f: f.listed(0.5), lambda f: f.watching())
    assert fresh.answered(fresh.probe(), version=9, reached=8)
    assert not fresh.answered(fresh.probe(), version=9, reached=8)


def test_a_watch_that_is_behind_but_moves_has_not_stalled():
    fresh = proven_after(lambda f: f.listed(0.5), lambda f: f.watching())
    assert fresh.answered(fresh.probe(), version=9, reached=7)
    assert fresh.answered(fresh.probe(), version=12, reached=8)
    assert not fresh.answered(fresh.probe(), version=12, reached=8)
    fresh.reached(9)
    assert fresh.proven.monotonic == 2.0


def test_a_probe_of_a_watch_that_broke_proves_nothing():
    fresh = proven_after(lambda f: f.listed(0.5), lambda f: f.watching())
    probe = fresh.probe()
    fresh.broken()
    assert fresh.probe() is None
    fresh.watching()
    fresh.answered(probe, version=1, reached=9)
    assert fresh.proven.monotonic == 0.5


def test_no_informer_is_that_fresh():
    informer = GpuInformer(FakeClientset().v1alpha1.gpus, probe_seconds=5)
    assert informer.is_stale(5.1)
    with pytest.raises(ConfigurationError, match="more than probe_seconds"):
        informer.is_stale(5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Options(timeout_seconds=0),
        lambda: Options(timeout_seconds=float("inf")),
        lambda: RetryPolicy(attempts=0),
        lambda: RetryPolicy(first_pause_seconds=2),
        lambda: Tls(certificate_file="a"),
        lambda: Tls(ca_file="/nowhere/ca.pem").credentials(),
        lambda: default_timeout_seconds({"NVIDIA_DEVICE_API_TIMEOUT_SECONDS": "soon"}),
        lambda: GpuInformer(FakeClientset().v1alpha1.gpus, probe_seconds=0),
        lambda: GpuInformer(FakeClientset().v1alpha1.gpus, resync_seconds=0),
    ],
)
def test_a_wrong_option_is_refused_at_once(wrong):
    with pytest.raises(ConfigurationError):
        wrong()


def test_options_come_from_the_environment():
    environ = {"NVIDIA_DEVICE_API_TIMEOUT_SECONDS": " 2.5 ", "NVIDIA_DEVICE_API_CA_FILE": "/ca"}
    assert default_timeout_seconds(environ) == 2.5
    assert default_tls(environ) == Tls("/ca")
    assert (default_timeout_seconds({}), default_tls({})) == (10.0, None)


def test_keepalive_and_the_server_name_become_channel_options():
    options = dict(Options(tls=Tls(server_name="n"), keepalive=Keepalive(1, 2)).channel_options())
    assert options["grpc.keepalive_time_ms"] == 1_000
    assert options["grpc.keepalive_timeout_ms"] == 2_000
    assert options["grpc.ssl_target_name_override"] == "n"
    assert "grpc.keepalive_time_ms" not in dict(Options(keepalive=None).channel_options())


def test_a_kind_is_found_by_its_pattern():
    assert GPUS.get("a").method.path.endswith("GpuService/GetGpu")
    assert GPUS.list().method.path.endswith("GpuService/ListGpus")
    assert GPUS.watch(None).method.path.endswith("GpuService/WatchGpus")
