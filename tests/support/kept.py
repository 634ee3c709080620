"""GPUs as a server may have to keep them, for hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from device_api_core.conditions import Action, assembled
from device_api_core.entries import Entry, encoded
from device_api_core.resources import READY, Condition, ConditionStatus, GpuSpec
from device_api_core.validation import MAX_TIME, MIN_TIME

NOW = 1_700_000_000_000_000_000
PROVIDERS = ("", "alpha", "beta")
TYPES = ("FanHealthy", "example.com/PumpHealthy", "XidHealthy")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
times = st.sampled_from((MIN_TIME, -1, 0, NOW, MAX_TIME)) | st.integers(0, NOW)
specs = st.builds(
    GpuSpec,
    index=st.none() | st.integers(0, 9),
    product_name=st.sampled_from(("", "H100")),
    memory_bytes=st.none() | st.just(2**63),
)


@st.composite
def healths(draw):
    """Any health: every type once, opinions of Ready beside them."""
    owners = draw(st.dictionaries(st.sampled_from(TYPES), st.sampled_from(PROVIDERS)))
    opinions = draw(st.sets(st.sampled_from(PROVIDERS)))
    said = [*owners.items(), *((READY, provider) for provider in opinions)]
    conditions = [
        Condition(
            type_,
            draw(st.sampled_from(ConditionStatus)),
            draw(texts),
            draw(texts),
            draw(times),
            provider,
        )
        for type_, provider in said
    ]
    advisers = draw(st.lists(st.sampled_from(PROVIDERS), unique=True))
    actions = tuple(Action(p, draw(st.sampled_from(("RESTART_BM", "call")))) for p in advisers)
    return assembled(conditions, actions, None, draw(times))


@st.composite
def entries(draw, name):
    """Any GPU of that name."""
    spec = replace(draw(specs), uuid=draw(st.sampled_from(("", f"GPU-{name}"))))
    registrants = frozenset(draw(st.sets(st.sampled_from(PROVIDERS))))
    return encoded(Entry(name, spec, registrants, draw(healths())), None, 1)
