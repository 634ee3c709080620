"""Reading NVSentinel's health events. Pure: nothing here waits, keeps state or logs.

The meaning of the fields is that of NVSentinel's monitors and its Kubernetes connector (public
sources of July 2026); checks, entity types and enum numbers are open sets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from device_api_core.resources import ConditionStatus
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge.counts import Count
from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.resolve import Kind, Reference, pci_address

TEXT_BYTES = 1024
_ACTION_CHARS = 1024
_WORD_CHARS = 128
_VALUE_CHARS = 256
_NANOS = 1_000_000_000
_PASSIVE = frozenset({pb.STORE_ONLY, pb.STORE_AND_ANALYSE})
_NO_ACTION = frozenset({pb.NONE, pb.UNKNOWN})
_NIC_ENTITIES = frozenset({"NIC", "NICPORT"})

Entity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """What one health event says, without the sender's spelling.

    ``status`` is what the check says of the GPU; True with ``healthy`` clears, True without it is
    a finding that nobody has to act on. ``references`` are the GPUs concerned; none means every
    GPU of the node. ``location`` holds the other entities, those that say where on a GPU.
    ``time`` is in nanoseconds since the Unix epoch and never after the arrival. ``digest`` is equal
    for two copies of one event.
    """

    check: str
    healthy: bool
    status: ConditionStatus
    codes: tuple[str, ...]
    text: str
    action: str
    location: frozenset[Entity]
    references: tuple[Reference, ...]
    time: int
    digest: str


def screen(message: pb.HealthEvent, options: BridgeOptions) -> Count | None:
    """Why the event has no effect, whatever the state is; ``None`` if it counts."""
    if message.processingStrategy in _PASSIVE:
        return Count.STORE_ONLY
    if message.nodeName and message.nodeName.casefold() != options.node:
        return Count.OTHER_NODE
    counting = {c.casefold() for c in options.component_classes}
    if message.checkName in options.ignored_checks or not _classes(message) <= counting:
        return Count.OTHER_CLASS
    if not message.checkName.strip() or (message.isHealthy and message.isFatal):
        return Count.MALFORMED
    return None


def lacks_custom_action(message: pb.HealthEvent) -> bool:
    """The one thing for which NVSentinel's own server refuses a call."""
    return message.recommendedAction == pb.CUSTOM and not message.customRecommendedAction


def has_unknown_enum(message: pb.HealthEvent) -> bool:
    """Whether the sender knows actions or strategies that this version has no name for."""
    return (
        message.recommendedAction not in pb.RecommendedAction.values()
        or message.processingStrategy not in pb.ProcessingStrategy.values()
    )


def read_event(message: pb.HealthEvent, arrival: int, options: BridgeOptions) -> Event:
    """Take in an event that :func:`screen` let pass and that arrived at that time."""
    entities = [
        (e.entityType.strip().upper(), clean(e.entityValue)[:_VALUE_CHARS])
        for e in message.entitiesImpacted
    ]
    references, location = _concerned([(t, v) for t, v in entities if t and v])
    return Event(
        check=clean(message.checkName)[:_VALUE_CHARS],
        healthy=message.isHealthy,
        status=_status(message, options),
        codes=tuple(dict.fromkeys(clean(c)[:_WORD_CHARS] for c in message.errorCode if c.strip())),
        text=cut(clean(message.message), TEXT_BYTES),
        action=_action(message),
        location=location,
        references=references,
        time=_time(message, arrival),
        digest=hashlib.blake2b(
            message.SerializeToString(deterministic=True), digest_size=8
        ).hexdigest(),
    )


def clean(text: str) -> str:
    """One line of printable characters: kernel lines hold newlines, tabs and what programs put
    into their names."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def cut(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8, ending in ``...`` if something is missing."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "..."


def condition_word(check: str) -> str:
    """The check's name as the last part of a condition type. NVSentinel's own names stay as they
    are; others, a policy's say, become CamelCase."""
    word = "".join(p[0].upper() + p[1:] for p in re.findall(r"[A-Za-z0-9]+", check))
    if not word:
        word = hashlib.blake2b(check.encode(), digest_size=4).hexdigest()
    # A digest may begin with a letter, too, but with a small one.
    return (word if word[0].isupper() else f"Check{word}")[:_WORD_CHARS]


def reason_for(check: str, code: str) -> str:
    """A word for programs: ``Xid79``, ``Xid149NetirLinkEvt``, ``DcgmFrVolatileDbeDetected``."""
    parts = re.findall(r"[A-Za-z0-9]+", code)
    if not parts:
        return f"{condition_word(check)}Failed"[:_WORD_CHARS]
    camel = "".join(p.capitalize() for p in parts)
    if not camel[0].isdigit():
        return camel[:_WORD_CHARS]
    prefix = {"SysLogsXIDError": "Xid", "SysLogsSXIDError": "Sxid"}.get(check)
    return f"{prefix or condition_word(check)}{camel}"[:_WORD_CHARS]


def _classes(message: pb.HealthEvent) -> set[str]:
    """The component classes that must be configured. The syslog monitor files NIC errors under
    GPU: what they are about decides."""
    classes = {message.componentClass.casefold()}
    types = {e.entityType.strip().upper() for e in message.entitiesImpacted}
    if types & _NIC_ENTITIES and not types & {"GPU", "GPU_UUID", "PCI"}:
        classes = {"nic"}
    return classes


def _concerned(
    entities: Iterable[Entity],
) -> tuple[tuple[Reference, ...], frozenset[Entity]]:
    """GPUs and location. Beside an NVSWITCH the PCI address is the switch's, and a location."""
    values: dict[str, list[str]] = {}
    for type_, value in entities:
        values.setdefault(type_, []).append(value)
    uuids = values.pop("GPU_UUID", [])
    indices = values.pop("GPU", [])
    addresses = [pci_address(a) for a in values.pop("PCI", [])]
    location = frozenset((t, v) for t, all_ in values.items() for v in all_)
    if "NVSWITCH" in values:
        location |= {("PCI", a) for a in addresses}
        addresses = []
    if uuids:
        references = [Reference(Kind.UUID, u.casefold()) for u in uuids]
    elif addresses:
        index = indices[0] if len(addresses) == len(indices) == 1 else ""
        references = [Reference(Kind.PCI, a, index) for a in addresses]
    else:
        references = [Reference(Kind.INDEX, i) for i in indices]
    return tuple(dict.fromkeys(references)), location


def _status(message: pb.HealthEvent, options: BridgeOptions) -> ConditionStatus:
    if message.isHealthy:
        return ConditionStatus.TRUE
    if message.checkName in options.blind_checks:
        return ConditionStatus.UNKNOWN
    bad = message.isFatal or options.strict_non_fatal
    return ConditionStatus.FALSE if bad else ConditionStatus.TRUE


def _action(message: pb.HealthEvent) -> str:
    number = message.recommendedAction
    if number in _NO_ACTION:
        return ""
    if number == pb.CUSTOM:
        return clean(message.customRecommendedAction)[:_ACTION_CHARS] or "CUSTOM"
    # proto3 enums are open: Name() raises for a number that a newer sender knows.
    known = number in pb.RecommendedAction.values()
    return pb.RecommendedAction.Name(number) if known else f"UNKNOWN_{number}"


def _time(message: pb.HealthEvent, arrival: int) -> int:
    """When it was generated; the arrival if that is not said or lies in the future."""
    stamp = message.generatedTimestamp
    time = stamp.seconds * _NANOS + stamp.nanos
    return time if 0 < time <= arrival else arrival
