"""The rules of health, one by one and all together against a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core import conditions
from device_api_core.actions import action_strength
from device_api_core.conditions import (
    clear,
    forget,
    has_lapsed,
    lapse,
    new_health,
    set_action,
    set_condition,
    set_status,
    withdraw,
)
from device_api_core.errors import Conflict, NotFound
from device_api_core.resources import READY, Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def cond(type_, status, reason="", *, by="a", message="", at=None):
    return Condition(type_, status, reason, message, at, by)


def health_of(*conditions_, now=100):
    health = new_health(now)
    for c in conditions_:
        health = set_condition(health, c, now)
    return health


def found(health, type_, by=None):
    return next(
        c for c in health.conditions if c.type == type_ and (by is None or c.provider_id == by)
    )


# --- transition times


def test_a_time_given_by_the_provider_is_kept():
    assert found(health_of(cond("X", TRUE, at=42)), "X").last_transition_time == 42


def test_without_a_time_the_server_gives_its_own():
    assert found(health_of(cond("X", TRUE)), "X").last_transition_time == 100


@pytest.mark.parametrize(("given_time", "kept"), [(99, 99), (100, 100), (101, 100)])
def test_a_time_in_the_future_becomes_the_servers(given_time, kept):
    assert found(health_of(cond("X", TRUE, at=given_time)), "X").last_transition_time == kept


@pytest.mark.parametrize(("given_time", "kept"), [(49, 200), (50, 50), (51, 51)])
def test_a_time_before_the_previous_one_becomes_the_servers(given_time, kept):
    health = health_of(cond("X", TRUE, at=50))
    changed = set_condition(health, cond("X", FALSE, at=given_time), 200)
    assert found(changed, "X").last_transition_time == kept


def test_the_time_stays_while_the_status_stays():
    health = health_of(cond("X", FALSE, "Old", at=50))
    changed = set_condition(health, cond("X", FALSE, "New", message="m", at=60), 200)
    assert found(changed, "X") == cond("X", FALSE, "New", message="m", at=50)


def test_saying_the_same_again_gives_the_very_same_health():
    health = health_of(cond("X", FALSE, "R", at=50))
    assert set_condition(health, cond("X", FALSE, "R"), 999) is health
    assert set_status(health, "a", [cond("X", FALSE, "R", at=70)], 999) is health


def test_unchanged_conditions_keep_their_identity_through_a_status():
    health = health_of(cond("X", TRUE), cond("Y", TRUE))
    changed = set_status(health, "a", [cond("X", TRUE), cond("Y", FALSE)], 999)
    assert found(changed, "X") is found(health, "X")


# --- owners


def test_another_providers_type_is_refused_naming_the_owner():
    health = health_of(cond("X", TRUE, by="owner"))
    with pytest.raises(Conflict, match="X belongs to provider owner"):
        set_condition(health, cond("X", FALSE, by="other"), 1)
    with pytest.raises(Conflict, match="X belongs to provider owner"):
        set_status(health, "other", [cond("X", FALSE, by="other")], 1)


def test_the_anonymous_owner_is_named_in_words():
    with pytest.raises(Conflict, match="the anonymous provider"):
        set_condition(health_of(cond("X", TRUE, by="")), cond("X", TRUE, by="b"), 1)


@pytest.mark.parametrize(
    "end",
    [
        lambda h: set_status(h, "a", [], 1),
        lambda h: withdraw(h, "a", 1),
        lambda h: forget(h, "a", 1),
    ],
    ids=["dropped", "withdrawn", "forgotten"],
)
def test_ownership_ends_with_the_condition(end):
    health = end(health_of(cond("X", TRUE, by="a")))
    assert found(set_condition(health, cond("X", TRUE, by="b"), 2), "X").provider_id == "b"


def test_a_status_replaces_its_providers_conditions_and_no_others():
    health = health_of(cond("X", TRUE), cond("Y", FALSE), cond("Z", FALSE, by="b"))
    changed = set_status(health, "a", [cond("W", TRUE)], 200)
    assert [c.type for c in changed.conditions] == ["W", "Z"]


def test_withdrawal_leaves_only_the_false():
    health = health_of(
        cond("X", TRUE), cond("Y", UNKNOWN), cond("Z", FALSE), cond("W", TRUE, by="b")
    )
    assert [c.type for c in withdraw(health, "a", 200).conditions] == ["W", "Z"]


def test_forgetting_removes_the_false_too_and_the_action():
    health = set_action(health_of(cond("Z", FALSE)), "a", "RESTART_BM")
    forgotten = forget(health, "a", 200)
    assert (forgotten.conditions, forgotten.actions) == ((), ())


def test_a_withdrawn_providers_action_stays_with_its_false():
    health = set_action(health_of(cond("Z", FALSE)), "a", "RESTART_BM")
    assert withdraw(health, "a", 200).recommended_action == "RESTART_BM"
    health = set_action(health_of(cond("Z", UNKNOWN)), "a", "RESTART_BM")
    assert withdraw(health, "a", 200).actions == ()


# --- Ready


@pytest.mark.parametrize(
    ("statuses", "ready"),
    [
        ([], UNKNOWN),
        ([TRUE], TRUE),
        ([TRUE, UNKNOWN], UNKNOWN),
        ([UNKNOWN, FALSE, TRUE], FALSE),
    ],
)
def test_ready_is_the_worst_of_all(statuses, ready):
    health = health_of(*(cond(f"T{i}", s) for i, s in enumerate(statuses)))
    assert health.ready.status is ready
    assert health.published[0] is health.ready


@pytest.mark.parametrize("status", [FALSE, UNKNOWN])
def test_ready_copies_the_newest_and_among_equals_the_first_by_type(status):
    health = health_of(
        cond("C", status, "Old", at=10),
        cond("B", status, "NewB", at=20, message="b"),
        cond("A", status, "Older", at=5),
        cond("D", status, "NewD", at=20),
    )
    assert (health.ready.reason, health.ready.message) == ("NewB", "b")


def test_a_false_is_copied_before_a_newer_unknown():
    health = health_of(cond("A", FALSE, "Fault", at=1), cond("B", UNKNOWN, "Newer", at=50))
    assert health.ready.reason == "Fault"


def test_readys_time_is_the_servers_and_moves_only_with_its_status():
    health = health_of(cond("A", FALSE, "Fault", at=1), now=100)
    assert health.ready.last_transition_time == 100  # Unknown and False were both at 100
    later = set_condition(health, cond("B", FALSE, "Other", at=150), 200)
    assert (later.ready.reason, later.ready.last_transition_time) == ("Other", 100)
    better = set_status(later, "a", [cond("A", TRUE, at=250)], 300)
    assert (better.ready.status, better.ready.last_transition_time) == (TRUE, 300)


def test_an_opinion_counts_like_a_condition():
    health = health_of(cond("X", TRUE), cond(READY, FALSE, "Doubt"))
    assert (health.ready.status, health.ready.reason) == (FALSE, "Doubt")
    assert [c.type for c in health.published] == [READY, "X"]


def test_providers_have_opinions_of_their_own():
    health = health_of(cond(READY, FALSE, "A", by="a"), cond(READY, UNKNOWN, "B", by="b"))
    assert len(health.conditions) == 2
    assert set_status(health, "a", [], 200).ready.reason == "B"


def test_writing_back_the_ready_that_was_read_adds_no_opinion():
    health = health_of(cond("X", FALSE, "Fault", by="other"))
    echo = replace(health.ready, message="changed", provider_id="a")
    assert set_condition(health, echo, 200) is health
    assert set_status(health, "a", [echo], 200) is health


@pytest.mark.parametrize("field", ["status", "reason"])
def test_a_ready_that_differs_in_status_or_reason_is_an_opinion(field):
    health = health_of(cond("X", FALSE, "Fault", by="other"))
    different = {"status": UNKNOWN} if field == "status" else {"reason": "Mine"}
    opinion = replace(health.ready, provider_id="a", **different)
    assert len(set_condition(health, opinion, 200).conditions) == 2
    assert len(set_status(health, "a", [opinion], 200).conditions) == 2


def test_an_opinion_stays_one_though_it_equals_the_computed_ready():
    health = health_of(cond(READY, FALSE, "Mine"))
    again = set_status(health, "a", [cond(READY, FALSE, "Mine"), cond("X", TRUE)], 200)
    assert found(again, READY).reason == "Mine"
    assert again.ready.status is FALSE


def test_a_status_without_ready_drops_the_opinion():
    health = health_of(cond(READY, FALSE, "Mine"))
    assert set_status(health, "a", [cond("X", TRUE)], 200).ready.status is TRUE


# --- actions


def test_actions_rank_as_documented():
    ranked = [
        {"RESTART_BM"},
        {"REPLACE_VM"},
        {"RESTART_VM"},
        {"COMPONENT_RESET"},
        {"RUN_FIELDDIAG", "RUN_DCGMEUD"},
        {"CONTACT_SUPPORT", "CUSTOM", "kick it"},
        {"", "NONE"},
    ]
    strengths = [{action_strength(a) for a in group} for group in ranked]
    assert strengths == [{6}, {5}, {4}, {3}, {2}, {1}, {0}]


def test_the_strongest_action_of_all_providers_shows():
    health = health_of(cond("X", FALSE), cond("Y", UNKNOWN, by="b"))
    health = set_action(set_action(health, "a", "COMPONENT_RESET"), "b", "RESTART_VM")
    assert health.recommended_action == "RESTART_VM"


def test_of_equal_actions_the_newest_shows():
    health = health_of(cond("X", FALSE), cond("Y", FALSE, by="b"))
    health = set_action(set_action(health, "a", "RUN_FIELDDIAG"), "b", "RUN_DCGMEUD")
    assert health.recommended_action == "RUN_DCGMEUD"
    assert set_action(health, "a", "RUN_FIELDDIAG") is health  # repeating it makes it no newer
    health = set_action(set_action(health, "a", "CUSTOM"), "a", "RUN_FIELDDIAG")
    assert health.recommended_action == "RUN_FIELDDIAG"


@pytest.mark.parametrize(
    ("status", "shown"), [(TRUE, ""), (UNKNOWN, "RESTART_BM"), (FALSE, "RESTART_BM")]
)
def test_an_action_shows_while_its_provider_doubts(status, shown):
    health = set_action(health_of(cond("X", status), cond("Y", FALSE, by="b")), "a", "RESTART_BM")
    assert health.recommended_action == shown


@pytest.mark.parametrize("none", ["", "NONE"])
def test_an_action_is_replaced_by_none(none):
    health = set_action(health_of(cond("X", FALSE)), "a", "RESTART_BM")
    assert set_action(health, "a", none).actions == ()
    assert set_action(new_health(1), "a", none).actions == ()


# --- bad news survives


def test_a_lapse_turns_true_to_unknown_and_leaves_the_rest():
    health = health_of(
        cond("X", TRUE, at=5),
        cond("Y", FALSE, "Fault", at=6, message="text"),
        cond("Z", UNKNOWN, "Why", at=7),
        cond("W", TRUE, by="b", at=8),
        cond(READY, TRUE, "Fine", at=9),
    )
    lapsed = lapse(health, "a", "ProviderLost", "silent", 200)
    expected = cond("X", UNKNOWN, "ProviderLost", message="silent", at=200)
    assert found(lapsed, "X") == expected
    assert found(lapsed, READY) == replace(expected, type=READY)
    for unchanged in ("Y", "Z", "W"):
        assert found(lapsed, unchanged) is found(health, unchanged)
    assert lapse(lapsed, "a", "ProviderFailed", "again", 300) is lapsed


def test_only_the_owners_new_true_clears_a_false():
    health = lapse(health_of(cond("X", FALSE, "Fault")), "a", "ProviderFailed", "", 200)
    assert health.ready.status is FALSE
    assert set_condition(health, cond("X", TRUE), 300).ready.status is TRUE


@pytest.mark.parametrize(
    ("reason", "lapsed"),
    [
        ("ProviderFailed", True),
        ("ProviderLost", True),
        ("ServerRestarted", True),
        ("UpdateAborted", True),
        ("ClearedByOperator", True),
        ("FanSlow", False),
    ],
)
def test_what_the_server_no_longer_believes_must_be_sent_again(reason, lapsed):
    assert has_lapsed(health_of(cond("X", UNKNOWN, reason)), "a") is lapsed
    assert not has_lapsed(health_of(cond("X", UNKNOWN, reason, by="b")), "a")
    assert not has_lapsed(health_of(cond("X", FALSE, reason)), "a")


# --- an operator clears


def test_a_cleared_fault_is_unknown_until_its_owner_reports():
    health = health_of(cond("X", FALSE, "Fault", at=5), cond("Y", TRUE, by="b"))
    cleared, owner = clear(health, "X", "cleared", 200)
    assert owner == "a"
    assert found(cleared, "X") == cond("X", UNKNOWN, "ClearedByOperator", message="cleared", at=200)
    assert found(cleared, "Y") is found(health, "Y")
    assert has_lapsed(cleared, "a")


def test_a_cleared_unknown_keeps_its_time():
    cleared, _ = clear(health_of(cond("X", UNKNOWN, "Why", at=5)), "X", "m", 200)
    assert found(cleared, "X").last_transition_time == 5


def test_a_true_and_an_absent_condition_cannot_be_cleared():
    health = health_of(cond("X", TRUE))
    with pytest.raises(Conflict, match="nothing to clear"):
        clear(health, "X", "", 1)
    with pytest.raises(NotFound, match="no provider has set condition Y"):
        clear(health, "Y", "", 1)


# --- all together, against a model

PROVIDERS = ("", "a", "b")
TYPES = (READY, "A", "B", "x.y/C")

statuses = st.sampled_from(ConditionStatus)
texts = st.sampled_from(("", "R1", "R2"))
times = st.none() | st.integers(0, 400)


@st.composite
def some_condition(draw, by):
    return Condition(
        draw(st.sampled_from(TYPES)), draw(statuses), draw(texts), draw(texts), draw(times), by
    )


@st.composite
def operation(draw):
    by = draw(st.sampled_from(PROVIDERS))
    kind = draw(
        st.sampled_from(
            ("set", "set", "set", "status", "status", "action", "lapse", "withdraw", "forget")
        )
    )
    argument = {
        "set": some_condition(by),
        "status": st.lists(some_condition(by), max_size=4, unique_by=lambda c: c.type),
        "action": st.sampled_from(("", "NONE", "RESTART_BM", "RUN_FIELDDIAG", "RUN_DCGMEUD")),
    }.get(kind, st.none())
    return kind, by, draw(argument), draw(st.integers(0, 400))


class Model:
    """The promise of the API, written down as plainly as possible."""

    def __init__(self, now):
        self.said = {}  # (type, provider) -> condition
        self.actions = {}  # provider -> action, oldest first
        self.ready = (UNKNOWN, "NoConditions", now)

    def owner(self, type_):
        return next((p for t, p in self.said if t == type_ and t != READY), None)

    def do(self, kind, by, argument, now):
        getattr(self, kind)(by, argument, now)
        status, reason, since = self.ready
        worst, new_reason = self.worst()
        self.ready = (worst, new_reason, since if worst is status else now)

    def worst(self):
        for status in (FALSE, UNKNOWN):
            bad = sorted(
                (-c.last_transition_time, key, c.reason)
                for key, c in self.said.items()
                if c.status is status
            )
            if bad:
                return status, bad[0][2]
        return (TRUE, "AllConditionsTrue") if self.said else (UNKNOWN, "NoConditions")

    def check(self, c):
        if c.type != READY and self.owner(c.type) not in (None, c.provider_id):
            raise Conflict("another's")

    def echoes(self, c):
        mine = (c.type, c.provider_id) in self.said
        return c.type == READY and not mine and (c.status, c.reason) == self.ready[:2]

    def enter(self, c, now):
        old = self.said.get((c.type, c.provider_id))
        if old is not None and old.status is c.status:
            time = old.last_transition_time
        elif (
            c.last_transition_time is None
            or c.last_transition_time > now
            or old is not None
            and c.last_transition_time < old.last_transition_time
        ):
            time = now
        else:
            time = c.last_transition_time
        return replace(c, last_transition_time=time)

    def set(self, by, c, now):
        self.check(c)
        if not self.echoes(c):
            self.said[c.type, by] = self.enter(c, now)

    def status(self, by, cs, now):
        for c in cs:
            self.check(c)
        entered = {(c.type, by): self.enter(c, now) for c in cs if not self.echoes(c)}
        self.said = {k: c for k, c in self.said.items() if k[1] != by} | entered

    def action(self, by, action, now):
        if action in ("", "NONE"):
            self.actions.pop(by, None)
        elif self.actions.get(by) != action:
            self.actions.pop(by, None)
            self.actions[by] = action

    def lapse(self, by, _, now):
        for key, c in self.said.items():
            if key[1] == by and c.status is TRUE:
                self.said[key] = Condition(c.type, UNKNOWN, "ProviderLost", "gone", now, by)

    def withdraw(self, by, _, now):
        kept = {k: c for k, c in self.said.items() if k[1] != by or c.status is FALSE}
        self.said = kept
        if all(k[1] != by for k in kept):
            self.actions.pop(by, None)

    def forget(self, by, _, now):
        self.said = {k: c for k, c in self.said.items() if k[1] != by}
        self.actions.pop(by, None)

    @property
    def shown_action(self):
        doubting = {p for (_, p), c in self.said.items() if c.status is not TRUE}
        shown = [
            (action_strength(a), i, a)
            for i, (p, a) in enumerate(self.actions.items())
            if p in doubting
        ]
        return max(shown)[2] if shown else ""


def step(health, kind, by, argument, now):
    match kind:
        case "set":
            return set_condition(health, argument, now)
        case "status":
            return set_status(health, by, argument, now)
        case "action":
            return set_action(health, by, argument)
        case "lapse":
            return lapse(health, by, "ProviderLost", "gone", now)
        case _:
            return getattr(conditions, kind)(health, by, now)


@given(st.lists(operation(), max_size=25))
def test_any_history_leaves_what_the_model_says(history):
    health, model = new_health(0), Model(0)
    for kind, by, argument, now in history:
        before = health
        try:
            model.do(kind, by, argument, now)
        except Conflict:
            with pytest.raises(Conflict):
                step(health, kind, by, argument, now)
            continue
        health = step(health, kind, by, argument, now)
        assert {(c.type, c.provider_id): c for c in health.conditions} == model.said
        assert list(health.conditions) == sorted(
            health.conditions, key=lambda c: (c.type, c.provider_id)
        )
        ready = health.ready
        assert (ready.status, ready.reason, ready.last_transition_time) == model.ready
        assert (ready.type, ready.provider_id) == (READY, "")
        assert health.recommended_action == model.shown_action
        if health == before:
            assert health is before, "a change that changes nothing gives the same object"


@given(st.lists(operation(), max_size=12), st.sampled_from(PROVIDERS))
def test_no_lapse_ever_makes_anything_better_or_loses_a_false(history, by):
    health = new_health(0)
    for kind, who, argument, now in history:
        try:
            health = step(health, kind, who, argument, now)
        except Conflict:
            continue
    lapsed = lapse(health, by, "ProviderFailed", "gone", 500)
    rank = {TRUE: 0, UNKNOWN: 1, FALSE: 2}
    assert rank[lapsed.ready.status] >= rank[health.ready.status]
    assert {c for c in health.conditions if c.status is FALSE} <= set(lapsed.conditions)
    assert all(c.status is not TRUE for c in lapsed.of(by))
