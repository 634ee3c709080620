"""The contract that every provider keeps, as tests that its author adds in one line."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from device_api_core.client.admin import ProviderInfo
    from device_api_core.resources import Condition, GpuSpec

HOMES = ("thread", "process", "alone")
"""Where a provider may live: in the server, in a process that it starts, or on its own."""

_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_NEIGHBOUR, _NEIGHBOURS_TYPE = "neighbour", "neighbour.example.com/NeighbourHealthy"

Act = Callable[[Path], object]
Options = Mapping[str, object] | Callable[[Path], Mapping[str, object]]


def provider_contract(
    name: str,
    *,
    options: Options | None = None,
    well: Act | None = None,
    broken: Act | None = None,
    gpus: Mapping[str, GpuSpec] | None = None,
    seconds: float = 20.0,
) -> type:
    """The contract's tests for the installed provider ``name``; give the result a name that begins
    with ``Test``.

    ``options`` are the provider's, or a function that makes them for a test's directory. ``well``
    makes the source that it watches good and ``broken`` makes it bad, both for that directory;
    without ``broken`` the tests that need a fault are skipped. ``gpus`` are those that another
    provider has registered on the node, for one that registers none itself. No wait is longer than
    ``seconds``.
    """

    def make(directory: Path, home: str) -> Stage:
        chosen = options(directory) if callable(options) else options or {}
        return Stage(name, home, directory, chosen, gpus=gpus or {}, seconds=seconds)

    facts = {"make": staticmethod(make), "well": staticmethod(well or _nothing)}
    facts["broken"] = staticmethod(broken) if broken else None
    return type(f"Test{name.title().replace('-', '')}Contract", (ProviderContract,), facts)


def _nothing(directory: Path) -> None:
    """The source is good as it is."""


class Stage:
    """One provider in one home, and a node that it reports to."""

    def __init__(
        self,
        name: str,
        home: str,
        directory: Path,
        options: Mapping[str, object],
        *,
        gpus: Mapping[str, GpuSpec],
        seconds: float,
    ) -> None:
        # pytest imports this module in every run; most need no daemon.
        from device_api_core.plugins.discovery import load
        from device_api_core.testing.nodes import ProviderProcess, ThreadNode

        self.name = name
        self.home = home
        self.directory = directory
        self.plugin = load(name, options)
        self._gpus = gpus
        self._seconds = seconds
        self._options = options
        self._process: ProviderProcess | None = None
        inside = () if home == "alone" else (name,)
        isolated = (name,) if home == "process" else ()
        self.node = ThreadNode(directory, *inside, isolate=isolated, options={name: options})

    def start(self) -> None:
        """Start the node and the provider; returns when everything was reported."""
        self.start_node()
        if self.home == "alone":
            self.start_alone()
        self.wait(lambda: self.info.synced, "said synced()")

    def start_node(self) -> None:
        """Start the node, with what others have registered there."""
        self.node.start()
        for gpu, spec in self._gpus.items():
            self.node.clients.v1alpha1.providers.register(gpu, spec, provider_id=_NEIGHBOUR)

    def start_alone(self) -> None:
        """Start the provider's own process."""
        from device_api_core.testing.nodes import ProviderProcess

        self._process = ProviderProcess(self.node, self.name, self._options)

    @property
    def process(self) -> Any:
        """The provider's own process."""
        assert self._process is not None
        return self._process

    def stop(self) -> float:
        """Stop the provider, with its node where it lives there; returns the seconds it took."""
        began = time.monotonic()
        if self._process is not None:
            assert self._process.stop() == 0, self._process.log.read_text(encoding="utf-8")
        else:
            self.node.stop()
        return time.monotonic() - began

    def close(self) -> None:
        """End everything."""
        if self._process is not None:
            self._process.kill()
        self.node.close()

    @property
    def info(self) -> ProviderInfo:
        """What ``device-api providers`` shows of it."""
        from device_api_core.client.admin import ProviderInfo

        listed = self.node.clients.admin.list_providers().providers
        return next((p for p in listed if p.name == self.name), ProviderInfo(self.name))

    @property
    def said(self) -> dict[tuple[str, str], Condition]:
        """Its conditions, by GPU and type."""
        gpus = self.node.clients.v1alpha1.gpus.list().items
        return {
            (gpu.name, c.type): c
            for gpu in gpus
            for c in gpu.status.conditions
            if c.provider_id == self.name
        }

    @property
    def faults(self) -> set[tuple[str, str]]:
        """The GPUs and types that it holds to be bad."""
        return {key for key, c in self.said.items() if c.status == "False"}

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """Until it holds. A server that is away holds nothing."""
        from device_api_core.client.errors import Unavailable

        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            with suppress(Unavailable):
                if holds():
                    return
            time.sleep(_LOOK_SECONDS)
        pytest.fail(f"provider {self.name} ({self.home}) has not {what}: {self.info}, {self.said}")

    def wait_for_life(self) -> None:
        """Until it is heard again."""
        before = self.info.last_sign_of_life
        self.wait(lambda: self.info.last_sign_of_life not in (before, None), "been heard again")


class ProviderContract:
    """Made by :func:`provider_contract`."""

    make: Callable[[Path, str], Stage]
    well: Act
    broken: Act | None

    @pytest.fixture
    def stage(self, request: pytest.FixtureRequest) -> Iterator[Stage]:
        """The provider, not started yet, with a good source."""
        # Not pytest's tmp_path: a socket's path may have 107 bytes.
        with tempfile.TemporaryDirectory(prefix="dapi-") as path:
            type(self).well(Path(path))
            stage = type(self).make(Path(path), getattr(request, "param", "alone"))
            yield stage
            stage.close()

    def break_(self, stage: Stage) -> None:
        """Make the source bad."""
        if (broken := type(self).broken) is None:
            pytest.skip("no way to break the source was given")
        broken(stage.directory)

    @pytest.mark.parametrize("stage", HOMES, indirect=True)
    def test_it_reports_what_it_registers(self, stage: Stage) -> None:
        from device_api_core.reservations import covers

        stage.start()
        assert stage.info.state == "running"
        assert stage.info.gpus == len({gpu for gpu, _ in stage.said})
        provider = stage.plugin.provider
        assert provider is not None
        assert all(covers(provider.types, type_) for _, type_ in stage.said)

    @pytest.mark.parametrize("stage", HOMES, indirect=True)
    def test_it_is_heard_within_its_interval(self, stage: Stage) -> None:
        stage.start()
        provider = stage.plugin.provider
        assert provider is not None
        assert 0 < provider.interval_seconds <= 3_600
        for _ in range(3):
            stage.wait_for_life()
        assert stage.info.state == "running"
        assert stage.info.lease_seconds == pytest.approx(3 * provider.interval_seconds)

    @pytest.mark.parametrize("stage", HOMES, indirect=True)
    def test_it_leaves_other_providers_alone(self, stage: Stage) -> None:
        from device_api_core.resources import Condition, ConditionStatus

        stage.start()
        clients = stage.node.clients.v1alpha1
        fault = Condition(_NEIGHBOURS_TYPE, ConditionStatus.FALSE, "Broken")
        for gpu in {gpu for gpu, _ in stage.said}:
            clients.providers.register(gpu, provider_id=_NEIGHBOUR)
            clients.providers.update_condition(gpu, fault, provider_id=_NEIGHBOUR)
        stage.wait_for_life()
        stage.wait_for_life()
        for gpu in {gpu for gpu, _ in stage.said}:
            found = clients.gpus.get(gpu).condition(_NEIGHBOURS_TYPE)
            assert found is not None
            assert (found.status, found.provider_id) == ("False", _NEIGHBOUR)

    @pytest.mark.parametrize("stage", HOMES, indirect=True)
    def test_it_stops_in_time(self, stage: Stage) -> None:
        stage.start()
        assert stage.stop() < _STOP_SECONDS

    def test_stopping_withdraws_nothing(self, stage: Stage) -> None:
        stage.start()
        before = set(stage.said)
        stage.stop()
        assert set(stage.said) == before

    @pytest.mark.parametrize("stage", HOMES, indirect=True)
    def test_it_hears_of_what_an_operator_cleared(self, stage: Stage) -> None:
        from device_api_core.client.errors import Conflict
        from device_api_core.conditions import CLEARED

        self.break_(stage)
        stage.start()
        stage.wait(lambda: stage.faults, "reported the fault")
        for gpu, type_ in stage.faults:
            # Clearing a roll-up may have been enough for what it sums up.
            with suppress(Conflict):
                stage.node.clients.admin.clear_condition(gpu, type_)
        stage.wait(lambda: all(c.reason != CLEARED for c in stage.said.values()), "looked again")

    def test_a_crash_clears_no_fault(self, stage: Stage) -> None:
        self.break_(stage)
        stage.start()
        stage.wait(lambda: stage.faults, "reported the fault")
        faults = stage.faults
        with stage.node.clients.v1alpha1.gpus.watch() as events:
            stage.process.kill()
            assert stage.faults == faults
            stage.start_alone()
            stage.wait_for_life()
            stage.wait(lambda: stage.info.synced, "said synced() again")
            for _ in range(2):
                stage.wait_for_life()
            version = stage.node.clients.v1alpha1.gpus.list().resource_version
            # A change of its own, so that the stream is known to be read to its end.
            stage.node.clients.v1alpha1.providers.register("last", provider_id=_NEIGHBOUR)
            for event in events:
                if event.resource_version > version:
                    break
                for gpu, type_ in faults:
                    if event.gpu.name == gpu:
                        found = event.gpu.condition(type_)
                        assert found is not None
                        assert found.status != "True"

    def test_a_new_server_is_told_everything(self, stage: Stage) -> None:
        stage.start()
        before = {key: c.status for key, c in stage.said.items()}
        stage.node.stop()
        provider = stage.plugin.provider
        assert provider is not None
        # It goes on without a server.
        time.sleep(min(provider.interval_seconds, 1.0))
        assert stage.process.is_alive
        stage.start_node()
        stage.wait(
            lambda: {key: c.status for key, c in stage.said.items()} == before,
            "told the new server what it had told the old one",
        )
        assert stage.process.is_alive
        stage.wait(lambda: stage.info.synced, "said synced() to it")
        stage.wait_for_life()
