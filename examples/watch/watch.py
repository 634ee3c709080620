"""List, then watch from that version: every change once, and nothing in between is lost.

A raw watch ends when the server restarts. This loop shows what an informer does for you.
"""

from __future__ import annotations

import time

from device_api_core.client import Clientset
from device_api_core.client.errors import LimitExceeded, Unavailable, WatchExpired

PAUSE_SECONDS = 1.0


def follow(clients: Clientset) -> None:
    """Print every GPU, then every change. Raises what ends the watch."""
    listed = clients.v1alpha1.gpus.list()
    for gpu in listed.items:
        print(f"FOUND     {gpu.name}  {gpu.ready}", flush=True)
    with clients.v1alpha1.gpus.watch(listed.resource_version) as events:
        for event in events:
            action = event.gpu.status.recommended_action
            print(f"{event.type:<9} {event.gpu.name}  {event.gpu.ready}  {action}", flush=True)


def main() -> None:
    with Clientset.connect() as clients:
        while True:
            try:
                follow(clients)
            except (WatchExpired, LimitExceeded, Unavailable) as error:
                print(f"the watch ended ({error}); listing again", flush=True)
                time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
