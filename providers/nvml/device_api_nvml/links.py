"""NVLinkHealthy: links that went down, errors, recoveries that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from device_api_core.actions import COMPONENT_RESET, CONTACT_SUPPORT
from device_api_nvml import gauges
from device_api_nvml.gauges import supported
from device_api_nvml.health import Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions
from device_api_nvml.signals import Area, Finding, Suspicion, Warned

DOWN = Fault("NvlinkDown", "NVLinks went down.", COMPONENT_RESET, event=False)
ERRORS = Fault("NvlinkErrors", "NVLinks have too many errors.", CONTACT_SUPPORT, event=False)
UNRECOVERED = Fault("NvlinkRecoveryFailed", "NVLinks could not be recovered.", COMPONENT_RESET)

_DOWN_TEXT = re.compile(r"NVLinks that were up are down: ([\d, ]+)")


@dataclass(frozen=True, slots=True)
class Links:
    """By number of the link: whether it is up, its errors, and the recoveries that failed."""

    up: Mapping[int, bool]
    errors: Mapping[int, int] = field(default_factory=dict)
    unrecovered: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of earlier readings: links that were up, and the counters at a time."""

    were_up: frozenset[int] = frozenset()
    errors: Mapping[int, int] = field(default_factory=dict)
    unrecovered: Mapping[int, int] = field(default_factory=dict)
    at: float = 0.0


def read(nvml: Nvml, gpu: Handle, _rare: bool) -> Links | None:
    up = gauges.links(nvml, gpu)
    if not up:
        return None
    errors = {link: supported(partial(gauges.link_errors, nvml, gpu, link)) for link in up}
    newer = supported(lambda: gauges.link5_errors(nvml, gpu, list(up))) or {}
    known = {link: count for link, count in errors.items() if count is not None}
    return Links(
        up,
        {**known, **{link: count for link, (count, _) in newer.items()}},
        {link: failed for link, (_, failed) in newer.items()},
    )


def judge(memo: Seen | None, now: Links, at: float, o: NvmlOptions) -> tuple[Finding, Seen]:
    before = memo or Seen()
    suspicions, warnings = [], []
    were_up = before.were_up | {link for link, is_up in now.up.items() if is_up}
    down = sorted(link for link in were_up if not now.up.get(link, True))
    if down:
        text = f"NVLinks that were up are down: {_list(down)}."
        suspicions.append(Suspicion(replace(DOWN, text=text)))
    if lost := sorted(_grown(before.unrecovered, now.unrecovered)):
        text = f"NVLinks could not be recovered: {_list(lost)}."
        suspicions.append(Suspicion(replace(UNRECOVERED, text=text)))
    rates = {
        n: _rate(grown, before.at, at) for n, grown in _grown(before.errors, now.errors).items()
    }
    for link, rate in sorted(rates.items()):
        text = f"NVLink {link} has {rate:.0f} errors a second."
        if rate > o.nvlink_errors_per_second:
            suspicions.append(Suspicion(replace(ERRORS, text=text)))
        elif rate > o.nvlink_errors_per_second / 10:
            warnings.append(Warned(f"Nvlink{link}", text))
    count = sum(now.up.values())
    text = f"{count} NVLinks are up." if count else "No NVLink is up, and none ever was."
    return Finding(text, tuple(suspicions), tuple(warnings)), Seen(
        were_up, now.errors, now.unrecovered, at
    )


def _grown(before: Mapping[int, int], now: Mapping[int, int]) -> dict[int, int]:
    return {n: count - before[n] for n, count in now.items() if count > before.get(n, count)}


def _rate(count: int, since: float, at: float) -> float:
    return count / (at - since) if at > since else 0.0


def _list(links: list[int]) -> str:
    return ", ".join(map(str, links))


def resume(message: str) -> Seen:
    """The links that were up before a restart and were down at it; if the message only says that
    there are such links, all that there can be."""
    if (match := _DOWN_TEXT.search(message)) is not None:
        return Seen(frozenset(int(n) for n in match[1].split(",")))
    return Seen(frozenset(range(gauges.MAX_LINKS)) if DOWN.reason in message else frozenset())


AREA = Area(
    type="NVLinkHealthy",
    faults=(DOWN, ERRORS, UNRECOVERED),
    read=read,
    judge=judge,
    rare=True,
    resume=resume,
)
