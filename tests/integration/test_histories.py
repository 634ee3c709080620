"""What many clients do and see at once must be what one server in one order can have done."""

import itertools
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import Held, History, Read, State, Watched, Write, violations
from installed import Installed
from process import Server
from wire import Api

logger = logging.getLogger(__name__)

# --- the judge itself


def good_history() -> History:
    """Two GPUs, two writers, a reader, a held update: nothing wrong with it."""
    a1, b2 = State("a", 1, {"X": "a1"}), State("b", 2, {"X": "b2"})
    a3 = State("a", 3, {"X": "a3"})
    b4 = State("b", 4, {"X": "b4"})
    a5, b6 = State("a", 5, {"X": "a3", "H": "h"}), State("b", 6, {"X": "b4", "H": "h"})
    return History(
        initial=(a1, b2),
        truth=(a3, b4, a5, b6),
        writes=[Write(10, 20, "a", "X", "a3", 3), Write(15, 40, "b", "X", "b4", 4)],
        reads=[
            Read(5, 12, (a1,)),
            Read(11, 16, (a3,)),
            Read(21, 30, (a3, b2), version=3),
            Read(22, 39, (b4,)),
            Read(55, 70, (a5, b6), version=6),
            Read(56, 71, (b6,)),
        ],
        held=[Held(50, 60, 65, "H", {"a": "h", "b": "h"})],
        watches=[Watched(2, (a3, b4, a5)), Watched(4, (a5, b6)), Watched(6, ())],
    )


def with_read(index: int, **changes: Any) -> Callable[[History], None]:
    def change(history: History) -> None:
        history.reads[index] = replace(history.reads[index], **changes)

    return change


def with_write(index: int, **changes: Any) -> Callable[[History], None]:
    def change(history: History) -> None:
        history.writes[index] = replace(history.writes[index], **changes)

    return change


def adding(read: Read) -> Callable[[History], None]:
    return lambda history: history.reads.append(read)


def with_watch(index: int, events: slice) -> Callable[[History], None]:
    def change(history: History) -> None:
        watch = history.watches[index]
        history.watches[index] = replace(watch, events=watch.events[events])

    return change


A1, A3 = State("a", 1, {"X": "a1"}), State("a", 3, {"X": "a3"})
B2, B4 = State("b", 2, {"X": "b2"}), State("b", 4, {"X": "b4"})
A5 = State("a", 5, {"X": "a3", "H": "h"})

LIES: dict[str, Callable[[History], None]] = {
    "a read older than an acknowledged write": adding(Read(21, 22, (A1,))),
    "a read older than an earlier read": adding(Read(17, 18, (A1,))),
    "a read of what was not written yet": adding(Read(1, 9, (A3,))),
    "a read of what never was": adding(Read(21, 22, (State("a", 3, {"X": "else"}),))),
    "a read of another version's text": adding(Read(21, 22, (State("a", 3, {"X": "a1"}),))),
    "a read of an unknown GPU": adding(Read(21, 22, (State("c", 1, {}),))),
    "a snapshot with a newer part": adding(Read(30, 41, (A3, B4), version=3)),
    "a snapshot with an older part": adding(Read(30, 41, (A3, B2), version=4)),
    "a snapshot without a GPU": adding(Read(30, 41, (A3,), version=3)),
    "a snapshot older than an acknowledged write": adding(Read(41, 42, (A3, B2), version=3)),
    "a snapshot with half of a held update": adding(Read(61, 62, (A5, B4), version=5)),
    "a read that did not wait": adding(Read(51, 52, (B4,))),
    "a read that waited and saw the old state": adding(Read(51, 66, (B4,))),
    "a read after a held update that saw the old state": adding(Read(66, 67, (B4,))),
    "an acknowledged write that nobody saw": with_write(0, text="lost"),
    "a write with another version than its event": with_write(0, version=4),
    "writes out of order": with_write(0, start=41, end=42),
    "a watch with a gap": with_watch(0, slice(0, 3, 2)),
    "a watch that begins too late": with_watch(0, slice(1, 3)),
    "a watch with a repeat": lambda h: h.watches.append(Watched(2, (A3, A3))),
    "a watch out of order": lambda h: h.watches.append(Watched(2, (B4, A3))),
    "a held update that nobody saw": lambda h: h.held.append(Held(80, 81, 82, "H", {"a": "no"})),
    "a version that was skipped": lambda h: setattr(h, "truth", (h.truth[0], *h.truth[2:])),
}


def test_the_judge_accepts_a_good_history() -> None:
    assert violations(good_history()) == []


@pytest.mark.parametrize("lie", LIES)
def test_the_judge_finds(lie: str) -> None:
    history = good_history()
    LIES[lie](history)
    assert violations(history)


# --- real clients

GPUS = ("gpu-0", "gpu-1", "gpu-2", "gpu-3")
WRITERS = 3
READERS = 3

HOLDER = """
import json, random
from device_api_core.errors import LimitExceeded

class Holder(Base):
    name = "holder"
    types = ("HolderHealthy",)

    def run(self, sink, stop):
        gpus = list(self.options["gpus"])
        for gpu in gpus:
            sink.register(gpu, GpuSpec())
            sink.set_condition(gpu, Condition("HolderHealthy", TRUE, "", "hold-0"))
        sink.synced()
        with open(self.options["log"], "a", buffering=1) as log:
            for n in range(1, 1_000_000):
                if stop.wait(self.options["pause"]):
                    return
                gpus = random.sample(gpus, len(gpus))
                self.hold(sink, log, n, gpus[:2])

    def hold(self, sink, log, n, gpus):
        aborted = n % 4 == 0
        if aborted:
            for gpu in gpus:
                text = f"hold-{n}-before-{gpu}"
                start = time.monotonic_ns()
                sink.set_condition(gpu, Condition("HolderHealthy", TRUE, "", text))
                end = time.monotonic_ns()
                self.note(log, write=[start, end, gpu, "HolderHealthy", text])
        text = f"hold-{n}"
        try:
            with sink.update(*gpus) as update:
                start = time.monotonic_ns()
                time.sleep(random.uniform(0.001, 0.005))
                for gpu in gpus:
                    update.set_condition(gpu, Condition("HolderHealthy", FALSE, "", text))
                end = time.monotonic_ns()
                if aborted:
                    raise RuntimeError(text)
        except LimitExceeded:
            return  # the last one lasted longer than the pause: not yet
        except RuntimeError:
            text = f"the provider's update was aborted: RuntimeError: {text}"
        done = time.monotonic_ns()
        self.note(log, held=[start, end, done, "HolderHealthy", dict.fromkeys(gpus, text)])

    def note(self, log, **entry):
        log.write(json.dumps(entry) + "\\n")

@hookimpl
def device_api_provider(options):
    return Holder(options)
"""


def state_of(gpu: Any) -> State:
    values = {c.type: c.message for c in gpu.status.conditions if c.type != "Ready"}
    return State(gpu.metadata.name, gpu.resource_version, values)


class Clients:
    """Writers, readers and watchers that record what they do and see."""

    def __init__(self, server: Server, operations: int) -> None:
        self._server = server
        self._left = operations
        self._lock = threading.Lock()
        self.history = History()

    def take(self) -> bool:
        """Whether there is one more operation to do."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def write(self, index: int) -> None:
        api, choose = self._server.api(), random.Random(index)
        type_ = f"Type{index}"
        for n in itertools.count():
            if not self.take():
                return
            gpu, text = choose.choice(GPUS), f"writer-{index}-{n}"
            status = choose.choice(("True", "False", "Unknown"))
            start = time.monotonic_ns()
            version = api.set(gpu, type_, status, f"writer-{index}", message=text)
            end = time.monotonic_ns()
            self.history.writes.append(Write(start, end, gpu, type_, text, version))

    def read(self, index: int) -> None:
        api, choose = self._server.api("consumer"), random.Random(-index)
        while self.take():
            start = time.monotonic_ns()
            kind = choose.random()
            if kind < 0.6:
                states, version = (state_of(api.get(choose.choice(GPUS))),), 0
            elif kind < 0.95:
                listed = api.list()
                states = tuple(map(state_of, listed.items))
                version = int(listed.metadata.resource_version)
            else:
                states, version = self._snapshot_of_a_watch(api)
            self.history.reads.append(Read(start, time.monotonic_ns(), states, version))

    def _snapshot_of_a_watch(self, api: Api) -> tuple[tuple[State, ...], int]:
        watch = api.watch(allow_watch_bookmarks=True, send_initial_events=True)
        states = []
        while (event := watch.next()).type == "ADDED":
            states.append(state_of(event.object))
        watch.cancel()
        return tuple(states), int(event.object.metadata.resource_version)

    def watch_from_the_start(self, watch: Any, until: Callable[[], int]) -> None:
        events = []
        while not until() or events[-1].version < until():
            events.append(state_of(watch.next().object))
        self.history.truth = tuple(events)

    def watch_with_breaks(self, since: int, until: Callable[[], int]) -> None:
        api = self._server.api("consumer")
        while not until() or since < until():
            watch, began, events = api.watch(str(since), timeout=600), since, []
            while len(events) < 100 and (not until() or since < until()):
                events.append(state_of(watch.next().object))
                since = events[-1].version
            watch.cancel()
            self.history.watches.append(Watched(began, tuple(events)))


def record(server: Server, log: Path, operations: int) -> History:
    """Let clients do that many operations; returns what they recorded."""
    clients = Clients(server, operations)
    history = clients.history
    final = 0
    start_api = server.api()
    began_at = time.monotonic_ns()
    truth = start_api.watch(timeout=600, allow_watch_bookmarks=True, send_initial_events=True)
    initial = []
    while (event := truth.next()).type == "ADDED":
        initial.append(state_of(event.object))
    history.initial = tuple(initial)
    began = int(event.object.metadata.resource_version)
    with ThreadPoolExecutor(WRITERS + READERS + 3) as pool:
        watching = [
            pool.submit(clients.watch_from_the_start, truth, lambda: final),
            *(pool.submit(clients.watch_with_breaks, began, lambda: final) for _ in range(2)),
        ]
        working = [pool.submit(clients.write, i) for i in range(WRITERS)]
        working += [pool.submit(clients.read, i) for i in range(READERS)]
        try:
            for future in working:
                future.result()
        except BaseException:
            # The watches would wait for a last change that does not come.
            server.process.kill()
            raise
        # One more change, which every watch can wait for.
        finished = time.monotonic_ns()
        final = start_api.set(GPUS[0], "Last", "True", "last", message="last")
        for future in watching:
            future.result(60)
    truth.cancel()
    add_what_the_provider_did(history, log, range(began_at, finished))
    return history


def add_what_the_provider_did(history: History, log: Path, watched: range) -> None:
    """Add the plugin's own record, of the time in which every change was watched."""
    for line in log.read_text().splitlines():
        for kind, facts in json.loads(line).items():
            if kind == "write" and facts[0] in watched and facts[1] in watched:
                history.writes.append(Write(*facts))
            elif kind == "held" and facts[0] in watched and facts[2] in watched:
                history.held.append(Held(*facts))


def run_and_judge(
    start: Callable[..., Server], directory: Path, operations: int, pause: float
) -> History:
    installed = Installed(directory / "plugins").add("holder", HOLDER)
    log = directory / "held.jsonl"
    (directory / "server.toml").write_text(
        f'provider = ["holder"]\n[providers.holder]\ngpus = {json.dumps(GPUS)}\n'
        f'log = "{log}"\npause = {pause}\n'
    )
    server = start(f"--config={directory / 'server.toml'}", plugins=installed.directory)
    history = record(server.wait_serving(), log, operations)
    found = violations(history)
    assert not found, f"{len(found)} violations, first: {found[:3]}"
    assert server.stop() == 0
    return history


def test_a_short_history_of_real_clients(start: Callable[..., Server], directory: Path) -> None:
    history = run_and_judge(start, directory, 4_000, pause=0.02)
    assert history.operations >= 4_000
    assert len(history.held) >= 20
    assert len(history.watches) >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_long_history_of_real_clients(start: Callable[..., Server], directory: Path) -> None:
    history = run_and_judge(start, directory, 110_000, pause=0.02)
    assert history.operations >= 100_000
    counts = {
        name: len(getattr(history, name))
        for name in ("writes", "reads", "held", "watches", "truth")
    }
    logger.info("%d operations without a violation: %s", history.operations, counts)
