"""The contract: the same calls have the same effects on the real server and on the fakes, through
the client of threads and that of asyncio."""

from __future__ import annotations

import pytest

from device_api_core.client import conditions, is_healthy
from device_api_core.client.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    LimitExceeded,
    NotFound,
)
from device_api_core.resources import READY, Condition, ConditionStatus, GpuSpec, GpuStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


# --- registering


def test_a_gpu_that_is_registered_can_be_read(gpus, providers, name):
    spec = GpuSpec(uuid=name.upper(), index=0, pci_bus_id="0000:1b:00.0", memory_bytes=2**36)
    made = providers.register(name, spec, provider_id="p")
    found = gpus.get(name)
    assert made.created
    assert found.spec == spec
    assert found.metadata.resource_version == made.resource_version
    assert found in gpus.list().items
    assert [c.type for c in found.status.conditions] == [READY]
    assert (found.ready, conditions(found)[READY].reason) == (UNKNOWN, "NoConditions")


def test_a_provider_may_name_itself_when_it_lists(gpus, providers, name):
    providers.register(name, provider_id="p")
    assert name in {gpu.name for gpu in gpus.list(provider_id="p").items}


def test_registering_again_merges_the_spec_and_keeps_the_health(gpus, providers, name):
    providers.register(name, GpuSpec(index=1), provider_id="p")
    providers.update_condition(name, Condition("A", FALSE, "Bad"), provider_id="p")
    before = gpus.get(name)
    same = providers.register(name, GpuSpec(index=1), provider_id="p")
    assert (same.created, same.resource_version) == (False, before.metadata.resource_version)
    merged = providers.register(name, GpuSpec(product_name="H100"), provider_id="q")
    after = gpus.get(name)
    assert merged.resource_version > same.resource_version
    assert (after.spec, after.status) == (GpuSpec(index=1, product_name="H100"), before.status)


def test_an_initial_status_counts_for_a_new_gpu_only(gpus, providers, name):
    good, bad = GpuStatus((Condition("A", TRUE, "Fine"),)), GpuStatus((Condition("A", FALSE),))
    providers.register(name, provider_id="p", initial_status=good)
    assert not providers.register(name, provider_id="p", initial_status=bad).created
    assert is_healthy(gpus.get(name))


def test_a_uuid_belongs_to_one_name(providers, name):
    providers.register(name, GpuSpec(uuid=name), provider_id="p")
    with pytest.raises(AlreadyExists, match=name):
        providers.register(f"{name}-other", GpuSpec(uuid=name.upper()), provider_id="p")
    with pytest.raises(AlreadyExists, match="not GPU-9"):
        providers.register(name, GpuSpec(uuid="GPU-9"), provider_id="p")


# --- reporting


def test_ready_is_computed_and_the_newest_fault_is_its_reason(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", TRUE), provider_id="p")
    assert is_healthy(gpus.get(name))
    version = providers.update_condition(
        name,
        Condition("B", FALSE, "Xid79", "fell off", 1_700_000_000_000_000_123),
        provider_id="q",
        recommended_action="RESTART_BM",
    )
    sick = gpus.get(name)
    assert sick.metadata.resource_version == version
    assert (sick.ready, conditions(sick)[READY].reason) == (FALSE, "Xid79")
    assert sick.status.recommended_action == "RESTART_BM"
    assert conditions(sick)["B"] == Condition(
        "B", FALSE, "Xid79", "fell off", 1_700_000_000_000_000_123, "q"
    )


def test_a_change_that_changes_nothing_raises_no_version(gpus, providers, name):
    providers.register(name, provider_id="p")
    first = providers.update_condition(name, Condition("A", TRUE, "Fine"), provider_id="p")
    listed = gpus.list().resource_version
    assert providers.update_condition(name, Condition("A", TRUE, "Fine"), provider_id="p") == first
    assert gpus.list().resource_version == listed


def test_a_transition_time_moves_with_the_status_only(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", TRUE), provider_id="p")
    first = conditions(gpus.get(name))["A"].last_transition_time
    providers.update_condition(name, Condition("A", TRUE, "Other"), provider_id="p")
    assert conditions(gpus.get(name))["A"].last_transition_time == first
    providers.update_condition(name, Condition("A", FALSE), provider_id="p")
    assert conditions(gpus.get(name))["A"].last_transition_time > first


def test_a_condition_belongs_to_the_provider_that_set_it(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", FALSE), provider_id="p")
    before = gpus.get(name)
    with pytest.raises(Conflict, match="belongs to provider p"):
        providers.update_condition(name, Condition("A", TRUE), provider_id="q")
    with pytest.raises(Conflict, match="belongs to provider p"):
        providers.update_status(name, GpuStatus((Condition("A", TRUE),)), provider_id="q")
    assert gpus.get(name) == before


def test_a_status_replaces_that_of_its_provider_alone(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", TRUE), provider_id="p")
    providers.update_condition(name, Condition("B", TRUE), provider_id="p")
    providers.update_condition(name, Condition("C", TRUE), provider_id="q")
    providers.update_status(name, GpuStatus((Condition("D", TRUE),)), provider_id="p")
    assert set(conditions(gpus.get(name))) == {READY, "C", "D"}


def test_what_was_read_may_be_written_back(gpus, providers, name):
    providers.register(name, provider_id="p")
    version = providers.update_condition(name, Condition("A", FALSE, "Bad"), provider_id="p")
    assert providers.update_status(name, gpus.get(name).status, provider_id="p") == version


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda p: p.register("-"), "name"),
        (lambda p: p.register(""), "name"),
        (lambda p: p.register("a", GpuSpec(index=-1)), "spec.index"),
        (lambda p: p.register("a", provider_id="p" * 200), "provider_id"),
        (lambda p: p.unregister(""), "name"),
        (lambda p: p.update_condition("a", Condition("fan", TRUE)), "condition.type"),
        (
            lambda p: p.update_status("a", GpuStatus((Condition("A", TRUE), Condition("A", TRUE)))),
            "status.conditions[1].type",
        ),
        (lambda p: p.heartbeat(""), "provider_id"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_its_field(providers, call, field):
    with pytest.raises(InvalidArgument) as caught:
        call(providers)
    assert caught.value.field == field


def test_limits_refuse_and_change_nothing(gpus, providers, name):
    providers.register(name, provider_id="p")
    many = GpuStatus(tuple(Condition(f"C{i}", TRUE) for i in range(65)))
    with pytest.raises(LimitExceeded, match="64"):
        providers.update_status(name, many, provider_id="p")
    assert len(gpus.get(name).status.conditions) == 1


def test_what_does_not_exist_is_not_found(gpus, providers, name):
    for call in (
        lambda: gpus.get(name),
        lambda: providers.update_condition(name, Condition("A", TRUE)),
        lambda: providers.update_status(name, GpuStatus()),
    ):
        with pytest.raises(NotFound, match=name):
            call()


# --- going


def test_a_gpu_goes_with_its_last_registrant_unless_a_fault_is_left(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.register(name, provider_id="q")
    providers.update_condition(name, Condition("A", TRUE), provider_id="p")
    providers.update_condition(name, Condition("B", FALSE), provider_id="p")
    assert providers.unregister(name, provider_id="q") is False
    assert providers.unregister(name, provider_id="p") is False
    assert set(conditions(gpus.get(name))) == {READY, "B"}
    assert providers.unregister(name) is True
    assert providers.unregister(name) is False
    with pytest.raises(NotFound):
        gpus.get(name)


def test_the_last_provider_to_leave_removes_the_gpu(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", TRUE), provider_id="p")
    assert providers.unregister(name, provider_id="p") is True
    with pytest.raises(NotFound):
        gpus.get(name)


def test_a_fault_that_is_taken_back_last_removes_the_gpu(gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", FALSE), provider_id="p")
    assert providers.unregister(name, provider_id="p") is False
    version = providers.update_status(name, GpuStatus(), provider_id="p")
    assert gpus.list().resource_version >= version
    with pytest.raises(NotFound):
        gpus.get(name)


def test_an_operator_clears_and_forgets(clients, gpus, providers, name):
    providers.register(name, provider_id="p")
    providers.update_condition(name, Condition("A", FALSE), provider_id="p")
    clients.admin.clear_condition(name, "A")
    cleared = conditions(gpus.get(name))["A"]
    assert (cleared.status, cleared.reason) == (UNKNOWN, "ClearedByOperator")
    assert providers.heartbeat("p", [name]) is False
    providers.update_condition(name, Condition("A", TRUE), provider_id="p")
    assert providers.heartbeat("p", [name]) is True
    with pytest.raises(Conflict):
        clients.admin.clear_condition(name, "A")
    with pytest.raises(NotFound):
        clients.admin.clear_condition(name, "Nothing")
    with pytest.raises(NotFound):
        clients.admin.forget_provider(f"of {name}")
    providers.register(name, provider_id=f"of {name}")
    forgotten = clients.admin.forget_provider(f"of {name}")
    assert (forgotten.gpus, forgotten.conditions) == (1, 0)
    assert clients.admin.forget_gpu(name) is True
    assert clients.admin.forget_gpu(name) is False


def test_a_heartbeat_of_one_that_is_not_known_says_so(providers, name):
    assert providers.heartbeat(f"of {name}") is False
