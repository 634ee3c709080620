"""From the exporter's text to one reading per GPU.

The text is parsed line by line, each line by itself, with prometheus_client's parser. So a line
that is no sample (``ERROR - FAILED TO CONVERT TO STRING``) costs that line only, and without the
``# TYPE`` lines the parser cannot rename anything: it appends ``_total`` to what a user's counters
file calls a counter. It also means that a family that occurs twice needs no merging.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from device_api_core.resources import GpuSpec
from device_api_dcgm.series import CLOCK_EVENTS, HEALTH, XID_COUNT, canonical, is_blank

Labels = Mapping[str, str]

_UUID = re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_UUID_LABEL = re.compile(r'[{,]\s*(?:UUID|uuid|gpu_uuid)="([^"]*)"')
_NAME = re.compile(r"DCGM_[A-Za-z0-9_]+")
_PCI = re.compile(r"(?:0000)?([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)
_MAX_TEXT = 256
_MAX_NUMBER = 2**31


class Key(NamedTuple):
    """A series of one GPU. ``part`` names the MIG instance or the link, ``""`` the whole GPU."""

    series: str
    part: str = ""


class Watch(NamedTuple):
    """What DCGM's health check says: 0 pass, 10 warn, 20 fail, and a ``DCGM_FR_`` code."""

    value: float
    code: str


@dataclass(slots=True)
class Reading:
    """What one scrape says about one GPU. Rows that differ in their pod only (a shared GPU has one
    per pod) are one row here, the worst."""

    spec: GpuSpec
    values: dict[Key, float] = field(default_factory=dict)
    watches: dict[str, Watch] = field(default_factory=dict)
    xids: dict[int, float] | None = None
    """Occurrences by XID in the exporter's window; ``None`` if the series is not there."""
    clock_events: dict[str, float] | None = None
    """Samples by clock event in the exporter's window; ``None`` if the series is not there."""

    def all(self, series: str) -> dict[str, float]:
        """The values of a series by part."""
        return {key.part: value for key, value in self.values.items() if key.series == series}

    def worst(self, series: str) -> float | None:
        """The greatest value of a series, or ``None``."""
        return max(self.all(series).values(), default=None)

    @property
    def series(self) -> set[str]:
        """The canonical names of all that is there."""
        special = {
            HEALTH: bool(self.watches),
            XID_COUNT: self.xids is not None,
            CLOCK_EVENTS: self.clock_events is not None,
        }
        return {key.series for key in self.values} | {
            name for name, there in special.items() if there
        }


@dataclass(slots=True)
class Exposition:
    """One scrape. ``gpus`` by name, the lower-cased UUID. ``skipped`` counts lines that are no
    samples, ``garbled`` lines that were not UTF-8."""

    gpus: dict[str, Reading] = field(default_factory=dict)
    skipped: int = 0
    garbled: int = 0

    @property
    def series(self) -> set[str]:
        """The canonical names of all that at least one GPU has."""
        return {name for reading in self.gpus.values() for name in reading.series}


def parse(body: bytes) -> Exposition:
    """Read an exposition of any content. What cannot be read is left out and counted."""
    found = Exposition()
    # Not splitlines(): a label value may hold one of the other separators it knows.
    for line in body.decode("utf-8", errors="replace").split("\n"):
        name = _NAME.match(line)
        if name is not None and _worthwhile(found, name[0], line):
            found.garbled += "\ufffd" in line
            _add(found, line)
    return found


def _worthwhile(found: Exposition, name: str, line: str) -> bool:
    """The parser walks a line character by character: spare it the lines that tell nothing new."""
    if canonical(name):
        return True
    uuid = _UUID_LABEL.search(line)
    return uuid is not None and uuid[1].lower() not in found.gpus


def _add(found: Exposition, line: str) -> None:
    try:
        [family] = text_string_to_metric_families(line)
        [sample] = family.samples
        value = float(sample.value)
    except (ValueError, IndexError, OverflowError):
        found.skipped += 1
        return
    labels = sample.labels
    uuid = labels.get("UUID") or labels.get("uuid") or labels.get("gpu_uuid") or ""
    if not _UUID.fullmatch(uuid):
        return  # of an NVSwitch or a CPU
    reading = found.gpus.get(uuid.lower())
    if reading is None:
        reading = found.gpus[uuid.lower()] = Reading(_spec(uuid, labels))
    elif not reading.spec.pci_bus_id or reading.spec.index is None:
        reading.spec = _spec(uuid, labels)  # rows of links have fewer labels
    series = canonical(sample.name)
    if not series or is_blank(value):
        return
    _ADD.get(series, _add_value)(reading, series, labels, value)


def _add_value(reading: Reading, series: str, labels: Labels, value: float) -> None:
    key = Key(series, _part(labels))
    reading.values[key] = max(value, reading.values.get(key, value))


def _add_watch(reading: Reading, _series: str, labels: Labels, value: float) -> None:
    watch = labels.get("health_watch", "").upper()
    said = Watch(value, labels.get("health_error_code", ""))
    if watch:
        reading.watches[watch] = max(said, reading.watches.get(watch, said))


def _add_xid(reading: Reading, _series: str, labels: Labels, value: float) -> None:
    xids = reading.xids = reading.xids if reading.xids is not None else {}
    xid = _number(labels.get("xid", ""))
    if xid and value > 0:  # a GPU without any has one row, without the label
        xids[xid] = max(value, xids.get(xid, value))


def _add_clock_event(reading: Reading, _series: str, labels: Labels, value: float) -> None:
    events = reading.clock_events = reading.clock_events if reading.clock_events is not None else {}
    event = labels.get("clock_event", "")
    if event and value > 0:
        events[event] = max(value, events.get(event, value))


_ADD = {HEALTH: _add_watch, XID_COUNT: _add_xid, CLOCK_EVENTS: _add_clock_event}


def _part(labels: Labels) -> str:
    parts = (labels.get(name, "") for name in ("GPU_I_ID", "nvlink"))
    return "/".join(parts).strip("/")


def _spec(uuid: str, labels: Labels) -> GpuSpec:
    product = labels.get("modelName") or labels.get("model_name") or ""
    readable = product.isprintable() and "\ufffd" not in product and len(product) <= _MAX_TEXT
    return GpuSpec(
        uuid=uuid,
        index=_number(labels.get("gpu", "")),
        minor=_number(labels.get("device", "").removeprefix("nvidia")),
        pci_bus_id=_pci_bus_id(labels.get("pci_bus_id", "")),
        product_name=product if readable else "",
    )


def _pci_bus_id(text: str) -> str:
    match = _PCI.fullmatch(text)
    return "{}:{}:{}.{}".format(*match.groups()).lower() if match else ""


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_NUMBER))):
        return None
    return number if (number := int(text)) < _MAX_NUMBER else None
