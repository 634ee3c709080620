"""Real pynvml, a simulated node beneath it, and a sink that keeps the contract and remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from device_api_fake_nvml import FakeNode
from device_api_nvml.options import NvmlOptions
from device_api_nvml.provider import NvmlProvider

from device_api_core.errors import InvalidArgument, LimitExceeded, NotFound, SinkClosed
from device_api_core.resources import Condition, ConditionStatus, Gpu, GpuSpec, ObjectMeta
from device_api_core.series import Tally
from device_api_core.validation import check_action, check_condition, check_name, check_spec

TIMEOUT = 10.0


@dataclass(frozen=True)
class Said:
    """One effective change, and when a reader could see it (monotonic seconds)."""

    at: float
    gpu: str
    status: str
    reason: str
    message: str
    action: str
    type: str = "NVMLReady"


class RecordingSink:
    """The daemon as a provider sees it. ``state`` survives from one run of a provider to the next:
    make the next run's sink with :meth:`restarted`."""

    def __init__(self, types: Sequence[str] = NvmlProvider.types) -> None:
        self.specs: dict[str, GpuSpec] = {}
        self.tally = Tally()
        self.all_said: list[Said] = []
        self.calls: list[str] = []
        self.summary = ""
        self.is_synced = False
        self.closed = False
        self.holds: list[tuple[str, ...]] = []
        self.refuse_holds = False
        self._types = types
        self._state: dict[str, dict[str, Condition]] = {}
        self._actions: dict[str, str] = {}
        self._changed = threading.Condition()
        self._writer: int | None = None

    def restarted(self, lapsed: str = "ProviderFailed") -> RecordingSink:
        """What the daemon does when a provider comes again: True is not believed any more."""
        sink = RecordingSink(self._types)
        sink.specs = dict(self.specs)
        sink.all_said = list(self.all_said)
        sink._actions = dict(self._actions)
        for gpu, conditions in self._state.items():
            sink._state[gpu] = {}
            for type_, condition in conditions.items():
                kept = condition
                if condition.status is ConditionStatus.TRUE:
                    kept = replace(condition, status=ConditionStatus.UNKNOWN, reason=lapsed)
                sink._state[gpu][type_] = kept
        return sink

    @property
    def said(self) -> list[Said]:
        """What was said about NVMLReady."""
        return [said for said in self.all_said if said.type == "NVMLReady"]

    def gpus(self) -> Sequence[Gpu]:
        return [Gpu(ObjectMeta(name=name), spec) for name, spec in self.specs.items()]

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        self._call("register")
        check_name(gpu)
        check_spec(spec)
        with self._changed:
            new = gpu not in self.specs
            self.specs[gpu] = spec
            self._changed.notify_all()
            return new

    def withdraw(self, gpu: str) -> None:
        raise AssertionError(f"{gpu} withdrawn")

    def forget(self, gpu: str) -> None:
        """An operator's ``device-api forget``."""
        with self._changed:
            del self.specs[gpu]
            self._state.pop(gpu, None)
            self._actions.pop(gpu, None)

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        ready = condition.type == "NVMLReady"
        self._call("set_condition" if ready else "set_signal")
        self._set([(gpu, condition, recommended_action)])

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        [condition] = conditions
        self.set_condition(gpu, condition, recommended_action=recommended_action)

    @contextmanager
    def update(self, *gpus: str) -> Iterator[_Update]:
        self._call("update")
        if self.refuse_holds:
            raise LimitExceeded("an update is already held")
        began = time.monotonic()
        update = _Update()
        yield update
        assert time.monotonic() - began < 5.0
        self._set(update.staged)
        self.holds.append(gpus)

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        self._call("known")
        return {gpu: tuple(conditions.values()) for gpu, conditions in self._state.items()}

    def synced(self) -> None:
        self._call("synced")
        with self._changed:
            self.is_synced = True
            self._changed.notify_all()

    def alive(self, summary: str = "") -> None:
        self._call("alive")
        with self._changed:
            self.summary = summary
            self._changed.notify_all()

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        self.tally.count(name, amount, labels)

    def gauge(self, name: str, value: float | None, /, **labels: object) -> None:
        self.tally.gauge(name, value, labels)

    def close(self) -> None:
        self.closed = True

    def _call(self, name: str) -> None:
        if self.closed:
            raise SinkClosed("closed")
        with self._changed:
            self.calls.append(name)
            self._changed.notify_all()

    def _set(self, changes: Sequence[tuple[str, Condition, str | None]]) -> None:
        with self._changed:
            for gpu, condition, action in changes:
                check_condition(condition)
                check_action(action or "")
                if condition.type not in self._types:
                    raise InvalidArgument("condition.type", "not declared")
                if gpu not in self.specs:
                    raise NotFound(f"no GPU {gpu}")
            for gpu, condition, action in changes:
                held = self._actions.get(gpu, "")
                before = self._state.setdefault(gpu, {}).get(condition.type), held
                now = condition, held if action is None else action
                if before != now:
                    self._state[gpu][condition.type], self._actions[gpu] = now
                    told = (str(condition.status), condition.reason, condition.message, now[1])
                    said = Said(time.monotonic(), gpu, *told, condition.type)
                    self.all_said.append(said)
            self._changed.notify_all()

    def wait(self, holds: Callable[[], object], seconds: float = TIMEOUT) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, seconds), f"{self._state}\n{self.summary}"

    def status(self, gpu: str, type_: str = "NVMLReady") -> tuple[str, str, str]:
        """Status, reason and action."""
        condition = self._state[gpu][type_]
        return str(condition.status), condition.reason, self._actions[gpu]

    def message(self, gpu: str, type_: str = "NVMLReady") -> str:
        return self._state[gpu][type_].message

    def types(self, gpu: str) -> set[str]:
        """What was ever said about the GPU."""
        return set(self._state[gpu])

    def is_(self, gpu: str, status: str, reason: str = "", type_: str = "NVMLReady") -> bool:
        if type_ not in self._state.get(gpu, {}):
            return False
        found = self.status(gpu, type_)
        return found[0] == status and reason in ("", found[1])

    def wait_for(
        self,
        gpu: str,
        status: str,
        reason: str = "",
        seconds: float = TIMEOUT,
        type_: str = "NVMLReady",
    ) -> None:
        self.wait(lambda: self.is_(gpu, status, reason, type_), seconds)

    def keeps(self, happening: Callable[[], None], holds: Callable[[], object]) -> None:
        """Let it happen again and again until it has shown: events may come while the event set is
        being replaced."""
        deadline = time.monotonic() + TIMEOUT
        with self._changed:
            while not holds():
                assert time.monotonic() < deadline, self._state
                happening()
                self._changed.wait_for(holds, 0.05)

    def rest(self, seconds: float = 0.1) -> None:
        """Let the provider say three things, or wait so long."""
        with self._changed:
            enough = len(self.calls) + 3
            self._changed.wait_for(lambda: len(self.calls) >= enough, seconds)

    def polls(self, more: int = 2) -> None:
        """Wait until the provider has looked at everything so many times more."""
        for _ in range(more):
            seen = self.calls.count("set_condition")
            self.wait(lambda n=seen: self.calls.count("set_condition") > n + len(self._state))


class _Update:
    def __init__(self) -> None:
        self.staged: list[tuple[str, Condition, str | None]] = []

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        self.staged.append((gpu, condition, recommended_action))

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        [condition] = conditions
        self.set_condition(gpu, condition, recommended_action=recommended_action)


class Clock:
    """Real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def wall(self) -> float:
        return time.time() + self.ahead

    def add(self, seconds: float) -> None:
        self.ahead += seconds


class Running:
    """A provider in its thread."""

    def __init__(
        self, options: NvmlOptions, sink: RecordingSink, clock: Clock, state_dir: str
    ) -> None:
        self.provider = NvmlProvider(options, state_dir, clock=clock, wall=clock.wall)
        self.sink = sink
        self.clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self._thread.start()

    def _run(self) -> None:
        try:
            self.provider.run(self.sink, self._stop)
        except BaseException as error:
            self._error = error
            raise

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self._stop.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def stop(self) -> float:
        """Returns how long that took, in seconds."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        assert self._error is None
        return time.monotonic() - began


class Bench:
    """A simulated node and the providers that run on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Running] = []
        self.clock = Clock()
        self.call_seconds = 0.4
        self.state_dir: Path | None = None
        self.nodes: list[FakeNode] = []
        self._closed = 0

    def node(self, name: str = "node", **how: object) -> FakeNode:
        node = FakeNode.create(self._directory / name, **{"gpus": 2, **how})
        self.nodes.append(node)
        return node

    def start(self, root: FakeNode | Path, sink: RecordingSink | None = None, **options) -> Running:
        root = root.root if isinstance(root, FakeNode) else root
        quick = {
            "poll_seconds": 0.1,
            "call_seconds": self.call_seconds,
            "retry_seconds": 0.2,
            "rare_seconds": 0.1,
        }
        settings = NvmlOptions(driver_root=str(root), **{**quick, **options})
        state_dir = str(self.state_dir) if self.state_dir else ""
        running = Running(settings, sink or RecordingSink(), self.clock, state_dir)
        self._running.append(running)
        return running

    def ready(self, root: FakeNode, **options) -> Running:
        """Started, and everything has been reported."""
        running = self.start(root, **options)
        running.sink.wait(lambda: running.sink.is_synced)
        return running

    def close(self) -> None:
        for node in self.nodes[self._closed :]:
            node.calls.clear()
        for running in self._running:
            running.end()
        for node in self.nodes[self._closed :]:
            node.calls.fail("nvmlEventSetWait", 2)  # ends the waits that are in progress
        for running in self._running:
            running.stop()
        deadline = time.monotonic() + TIMEOUT
        for thread in threading.enumerate():
            if thread.name.startswith("nvml"):
                thread.join(max(0.0, deadline - time.monotonic()))
                assert not thread.is_alive(), thread.name
        for node in self.nodes[self._closed :]:
            node.close()
        self._closed = len(self.nodes)
        self._running.clear()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    it = Bench(tmp_path)
    yield it
    it.close()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()
