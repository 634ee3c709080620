"""What names, conditions and specs may be, and the limits of the whole system.

Every check raises :class:`~device_api_core.errors.InvalidArgument` naming the field by its path in
the request and the rule it broke.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from device_api_core.errors import InvalidArgument
from device_api_core.resources import Condition, GpuSpec, GpuStatus

MAX_GPUS = 1_024
MAX_CONDITIONS = 64
"""Per GPU; the computed Ready does not count."""
MAX_OBJECT_BYTES = 64 * 1024
"""Encoded size of what providers said of one GPU."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Of one gRPC message."""
MAX_LIST_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
"""Encoded size of all GPUs: a list must fit a default client's limit of 4 MiB."""
LIST_RESERVE_BYTES = 512 * 1024
"""The last part of it is kept for new faults and for what the server says when it stops believing
a provider: neither may be refused, and every GPU may need some of it at the same moment."""

MAX_REASON_CHARS = 1_024
MAX_CONDITION_MESSAGE_BYTES = 32_768
MAX_PROVIDER_ID_CHARS = 128
MAX_ACTION_CHARS = 1_024
MAX_SPEC_FIELD_CHARS = 256
MAX_SUMMARY_CHARS = 1_024

_NAME = re.compile(r"[A-Za-z0-9](?:[-._A-Za-z0-9]{0,251}[A-Za-z0-9])?")
_TYPE = re.compile(r"(?:[a-z0-9.-]+/)?[A-Z][A-Za-z0-9]{0,127}")
_MAX_TYPE_CHARS = 382
_MAX_SHOWN = 64

# The range of google.protobuf.Timestamp, years 1 to 9999, in nanoseconds.
MIN_TIME, MAX_TIME = -62_135_596_800_000_000_000, 253_402_300_799_999_999_999


def check_name(name: str, field: str = "name") -> None:
    """A GPU's name: 1 to 253 letters, digits, ``-``, ``.`` or ``_``, alphanumeric at both ends."""
    if not name:
        raise InvalidArgument(field, "must not be empty")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            field,
            "must be 1 to 253 characters of letters, digits, '-', '.' and '_', with a letter or "
            f"digit at both ends, not {_shown(name)}",
        )


def check_provider_id(provider_id: str, field: str = "provider_id") -> None:
    """At most 128 printable characters; empty is the anonymous provider."""
    if len(provider_id) > MAX_PROVIDER_ID_CHARS:
        raise InvalidArgument(field, f"must not exceed {MAX_PROVIDER_ID_CHARS} characters")
    if not provider_id.isprintable():
        raise InvalidArgument(field, f"must be printable, not {_shown(provider_id)}")


def check_type(type_: str, field: str) -> None:
    """A condition type: CamelCase, optionally after a lower-case domain and a slash."""
    if not type_:
        raise InvalidArgument(field, "must not be empty")
    if len(type_) > _MAX_TYPE_CHARS or not _TYPE.fullmatch(type_):
        raise InvalidArgument(
            field,
            "must be CamelCase with at most 128 characters, optionally after a lower-case domain "
            f"of at most 253 characters and a slash, not {_shown(type_)}",
        )


def check_condition(condition: Condition, field: str = "condition") -> None:
    """Type, reason, message and time of one condition; its status is an enum already."""
    check_type(condition.type, f"{field}.type")
    _encoded(condition.reason, f"{field}.reason")
    if len(condition.reason) > MAX_REASON_CHARS:
        raise InvalidArgument(f"{field}.reason", f"must not exceed {MAX_REASON_CHARS} characters")
    if len(_encoded(condition.message, f"{field}.message")) > MAX_CONDITION_MESSAGE_BYTES:
        raise InvalidArgument(
            f"{field}.message", f"must not exceed {MAX_CONDITION_MESSAGE_BYTES} bytes of UTF-8"
        )
    check_time(condition.last_transition_time, f"{field}.last_transition_time")


def check_time(time: int | None, field: str) -> None:
    """Nanoseconds since the Unix epoch, within the years 1 to 9999."""
    if time is not None and not (isinstance(time, int) and MIN_TIME <= time <= MAX_TIME):
        raise InvalidArgument(field, "must be whole nanoseconds within the years 1 to 9999")


def check_status(status: GpuStatus, field: str = "status") -> None:
    """Every condition, each type once, and the recommended action."""
    check_conditions(status.conditions, field)
    check_action(status.recommended_action, f"{field}.recommended_action")


def check_conditions(conditions: Iterable[Condition], field: str = "status") -> None:
    """Every condition of a status, each type at most once."""
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        where = f"{field}.conditions[{i}]"
        check_condition(condition, where)
        if condition.type in seen:
            raise InvalidArgument(f"{where}.type", f"{condition.type} occurs twice in one status")
        seen.add(condition.type)


def check_action(action: str, field: str = "recommended_action") -> None:
    """At most 1,024 characters of any text."""
    _encoded(action, field)
    if len(action) > MAX_ACTION_CHARS:
        raise InvalidArgument(field, f"must not exceed {MAX_ACTION_CHARS} characters")


def check_spec(spec: GpuSpec, field: str = "spec") -> None:
    """Every text at most 256 printable characters; numbers not negative."""
    texts = {
        "uuid": spec.uuid,
        "pci_bus_id": spec.pci_bus_id,
        "product_name": spec.product_name,
        "architecture": spec.architecture,
        "serial": spec.serial,
        "mig_mode": spec.mig_mode,
    }
    for name, text in texts.items():
        if len(text) > MAX_SPEC_FIELD_CHARS or not text.isprintable():
            raise InvalidArgument(
                f"{field}.{name}",
                f"must be at most {MAX_SPEC_FIELD_CHARS} printable characters, not {_shown(text)}",
            )
    for name, number in (("index", spec.index), ("minor", spec.minor)):
        if number is not None and not 0 <= number < 2**31:
            raise InvalidArgument(f"{field}.{name}", f"must be 0 to {2**31 - 1}, not {number}")
    if spec.memory_bytes is not None and not 0 <= spec.memory_bytes < 2**64:
        raise InvalidArgument(f"{field}.memory_bytes", "must fit 64 bits without a sign")


def shortened(text: str, limit: int) -> str:
    """The text for the wire whatever it is: without lone surrogates, and no more than ``limit``
    bytes of UTF-8."""
    if text.isascii():
        return text[:limit]
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _encoded(text: str, field: str) -> bytes:
    # A name that the operating system could not decode carries surrogates: they have no UTF-8.
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(field, "must be text that UTF-8 can encode") from error


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
