"""GPUs as a server shows them, made up for rules."""

from __future__ import annotations

from hypothesis import strategies as st

from device_api_core.resources import (
    READY,
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def gpu(
    name: str,
    ready: ConditionStatus = TRUE,
    reason: str = "",
    action: str = "",
    *,
    message: str = "",
    index: int | None = None,
    version: int = 1,
) -> Gpu:
    status = GpuStatus((Condition(READY, ready, reason, message),), action)
    return Gpu(ObjectMeta(name, version), GpuSpec(index=index), status)


names = st.from_regex(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,9}[A-Za-z0-9])?", fullmatch=True)
# Providers write what they like: line breaks, control sequences, lone surrogates.
texts = st.text(max_size=12) | st.text(min_size=1, max_size=6).map(lambda t: (t * 1_024)[:1_024])
actions = st.sampled_from(["", "COMPONENT_RESET", "RESTART_BM", "CONTACT_SUPPORT"]) | texts


@st.composite
def fleets(draw: st.DrawFn, most: int = 8) -> list[Gpu]:
    """The GPUs of a node, by name."""
    found = draw(st.lists(names, max_size=most, unique=True).map(sorted))
    return [
        gpu(
            name,
            draw(st.sampled_from([TRUE, FALSE, UNKNOWN])),
            draw(texts),
            draw(actions),
            message=draw(texts),
            index=draw(st.none() | st.integers(0, 2**31)),
            version=draw(st.integers(1, 2**60)),
        )
        for name in found
    ]


stale_texts = st.just("") | texts.filter(bool)
