"""Messages of ``proto/`` and the values of :mod:`device_api_core.resources`, both ways.

Conversion judges nothing: what a value may be is :mod:`device_api_core.validation`'s to say. Of
every kind it is generated; what the kinds share is in :mod:`.meta`.
"""

from __future__ import annotations

from device_api_core.conversion import _generated
from device_api_core.conversion._generated import *  # noqa: F403  (its __all__ names the kinds' functions)
from device_api_core.conversion.meta import (
    NANOS,
    condition_from_proto,
    condition_to_proto,
    meta_from_proto,
    meta_to_proto,
    nanoseconds,
    parse_version,
    timestamp,
)
from device_api_core.conversion.numbers import numbers_to_proto

__all__ = [
    "NANOS",
    "condition_from_proto",
    "condition_to_proto",
    "meta_from_proto",
    "meta_to_proto",
    "nanoseconds",
    "numbers_to_proto",
    "parse_version",
    "timestamp",
]
__all__ += _generated.__all__
