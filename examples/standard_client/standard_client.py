"""List the GPUs, get one of them, and act on what may go wrong."""

from __future__ import annotations

import sys

from device_api_core.client import Clientset, conditions, is_healthy
from device_api_core.client.errors import DeviceApiError, NotFound


def main() -> None:
    # The target comes from NVIDIA_DEVICE_API; every call has a deadline and is tried again.
    with Clientset.connect(timeout_seconds=5) as clients:
        gpus = clients.v1alpha1.gpus

        listed = gpus.list()
        print(f"{len(listed.items)} GPUs at version {listed.resource_version}")
        for gpu in listed.items:
            verdict = "healthy" if is_healthy(gpu) else "not healthy"
            action = gpu.status.recommended_action
            print(f"  {gpu.spec.index}  {gpu.name}  {verdict}  {action}".rstrip())

        for gpu in listed.items[:1]:
            same = gpus.get(gpu.name)
            print(f"{same.name} in detail")
            for type_, condition in sorted(conditions(same).items()):
                said_by = condition.provider_id or "computed by the server"
                print(f"  {type_} is {condition.status}  {condition.reason}  ({said_by})")

        try:
            gpus.get("no-such-gpu")
        except NotFound as error:
            print(f"as expected: {error}")


if __name__ == "__main__":
    try:
        main()
    except DeviceApiError as error:
        sys.exit(f"the Device API does not answer: {error}")
