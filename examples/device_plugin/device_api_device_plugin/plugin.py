"""The plugin as a whole."""

from __future__ import annotations

import asyncio
import logging

from device_api_core.client import AsyncClientset, AsyncGpuInformer
from device_api_core.client.errors import NotSynced
from device_api_device_plugin.devices import Inventory
from device_api_device_plugin.presence import Presence
from device_api_device_plugin.service import Service
from device_api_device_plugin.settings import Settings

logger = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
PROBES_PER_AGE = 3
"""So many proofs of freshness fall into the age that is allowed: one may be lost."""


async def run(settings: Settings) -> None:
    """Advertise the node's GPUs until cancelled; then stop in good order.

    Raises:
        ConfigurationError: the environment's settings of the client are wrong.
    """
    probe_seconds = min(PROBE_SECONDS, settings.max_age_seconds / PROBES_PER_AGE)
    async with (
        AsyncClientset.connect(settings.target) as clients,
        AsyncGpuInformer(clients.v1alpha1.gpus, probe_seconds=probe_seconds) as informer,
    ):
        await _synced(informer)
        inventory = Inventory(informer, settings.max_age_seconds)
        inventory.look()
        service = Service(settings, clients, inventory)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(inventory.follow(), name="inventory")
            tasks.create_task(Presence(settings, service).keep(), name="presence")


async def _synced(informer: AsyncGpuInformer) -> None:
    """Wait for the first list. Before it nothing is registered: the kubelet would take an empty
    list for a node without GPUs."""
    while not informer.has_synced:
        try:
            await informer.wait_for_sync()
        except NotSynced as error:
            logger.warning("no GPU is advertised yet: %s", error)
