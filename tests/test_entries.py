"""What the cache stores of one GPU."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from device_api_core import codec, conditions
from device_api_core.entries import Entry, SetCondition, SetStatus, encoded, merge_spec
from device_api_core.resources import READY, Condition, ConditionStatus, GpuSpec

FALSE, TRUE = ConditionStatus.FALSE, ConditionStatus.TRUE

specs = st.builds(
    GpuSpec,
    uuid=st.sampled_from(("", "GPU-1", "gpu-1")),
    index=st.none() | st.integers(0, 2),
    memory_bytes=st.none() | st.integers(0, 2),
    serial=st.sampled_from(("", "s", "t")),
)


def entry_of(*told, spec=None, registrants=("a",)):
    health = conditions.new_health(1)
    for c in told:
        health = conditions.set_condition(health, c, 1)
    return encoded(Entry("g", spec or GpuSpec(), frozenset(registrants), health), None, 7)


def condition(type_="X", status=FALSE, by="a", **more):
    return Condition(type_, status, provider_id=by, **more)


@given(specs, specs)
def test_a_merged_spec_has_every_field_that_was_ever_set(known, new):
    merged = merge_spec(known, new)
    for f in fields(GpuSpec):
        old, given_, got = (getattr(s, f.name) for s in (known, new, merged))
        if f.name == "uuid":
            assert got == (old or given_), "the first spelling stays"
        else:
            assert got == (old if given_ in ("", None) else given_)
    if merged == known:
        assert merged is known


def test_encoding_reuses_the_bytes_of_what_did_not_change():
    before = entry_of(condition("X"), condition("Y"))
    changed = conditions.set_condition(before.health, condition("Y", TRUE), 2)
    after = encoded(replace(before, health=changed), before, 8)
    assert after.parts[1] is before.parts[1]
    assert after.spec_bytes is before.spec_bytes
    fresh = encoded(replace(before, health=changed), None, 8)
    assert (after.item, after.parts) == (fresh.item, fresh.parts)


def test_encoding_does_not_reuse_the_bytes_of_another_spec():
    before = entry_of(spec=GpuSpec("GPU-1"))
    after = encoded(replace(before, spec=GpuSpec("GPU-2")), before, 8)
    assert after.spec_bytes == codec.encode_spec(GpuSpec("GPU-2"))


def test_looking_alike_is_about_what_readers_see():
    plain = entry_of(condition())
    assert plain.looks_like(replace(plain, registrants=frozenset()))
    opinion = conditions.set_condition(plain.health, condition(READY, by="b", reason="Mine"), 1)
    assert not plain.looks_like(replace(plain, health=opinion)), "Ready shows the opinion's reason"
    hidden = conditions.set_action(entry_of(condition(status=TRUE)).health, "a", "RESTART_BM")
    true = entry_of(condition(status=TRUE))
    assert true.looks_like(replace(true, health=hidden))
    shown = conditions.set_action(plain.health, "a", "RESTART_BM")
    assert not plain.looks_like(replace(plain, health=shown))
    assert not plain.looks_like(replace(plain, spec=GpuSpec("GPU-1")))


def test_a_gpu_belongs_to_those_who_registered_or_report_it():
    entry = entry_of(condition(by="b"))
    assert [entry.belongs_to(p) for p in ("a", "b", "c")] == [True, True, False]


def test_a_gpu_is_abandoned_without_registrant_and_condition():
    assert entry_of(registrants=()).abandoned
    assert not entry_of().abandoned
    assert not entry_of(condition(), registrants=()).abandoned


def test_a_set_condition_leaves_the_action_alone_unless_it_names_one():
    health = entry_of(condition()).health
    health = SetCondition("g", condition("Y"), "RESTART_BM").apply(health, "a", 2)
    assert health.recommended_action == "RESTART_BM"
    health = SetCondition("g", condition("Z")).apply(health, "a", 3)
    assert health.recommended_action == "RESTART_BM"
    assert SetCondition("g", condition("Z"), "").apply(health, "a", 4).actions == ()


def test_a_set_status_replaces_the_action():
    health = SetStatus("g", (condition(),), "RESTART_BM").apply(entry_of().health, "a", 2)
    assert health.recommended_action == "RESTART_BM"
    assert SetStatus("g", (condition(),)).apply(health, "a", 3).actions == ()
