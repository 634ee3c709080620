"""The same with asyncio: a watch and another task in one event loop."""

from __future__ import annotations

import asyncio

from device_api_core.client import AsyncClientset
from device_api_core.client.errors import LimitExceeded, Unavailable, WatchExpired

PAUSE_SECONDS = 1.0
SUMMARY_SECONDS = 10.0


class Health:
    """Readiness by GPU, as far as the watch has told."""

    def __init__(self) -> None:
        self.by_gpu: dict[str, str] = {}

    async def follow(self, clients: AsyncClientset) -> None:
        """Keep it up to date, over every restart of the server."""
        while True:
            try:
                await self._watch(clients)
            except (WatchExpired, LimitExceeded, Unavailable) as error:
                print(f"the watch ended ({error}); listing again", flush=True)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _watch(self, clients: AsyncClientset) -> None:
        listed = await clients.v1alpha1.gpus.list()
        self.by_gpu = {gpu.name: gpu.ready for gpu in listed.items}
        print(f"{len(self.by_gpu)} GPUs at version {listed.resource_version}", flush=True)
        async with clients.v1alpha1.gpus.watch(listed.resource_version) as events:
            async for event in events:
                print(f"{event.type} {event.gpu.name} {event.gpu.ready}", flush=True)
                if event.type == "DELETED":
                    self.by_gpu.pop(event.gpu.name, None)
                else:
                    self.by_gpu[event.gpu.name] = event.gpu.ready

    async def summarize(self) -> None:
        """Say now and then how many are ready."""
        while True:
            await asyncio.sleep(SUMMARY_SECONDS)
            ready = sum(status == "True" for status in self.by_gpu.values())
            print(f"{ready} of {len(self.by_gpu)} GPUs are ready", flush=True)


async def main() -> None:
    health = Health()
    async with AsyncClientset.connect() as clients, asyncio.TaskGroup() as tasks:
        tasks.create_task(health.follow(clients))
        tasks.create_task(health.summarize())


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped")
