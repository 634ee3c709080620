"""From the records of one GPU to what the daemon is told of it. Pure.

NVSentinel's own node conditions are True when something is wrong; the device API's are True when
all is well. Here the sense is the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from device_api_core.resources import Condition, ConditionStatus
from device_api_nvsentinel_bridge.actions import stronger
from device_api_nvsentinel_bridge.events import TEXT_BYTES, condition_word, cut
from device_api_nvsentinel_bridge.faults import Fault, Record, worse

ROLL_UP = "NVSentinelHealth"
DOMAIN = "nvsentinel.nvidia.com/"
NO_FAULTS = "NoFaults"
MAX_CHECKS = 32
"""Conditions per GPU beside the roll-up; the daemon's limit is 64 for all providers together. The
worst are shown, and every one counts in the roll-up."""
_SHORT_BYTES = 72

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_ORDER = (_FALSE, _UNKNOWN, _TRUE)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything said of one GPU, sorted by type."""

    conditions: tuple[Condition, ...]
    action: str


def condition_type(check: str) -> str:
    """The type of the condition that shows the check."""
    return DOMAIN + condition_word(check)


def report(records: Mapping[str, Record]) -> Report:
    """What is said of a GPU with these records, of which there is at least one."""
    grouped: dict[str, list[Record]] = {}
    ordered = sorted(records.values(), key=lambda r: r.check)
    for record in ordered:
        grouped.setdefault(condition_type(record.check), []).append(record)
    checks = [_condition(type_, group) for type_, group in grouped.items()]
    checks.sort(key=lambda c: (_ORDER.index(c.status), c.type))
    shown = [_condition(ROLL_UP, ordered), *checks[:MAX_CHECKS]]
    action = ""
    for _, fault in reversed(_newest_first(ordered)):
        action = stronger(action, fault.action)
    return Report(tuple(sorted(shown, key=lambda c: c.type)), action)


def _condition(type_: str, records: Sequence[Record]) -> Condition:
    status = _TRUE
    for record in records:
        status = worse(status, record.status)
    # Only the faults that make the status explain it.
    pairs = [(check, f) for check, f in _newest_first(records) if f.status is status]
    if status is _FALSE:
        since = min(r.since for r in records if r.status is _FALSE)
    else:
        since = max(r.since for r in records)
    return Condition(
        type=type_,
        status=status,
        reason=pairs[0][1].reason if pairs else NO_FAULTS,
        message=_message(pairs),
        last_transition_time=since,
    )


def _newest_first(records: Iterable[Record]) -> list[tuple[str, Fault]]:
    """Every fault with its check; among equal times in the order of the records."""
    pairs = [(r.check, f) for r in records for f in reversed(r.faults)]
    return sorted(pairs, key=lambda pair: pair[1].time, reverse=True)


def _message(pairs: list[tuple[str, Fault]]) -> str:
    """``<check>: <codes>: <text>`` of each finding. Texts are shortened only if they do not all
    fit, as NVSentinel does in its node conditions."""
    codes: dict[tuple[str, str], list[str]] = {}
    for check, fault in pairs:
        codes.setdefault((check, fault.text), []).append(fault.code)
    whole = _joined(codes, TEXT_BYTES)
    return whole if len(whole.encode()) <= TEXT_BYTES else cut(_joined(codes, _SHORT_BYTES), 1024)


def _joined(codes: Mapping[tuple[str, str], list[str]], text_bytes: int) -> str:
    return "; ".join(
        ": ".join(part for part in (check, _listed(named), cut(text, text_bytes)) if part)
        for (check, text), named in codes.items()
    )


def _listed(codes: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(c for c in codes if c))
