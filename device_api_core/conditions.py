"""Pure rules of health: who may write what, transition times, Ready, the strongest action.

Nothing here waits, logs or keeps state: every function takes a :class:`Health` and returns a new
one (or the same object, if nothing changed). Times are nanoseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from device_api_core.actions import action_strength
from device_api_core.errors import Conflict, NotFound
from device_api_core.resources import READY, Condition, ConditionStatus

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

CLEARED = "ClearedByOperator"
LAPSED_REASONS = frozenset(
    {"ProviderFailed", "ProviderLost", "ServerRestarted", "UpdateAborted", CLEARED}
)
"""Reasons of an Unknown that the server put in place of what the owner had said. The owner must
send again."""


@dataclass(frozen=True, slots=True)
class Action:
    """What one provider recommends for one GPU."""

    provider_id: str
    action: str


@dataclass(frozen=True, slots=True)
class Health:
    """Everything said about one GPU's health.

    ``conditions`` are sorted by type and owner. A condition of type Ready in it is its owner's
    *opinion*; every other type occurs once. ``actions`` are in the order in which they were given.
    ``ready`` is computed from all conditions. ``published`` is what readers see: ``ready`` first,
    then every condition but the opinions.
    """

    conditions: tuple[Condition, ...]
    actions: tuple[Action, ...]
    ready: Condition
    published: tuple[Condition, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Kept, for a write looks at it several times.
        published = (self.ready, *[c for c in self.conditions if c.type != READY])
        object.__setattr__(self, "published", published)

    @property
    def recommended_action(self) -> str:
        """The strongest action of the providers that have a condition which is not True."""
        if not self.actions:
            return ""
        doubting = {c.provider_id for c in self.conditions if c.status is not _TRUE}
        shown = [a for a in self.actions if a.provider_id in doubting and action_strength(a.action)]
        if not shown:
            return ""
        # Of equals the first is taken: look at the newest first.
        return max(reversed(shown), key=lambda a: action_strength(a.action)).action

    def of(self, provider_id: str) -> tuple[Condition, ...]:
        """The conditions and the opinion of one provider."""
        return tuple(c for c in self.conditions if c.provider_id == provider_id)


def new_health(now: int) -> Health:
    """The health of a GPU of which nobody has said anything: Ready is Unknown."""
    return Health((), (), _ready((), None, now))


def assembled(
    conditions: Iterable[Condition],
    actions: tuple[Action, ...],
    ready: Condition | None,
    now: int,
) -> Health:
    """A health from its parts. ``ready`` is the Ready that was computed last: its time stays if
    its status does."""
    ordered = tuple(sorted(conditions, key=_key))
    return Health(ordered, actions, _ready(ordered, ready, now))


def set_condition(health: Health, new: Condition, now: int) -> Health:
    """Set one condition of ``new.provider_id``. Raises ``Conflict`` if another provider owns the
    type."""
    if new.type == READY and _echoes_ready(health, new):
        return health
    previous = _find(health, new)
    entered = _enter(previous, new, now)
    if entered is previous:
        return health
    if previous is None:
        return _with_conditions(health, [*health.conditions, entered], now)
    # Type and owner stay, so that the order does too.
    ordered = tuple([entered if c is previous else c for c in health.conditions])
    return Health(ordered, health.actions, _ready(ordered, health.ready, now))


def set_status(
    health: Health, provider_id: str, conditions: Iterable[Condition], now: int
) -> Health:
    """Replace all conditions of one provider, its opinion of Ready included. Raises ``Conflict``
    if one of the types belongs to another provider."""
    others = [c for c in health.conditions if c.provider_id != provider_id]
    entered = [
        _enter(_find(health, new), new, now)
        for new in conditions
        if not (new.type == READY and _echoes_ready(health, new))
    ]
    return _with_conditions(health, [*others, *entered], now)


def set_action(health: Health, provider_id: str, action: str) -> Health:
    """Replace what one provider recommends; none of strength 0 is kept."""
    current = next((a for a in health.actions if a.provider_id == provider_id), None)
    if (current.action if current else "") == (action if action_strength(action) else ""):
        return health
    kept = tuple(a for a in health.actions if a is not current)
    if action_strength(action):
        kept = (*kept, Action(provider_id, action))
    return replace(health, actions=kept)


def lapse(health: Health, provider_id: str, reason: str, message: str, now: int) -> Health:
    """Bad news survives, good news is earned: the provider's True becomes Unknown, the rest
    stays."""

    def unbelieved(c: Condition) -> Condition:
        if c.provider_id != provider_id or c.status is not _TRUE:
            return c
        return Condition(c.type, _UNKNOWN, reason, message, now, provider_id)

    return _map(health, unbelieved, now)


def clear(health: Health, type_: str, message: str, now: int) -> tuple[Health, str]:
    """An operator's act: the condition becomes Unknown until its owner reports again. Returns the
    new health and the owner. Raises ``NotFound`` for an absent type, ``Conflict`` if it is True."""
    found = next((c for c in health.conditions if c.type == type_ and c.status is not _TRUE), None)
    if found is None:
        if type_ == READY:
            raise Conflict("Ready is computed: clear the condition whose reason it repeats")
        if any(c.type == type_ for c in health.conditions):
            raise Conflict(f"condition {type_} is True: there is nothing to clear")
        raise NotFound(f"no provider has set condition {type_}")

    def cleared(c: Condition) -> Condition:
        if c is not found:
            return c
        time = now if c.status is _FALSE else c.last_transition_time
        return Condition(c.type, _UNKNOWN, CLEARED, message, time, c.provider_id)

    return _map(health, cleared, now), found.provider_id


def withdraw(health: Health, provider_id: str, now: int) -> Health:
    """The provider stops reporting: its True and Unknown conditions go, a False one stays."""
    kept = [c for c in health.conditions if c.provider_id != provider_id or c.status is _FALSE]
    reduced = _with_conditions(health, kept, now)
    if any(c.provider_id == provider_id for c in kept):
        return reduced
    return _without_action(reduced, provider_id)


def forget(health: Health, provider_id: str, now: int) -> Health:
    """An operator's act: everything the provider said goes, False included."""
    kept = [c for c in health.conditions if c.provider_id != provider_id]
    return _without_action(_with_conditions(health, kept, now), provider_id)


def has_lapsed(health: Health, provider_id: str) -> bool:
    """Whether the provider must send again because the server stopped believing it."""
    return any(
        c.provider_id == provider_id and c.status is _UNKNOWN and c.reason in LAPSED_REASONS
        for c in health.conditions
    )


def _find(health: Health, new: Condition) -> Condition | None:
    """The condition that ``new`` would replace; opinions of Ready are one per provider."""
    for c in health.conditions:
        if c.type != new.type:
            continue
        if c.provider_id == new.provider_id:
            return c
        if c.type != READY:
            owner = c.provider_id or "the anonymous provider"
            raise Conflict(f"condition {c.type} belongs to provider {owner}")
    return None


def _echoes_ready(health: Health, new: Condition) -> bool:
    """Whether a client merely wrote back the computed Ready that it had read."""
    if any(c.type == READY and c.provider_id == new.provider_id for c in health.conditions):
        return False
    return new.status is health.ready.status and new.reason == health.ready.reason


def _enter(previous: Condition | None, new: Condition, now: int) -> Condition:
    """``new`` with the transition time that the rules give it; ``previous`` itself if equal."""
    time = new.last_transition_time
    if previous is not None and previous.status is new.status:
        time = previous.last_transition_time
    elif time is None or time > now or (previous is not None and time < _time(previous)):
        time = now
    if previous is not None and time == previous.last_transition_time:
        same = new.status is previous.status and new.reason == previous.reason
        if same and new.message == previous.message:
            return previous
    return Condition(new.type, new.status, new.reason, new.message, time, new.provider_id)


def _map(health: Health, change: Callable[[Condition], Condition], now: int) -> Health:
    changed = [change(c) for c in health.conditions]
    if all(a is b for a, b in zip(changed, health.conditions, strict=True)):
        return health
    return _with_conditions(health, changed, now)


def _with_conditions(health: Health, conditions: list[Condition], now: int) -> Health:
    ordered = tuple(sorted(conditions, key=_key))
    if ordered == health.conditions:
        return health
    return Health(ordered, health.actions, _ready(ordered, health.ready, now))


def _without_action(health: Health, provider_id: str) -> Health:
    kept = tuple(a for a in health.actions if a.provider_id != provider_id)
    return health if kept == health.actions else replace(health, actions=kept)


def _ready(conditions: tuple[Condition, ...], previous: Condition | None, now: int) -> Condition:
    worst, reason, message = _worst(conditions)
    unchanged = previous is not None and previous.status is worst
    if previous is not None and unchanged:
        if previous.reason == reason and previous.message == message:
            return previous
        return Condition(READY, worst, reason, message, previous.last_transition_time)
    return Condition(READY, worst, reason, message, now)


def _worst(conditions: tuple[Condition, ...]) -> tuple[ConditionStatus, str, str]:
    bad = [c for c in conditions if c.status is not _TRUE]
    for status in (_FALSE, _UNKNOWN) if bad else ():
        worst = [c for c in bad if c.status is status]
        if worst:
            # Newest first; among equals the first by type and owner, which is how they are sorted.
            shown = max(worst, key=_time)
            return status, shown.reason, shown.message
    if not conditions:
        return _UNKNOWN, "NoConditions", "no provider has reported the health of this GPU yet"
    return _TRUE, "AllConditionsTrue", ""


def _time(condition: Condition) -> int:
    return condition.last_transition_time or 0


def _key(condition: Condition) -> tuple[str, str]:
    return condition.type, condition.provider_id
