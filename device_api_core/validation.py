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

MAX_REASON_CHARS = 1_024
MAX_CONDITION_MESSAGE_BYTES = 32_768
MAX_PROVIDER_ID_CHARS = 128
MAX_ACTION_CHARS = 1_024
MAX_SPEC_FIELD_CHARS = 256

_NAME = re.compile(r"[A-Za-z0-9](?:[-._A-Za-z0-9]{0,251}[A-Za-z0-9])?")
_TYPE = re.compile(r"(?:[a-z0-9.-]+/)?[A-Z][A-Za-z0-9]{0,127}")
_MAX_TYPE_CHARS = 382
_MAX_SHOWN = 64


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
            f"and a slash, not {_shown(type_)}",
        )


def check_condition(condition: Condition, field: str = "condition") -> None:
    """Type, reason and message of one condition; the status was checked when it was decoded."""
    check_type(condition.type, f"{field}.type")
    if len(condition.reason) > MAX_REASON_CHARS:
        raise InvalidArgument(f"{field}.reason", f"must not exceed {MAX_REASON_CHARS} characters")
    # A message of few enough characters cannot be too long in UTF-8: skip encoding it.
    if (
        len(condition.message) * 4 > MAX_CONDITION_MESSAGE_BYTES
        and len(condition.message.encode()) > MAX_CONDITION_MESSAGE_BYTES
    ):
        raise InvalidArgument(
            f"{field}.message", f"must not exceed {MAX_CONDITION_MESSAGE_BYTES} bytes of UTF-8"
        )


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


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
