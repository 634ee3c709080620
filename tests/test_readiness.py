"""Reads are answered when the answer is the truth, and not before."""

from __future__ import annotations

import pytest

from device_api_core.errors import Unavailable
from device_api_core.readiness import GRACE_SECONDS, Readiness


class World:
    def __init__(self, plugins=(), expected=()):
        self.now = 100.0
        self.gpus = 0
        self.told = []
        self.readiness = Readiness(
            plugins,
            expected,
            known_gpus=lambda: self.gpus,
            clock=lambda: self.now,
            changed=self.told.append,
        )

    def answers(self):
        try:
            self.readiness.require()
        except Unavailable:
            return False
        return True


def test_with_nothing_run_and_nothing_expected_it_is_ready_at_once():
    world = World()
    assert world.readiness.evaluate()
    assert world.answers()
    assert world.told == [True]


def test_each_provider_must_sync_once():
    world = World(["nvml"], ["remote"])
    with pytest.raises(Unavailable, match="waiting for providers nvml, remote to report once"):
        world.readiness.require()
    world.readiness.synced("nvml")
    with pytest.raises(Unavailable, match="waiting for provider remote to report once"):
        world.readiness.require()
    world.readiness.synced("remote")
    world.readiness.synced("remote")
    assert world.answers()
    assert world.told == [True]
    assert world.readiness.waiting_for == ""


def test_a_report_is_enough_of_a_remote_provider_and_not_of_a_plugin():
    world = World(["nvml"], ["remote"])
    world.readiness.reported("remote")
    world.readiness.reported("nvml")
    assert not world.answers()
    assert world.readiness.waiting_for == "waiting for provider nvml to report once"


def test_somebody_elses_report_is_not_enough():
    world = World(expected=["remote"])
    world.readiness.reported("other")
    assert not world.answers()


@pytest.mark.parametrize(("seconds", "answers"), [(GRACE_SECONDS - 0.01, False), (30.0, True)])
def test_known_gpus_are_served_after_the_grace(seconds, answers):
    world = World(["nvml"])
    world.gpus = 1
    world.now += seconds
    assert world.answers() is answers


def test_without_a_gpu_and_with_a_provider_missing_reads_stay_unanswered():
    world = World(["nvml"])
    world.now += 10_000
    assert not world.answers()


def test_when_the_last_known_gpu_goes_there_is_nothing_true_to_say_again():
    world = World(["nvml"])
    world.now += 60
    world.gpus = 1
    assert world.answers()
    world.gpus = 0
    assert not world.answers()
    assert not world.readiness.ready
    world.gpus = 1
    assert world.answers()
    assert world.told == [True, False, True]


def test_once_all_have_synced_an_empty_node_is_the_truth():
    world = World(["nvml"])
    world.readiness.synced("nvml")
    assert world.answers()


def test_shutting_down_is_not_ready_but_still_answers():
    world = World()
    world.readiness.evaluate()
    world.readiness.stop()
    world.readiness.stop()
    assert not world.readiness.ready
    assert not world.readiness.evaluate()
    assert world.answers()
    assert world.told == [True, False]
    assert world.readiness.waiting_for == "shutting down"


def test_a_server_that_stops_before_it_was_ready_never_becomes_it():
    world = World(["nvml"])
    world.readiness.stop()
    world.readiness.synced("nvml")
    with pytest.raises(Unavailable, match="not ready: shutting down"):
        world.readiness.require()
    assert repr(world.readiness) == "<Readiness ready=False missing=[]>"


def test_what_is_known_from_before_a_restart_is_served_at_once_but_is_not_ready():
    world = World(["nvml"])
    world.gpus = 1
    world.readiness.remembers()
    assert world.answers()
    assert not world.readiness.evaluate()
    assert "waiting for provider nvml" in world.readiness.waiting_for
    world.gpus = 0
    assert not world.answers()
    world.gpus = 1
    world.now += GRACE_SECONDS
    assert world.readiness.evaluate()
