"""What one provider and the server know of each other, over the wire."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from device_api_core.client.clientset import Clientset
from device_api_core.client.errors import (
    DeadlineExceeded,
    DeviceApiError,
    NotFound,
    RpcFailed,
    Unavailable,
)
from device_api_core.client.update import HeldUpdate
from device_api_core.conditions import CLEARED, LAPSED_REASONS
from device_api_core.entries import Change, SetCondition
from device_api_core.errors import RATE
from device_api_core.plugins.mirror import Mirror, Said
from device_api_core.resources import READY, Condition, ConditionStatus, Gpu, GpuSpec, GpuStatus

logger = logging.getLogger(__name__)

Owned = Mapping[str, tuple[Condition, ...]]

LONGEST_INTERVAL_SECONDS = 3_600.0
"""What a heartbeat may state."""


class Conversation:
    """Sends what a provider says, remembers what was accepted, and says it again to a server that
    forgot. Every method raises what the client raises; none waits or tries twice.

    ``mirror`` is what was said so far; ``cleared`` is called with the GPU and type of a condition
    that an operator has cleared. Not safe for threads.
    """

    def __init__(
        self,
        provider_id: str,
        clients: Clientset,
        *,
        interval_seconds: float,
        mirror: Mirror,
        cleared: Callable[[str, str], None],
    ) -> None:
        self.mirror = mirror
        self.synced = False
        self.summary = ""
        self.behind = True
        """Whether the server may know less than was said, as one that was just reached."""
        self._provider_id = provider_id
        self._gpus = clients.v1alpha1.gpus
        self._providers = clients.v1alpha1.providers
        self._interval_seconds = min(interval_seconds, LONGEST_INTERVAL_SECONDS)
        self._cleared = cleared
        self._unplaced: set[str] = set()
        self._told: set[tuple[str, str]] = set()

    # --- said by the provider

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        """Returns whether the GPU is new."""
        done = self._providers.register(gpu, spec, provider_id=self._provider_id)
        self.mirror.register(gpu, spec)
        return done.created

    def withdraw(self, gpu: str) -> None:
        """End the provider's part in the GPU."""
        self._providers.unregister(gpu, provider_id=self._provider_id)
        self.mirror.drop(gpu)
        self._unplaced.discard(gpu)

    def apply(self, change: Change) -> None:
        """One change."""
        self._send(change)
        self.accepted(change)

    def accepted(self, change: Change) -> None:
        """The server has taken a change, on its own or in an update."""
        self.mirror.apply(change)
        self._told -= {(change.gpu, c.type) for c in change.conditions}

    def hold(self, gpus: Sequence[str]) -> HeldUpdate:
        """Make readers wait."""
        return self._providers.update(self._provider_id, gpus)

    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU of the server."""
        return self._gpus.list(provider_id=self._provider_id).items

    def known(self) -> Owned:
        """The conditions that the provider owns, by GPU."""
        owned = self._owned(self.gpus())
        # It sees them here, so it need not be told.
        self._told |= {(gpu, c.type) for gpu, found in owned.items() for c in found if _cleared(c)}
        return owned

    def beat(self) -> None:
        """Say that the provider lives, and find out whether the server still knows what it said."""
        if not self._heartbeat(synced=self.synced) or self._unplaced:
            self._look_back()

    # --- said again

    def operator_cleared(self, gpu: str, type_: str) -> bool:
        """An operator has cleared a condition: do not say it again on the provider's behalf.
        Returns whether this is news, for a heartbeat may have found it out before."""
        if (gpu, type_) in self._told:
            return False
        self._told.add((gpu, type_))
        unknown = Condition(type_, ConditionStatus.UNKNOWN, CLEARED, provider_id=self._provider_id)
        self.mirror.adopt(gpu, unknown)
        return True

    def replay(self) -> None:
        """Tell the server everything."""
        self.behind = False
        try:
            # The lease comes first: no True may stand there that nothing vouches for.
            self._heartbeat(synced=False)
            said = self.mirror.gpus
            self._unplaced = {gpu for gpu in said if not self._tell(gpu, said[gpu])}
            if self.synced:
                self._heartbeat(synced=True)
        except BaseException:
            self.behind = True
            raise

    def _tell(self, gpu: str, said: Said) -> bool:
        """Returns whether the server knows the GPU."""
        spec = said.spec
        if spec is not None:
            try:
                self._providers.register(gpu, spec, provider_id=self._provider_id)
            except DeviceApiError as error:
                self._note_refusal(gpu, error)
                self.mirror.drop(gpu)
                return True
        for change in said.changes(gpu):
            try:
                self._send(change)
            except NotFound:
                # Another provider registered it and has yet to do so again.
                return False
            except DeviceApiError as error:
                self._note_refusal(gpu, error)
                self.mirror.retract(change)
        return True

    def _note_refusal(self, gpu: str, error: DeviceApiError) -> None:
        """Nobody is there to take it; the provider meets it when it next says the same."""
        if isinstance(error, Unavailable | DeadlineExceeded | RpcFailed) or error.reason == RATE:
            raise error
        logger.warning("refused when told again", extra={"gpu": gpu, "error": error.message})

    def _look_back(self) -> None:
        """What does the server know differently, and whose doing was it?"""
        gpus = self.gpus()
        owned = self._owned(gpus)
        cleared = {(gpu, c.type): c for gpu, found in owned.items() for c in found if _cleared(c)}
        news = [key for key in cleared if key not in self._told]
        self._told = set(cleared)
        for gpu, type_ in news:
            self.mirror.adopt(gpu, cleared[gpu, type_])
            self._cleared(gpu, type_)
        names = {gpu.name for gpu in gpus}
        if self._unplaced & names or any(
            _differs(said, owned.get(gpu, ()), exists=gpu in names)
            for gpu, said in self.mirror.gpus.items()
        ):
            self.replay()

    # --- on the wire

    def _owned(self, gpus: Sequence[Gpu]) -> Owned:
        found = {
            gpu.name: tuple(
                c
                for c in gpu.status.conditions
                if c.type != READY and c.provider_id == self._provider_id
            )
            for gpu in gpus
        }
        return {gpu: conditions for gpu, conditions in found.items() if conditions}

    def _heartbeat(self, *, synced: bool) -> bool:
        return self._providers.heartbeat(
            self._provider_id,
            synced=synced,
            summary=self.summary,
            interval_seconds=self._interval_seconds,
            numbers=self.mirror.tally.read(),
        )

    def _send(self, change: Change) -> None:
        id_ = self._provider_id
        if isinstance(change, SetCondition):
            action = change.recommended_action
            self._providers.update_condition(
                change.gpu, change.condition, provider_id=id_, recommended_action=action
            )
        else:
            status = GpuStatus(change.conditions, change.recommended_action)
            self._providers.update_status(change.gpu, status, provider_id=id_)


def stage(update: HeldUpdate, changes: Sequence[Change]) -> None:
    """Hand the changes of a held update to its stream."""
    for change in changes:
        if isinstance(change, SetCondition):
            update.set_condition(
                change.gpu, change.condition, recommended_action=change.recommended_action
            )
        else:
            status = GpuStatus(change.conditions, change.recommended_action)
            update.set_status(change.gpu, status)


def _cleared(condition: Condition) -> bool:
    return condition.status is ConditionStatus.UNKNOWN and condition.reason == CLEARED


def _differs(said: Said, owned: Sequence[Condition], *, exists: bool) -> bool:
    """Whether the server has lost something, or believes a condition no longer."""
    if not exists:
        return said.spec is not None
    found = {c.type: c for c in owned}
    for type_, condition in said.conditions.items():
        if type_ == READY:
            continue
        there = found.get(type_)
        if there is None:
            return True
        lapsed = there.status is ConditionStatus.UNKNOWN and there.reason in LAPSED_REASONS
        if lapsed and (condition.status, condition.reason) != (there.status, there.reason):
            return True
    return False
