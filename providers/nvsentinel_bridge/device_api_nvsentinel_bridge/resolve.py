"""Which GPU an event speaks of: its references, and the GPUs they may mean.

One GPU appears with three spellings of its PCI address, and often without UUID or index: XID
events carry the address without its function, DCGM's carry DCGM's index, and both leave out what
NVSentinel's node metadata does not tell.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from device_api_core.resources import Gpu

_ADDRESS = re.compile(
    r"(?:(?P<domain>[0-9a-f]{1,8}):)?(?P<bus>[0-9a-f]{2}):(?P<device>[0-9a-f]{2})"
    r"(?:\.(?P<function>[0-7]))?"
)


class Kind(StrEnum):
    """How a reference names a GPU, best first."""

    UUID = "uuid"
    PCI = "pci"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Reference:
    """One GPU in the sender's words. ``index`` accompanies a PCI address that came with one."""

    kind: Kind
    value: str
    index: str = ""


def pci_address(text: str) -> str:
    """A PCI address in the one spelling used for comparing: lower case, a domain of at least four
    digits, no function 0 (``0000:1b:00``). Text that is no address is returned in lower case."""
    lower = text.strip().lower()
    found = _ADDRESS.fullmatch(lower)
    if found is None:
        return lower
    domain = (found["domain"] or "0").lstrip("0").rjust(4, "0")
    function = found["function"]
    tail = f".{function}" if function and function != "0" else ""
    return f"{domain}:{found['bus']}:{found['device']}{tail}"


class GpuIndex:
    """The GPUs that are known, by everything that an event may call them."""

    def __init__(self, gpus: Iterable[Gpu] = ()) -> None:
        self._uuids: dict[str, str] = {}
        self._addresses: dict[str, list[str]] = defaultdict(list)
        self._indices: dict[str, list[Gpu]] = defaultdict(list)
        for gpu in gpus:
            # A provider that knows a GPU's UUID names the GPU by it.
            self._uuids[(gpu.spec.uuid or gpu.name).casefold()] = gpu.name
            if gpu.spec.pci_bus_id:
                self._addresses[pci_address(gpu.spec.pci_bus_id)].append(gpu.name)
            if gpu.spec.index is not None:
                self._indices[str(gpu.spec.index)].append(gpu)

    def resolve(self, reference: Reference) -> tuple[str, ...]:
        """Names of the GPUs meant; none if no known GPU is.

        A UUID that is not known is not replaced by a known address: the board may have been
        changed. An address that two GPUs claim, a board and its replacement, means both, since a
        fault must not go unseen. An index is the last resort: exactly one GPU must have it, and
        its address must not be another than the event's.
        """
        if reference.kind is Kind.UUID:
            name = self._uuids.get(reference.value)
            return (name,) if name else ()
        if reference.kind is Kind.PCI:
            return tuple(self._addresses.get(reference.value, ())) or self._by_index(
                reference.index, reference.value
            )
        return self._by_index(reference.value, "")

    def _by_index(self, index: str, address: str) -> tuple[str, ...]:
        having = self._indices.get(index, [])
        if len(having) != 1 or (address and having[0].spec.pci_bus_id):
            return ()
        return (having[0].name,)
