"""``device-api describe gpu``: everything about one GPU, for people."""

from __future__ import annotations

import click

from device_api_core.cli.ages import age_of
from device_api_core.cli.completion import complete_gpus
from device_api_core.cli.events import OF_ONE_GPU
from device_api_core.cli.failures import explain
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.output import print_lines
from device_api_core.cli.session import Session, pass_session
from device_api_core.cli.tables import Table, indented, one_line, painted
from device_api_core.client.admin import Admin
from device_api_core.errors import DeviceApiError
from device_api_core.resources import READY, Condition, Gpu, GpuSpec

_EVENTS = 10
_LABEL_WIDTH = 16

_MEANINGS = {
    "RESTART_BM": "restart the machine",
    "REPLACE_VM": "move the work to another virtual machine and give this one up",
    "RESTART_VM": "restart the virtual machine",
    "COMPONENT_RESET": "stop what uses the GPU and reset it",
    "RUN_FIELDDIAG": "take the node out of service and run the field diagnosis",
    "RUN_DCGMEUD": "take the GPU out of service and run the DCGM diagnosis",
    "CONTACT_SUPPORT": "contact the vendor's support; no local remedy is known",
    "CUSTOM": "see the messages of the conditions",
}


@click.group(cls=KindGroup)
def describe() -> None:
    """Explain one object in full.

    \b
    Example:
      device-api describe gpu gpu-1b2c...
    """


@describe.command("gpu")
@click.argument("name", shell_complete=complete_gpus)
@pass_session
def describe_gpu(session: Session, name: str) -> None:
    """Explain one GPU: what it is, its conditions, what to do, and what happened lately.

    The events come from the providers' socket, which may need more rights than reading does.

    \b
    Example:
      device-api describe gpu gpu-1b2c...
    """
    with session.connect() as clients:
        gpu = clients.v1alpha1.gpus.get(name)
        print_lines(_summary(gpu))
        print_lines(["", "Spec:", *indented(_spec(gpu.spec))])
        print_lines(["", "Conditions:", *indented(_conditions(gpu))])
        print_lines(["", "Events:", *indented(_events(clients.admin, session, name))])


def _summary(gpu: Gpu) -> list[str]:
    ready = gpu.condition(READY)
    verdict = painted(gpu.ready)
    if ready is not None:
        verdict += f" ({one_line(ready.reason)})" if ready.reason else ""
        verdict += f", for {age_of(ready.last_transition_time)}"
    action = gpu.status.recommended_action
    meaning = _MEANINGS.get(action)
    return [
        _labelled("Name", gpu.name),
        _beside("Ready", verdict),
        *([_labelled("", ready.message)] if ready is not None and ready.message else []),
        _labelled("What to do", f"{action}: {meaning}" if meaning else action or "nothing"),
        _labelled("Version", str(gpu.metadata.resource_version)),
    ]


def _spec(spec: GpuSpec) -> list[str]:
    facts = {
        "UUID": spec.uuid,
        "Index": spec.index,
        "Device file": None if spec.minor is None else f"/dev/nvidia{spec.minor}",
        "PCI address": spec.pci_bus_id,
        "Product": spec.product_name,
        "Architecture": spec.architecture,
        "Memory": _memory(spec.memory_bytes),
        "Serial": spec.serial,
        "MIG mode": spec.mig_mode,
    }
    known = {label: str(fact) for label, fact in facts.items() if fact not in {None, ""}}
    lines = [_labelled(label, fact, _LABEL_WIDTH - 2) for label, fact in known.items()]
    return lines or ["nothing was said"]


def _memory(size: int | None) -> str | None:
    return None if size is None else f"{size / 2**30:.1f} GiB ({size} bytes)"


def _conditions(gpu: Gpu) -> list[str]:
    table: Table[Condition] = Table(
        {
            "TYPE": lambda c: c.type,
            "STATUS": lambda c: c.status,
            "REASON": lambda c: c.reason,
            "OWNER": lambda c: c.provider_id or ("computed" if c.type == READY else ""),
            "AGE": lambda c: age_of(c.last_transition_time),
            "MESSAGE": lambda c: c.message,
        }
    )
    return table.lines(gpu.status.conditions) if gpu.status.conditions else ["none"]


def _events(admin: Admin, session: Session, name: str) -> list[str]:
    try:
        found = admin.list_events(gpu_name=name, limit=_EVENTS)
    except DeviceApiError as error:
        # The rest of the description is worth having without them.
        failure = explain(error, session)
        return [f"not available: {failure.message}", f"to see them: {failure.hint}"]
    return Table(OF_ONE_GPU).lines(found) if found else ["none"]


def _labelled(label: str, text: str, width: int = _LABEL_WIDTH) -> str:
    return _beside(label, one_line(text), width)


def _beside(label: str, line: str, width: int = _LABEL_WIDTH) -> str:
    return f"{label + ':' if label else '':{width}} {line}"
