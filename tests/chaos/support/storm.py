"""A storm: a real server, providers and consumers in processes of their own, and what befalls them
by plan."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import consumers
from judge import violations
from plan import SERVER, Act, Fault, plan
from process import Server
from proxy import Road, Roads
from records import Recorder, Story, lines, load, now
from writers import Post, provide

from device_api_core.client import Clientset

ACTORS: dict[str, Callable[[Post], None]] = {
    **{f"provider-{i}": provide for i in range(3)},
    "reader-0": consumers.read,
    "reader-1": consumers.read,
    "watcher-0": consumers.watch,
    "watcher-1": consumers.watch,
    "informer-0": consumers.inform,
    "informer-1": consumers.inform_aio,
}
ON_A_ROAD = frozenset({"provider-1", "provider-2", "reader-1", "watcher-1", "informer-1"})
"""The others reach the server's sockets themselves."""
CALM_SECONDS = 60.0
"""In which all must be well again."""
_PATIENCE = 3.0
"""How much longer than planned a storm may take on a slow machine."""
_TELL_SECONDS = 10.0
_FOLLOWERS = ("watcher", "informer")
_SIGNALS = {Act.STOP: signal.SIGSTOP, Act.GO_ON: signal.SIGCONT}
_PRELOAD = [
    "device_api_core.client",
    "device_api_core.client.aio.clientset",
    "device_api_core.client.aio._generated",
]


@dataclass
class Outcome:
    """What a storm did, and what the judge found."""

    acts: Counter[str]
    story: Story
    found: list[str]

    def __str__(self) -> str:
        return "\n".join(f"{name:24} {number:>9,}" for name, number in self._figures())

    def _figures(self) -> Iterator[tuple[str, int]]:
        for word in sorted(self.acts):
            yield word, self.acts[word]
        story = self.story
        yield "kills in all", _kills(self.acts)
        yield "writes", len(story.writes)
        yield "writes acknowledged", sum(1 for w in story.writes if w.end)
        yield "reads", len(story.reads)
        yield "watches", len(story.streams)
        yield "watch events", sum(len(s.events) for s in story.streams)
        yield "informers", len(story.told)
        yield "informers' changes", sum(map(len, story.told))
        yield "violations", len(self.found)


def storm(
    seed: int, seconds: float, transport: str, records: Path, tell: Callable[[str], None]
) -> Outcome:
    """Run one, recorded in that folder, and judge it. Raises ``AssertionError`` if all is not well
    again in time, or a server had a defect."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as directory, ExitStack() as stack:
        running = Storm(Path(directory), records, seed, transport, stack)
        running.rage(plan(seed, seconds, tuple(ACTORS)), seconds * _PATIENCE, tell)
        tell("all is over, and everybody has to learn the truth")
        running.calm()
    tell("judging")
    story = load(records)
    return Outcome(running.acts, story, violations(story))


def _kills(acts: Counter[str]) -> int:
    return sum(n for act, n in acts.items() if act.startswith(Act.KILL))


class Storm:
    """Everything lives in one directory and is recorded in another."""

    def __init__(
        self, directory: Path, records: Path, seed: int, transport: str, stack: ExitStack
    ) -> None:
        self.acts: Counter[str] = Counter()
        self._directory = directory
        self._records = records
        self._seed = seed
        self._arguments = (f"--state-dir={directory}/state", f"--transport={transport}")
        self._processes: dict[str, ForkServerProcess] = {}
        self._starts: Counter[str] = Counter()
        self._roads: dict[str, tuple[Road, ...]] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        self._kills = Recorder(self._record(SERVER))
        stack.callback(self._kills.close)
        self._server = Server(directory, *self._arguments)
        roads = stack.enter_context(Roads())
        for name in ON_A_ROAD:
            self._roads[name] = (
                roads.build(directory / f"{name}.c", directory / "gpu.sock"),
                roads.build(directory / f"{name}.p", directory / "provider.sock"),
            )
        stack.callback(self._end)
        for name in ACTORS:
            self._start(name)
        self._wait_served()

    def rage(self, faults: list[Fault], deadline: float, tell: Callable[[str], None]) -> None:
        """Let everything happen in the order and with the pauses of the plan. Time in which all
        waits for a server to start does not count, so that a slow machine has less of it to do in
        a second, and not less in all. No later than the deadline."""
        began = told = time.monotonic()
        waited = 0.0
        for done, fault in enumerate(faults):
            time.sleep(max(0.0, began + waited + fault.at - time.monotonic()))
            passed = time.monotonic() - began
            if passed > deadline:
                return tell(f"too slow: {len(faults) - done} acts of the plan are left out")
            if began + passed > told + _TELL_SECONDS:
                told = began + passed
                tell(f"{passed:.0f} s: {_kills(self.acts)} kills, {done} of {len(faults)} acts")
            self._do(fault)
            if fault.served:
                waited += self._wait_served()
        return None

    def _wait_served(self) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        self._server.said("serving")
        return time.monotonic() - began

    def calm(self) -> None:
        """Nothing goes wrong any more: wait until everybody knows the truth."""
        for name in self._processes:
            self._signal(name, Act.GO_ON)
        self._server.signal(signal.SIGCONT)
        for road in (road for roads in self._roads.values() for road in roads):
            road.slow(0.0)
        self._until.touch()
        ends = time.monotonic() + CALM_SECONDS
        for name, process in self._processes.items():
            if not name.startswith(_FOLLOWERS):
                process.join(max(0.1, ends - time.monotonic()))
                assert process.exitcode == 0, f"{name} ended with {process.exitcode}"
        for name in filter(lambda name: name.startswith(_FOLLOWERS), ACTORS):
            # Asked each time, for the leases of providers that are over run out meanwhile.
            while self._last_seen(name) != (truth := self._versions()):
                assert time.monotonic() < ends, f"{name} never learnt the truth, {truth}"
                time.sleep(0.1)
        assert not self._server.tracebacks, self._server.text

    def _do(self, fault: Fault) -> None:
        target = fault.target
        if fault.act in {Act.SLOW, Act.CUT}:
            if target not in self._roads:
                return
            for road in self._roads[target]:
                road.cut() if fault.act is Act.CUT else road.slow(fault.seconds)
        elif fault.act is not Act.KILL:
            self._signal(target, fault.act)
        elif target == SERVER:
            self._restart()
        else:
            self._processes[target].kill()
            self._processes[target].join()
            self._start(target)
        self.acts[f"{fault.act} {target.partition('-')[0]}"] += 1

    def _signal(self, target: str, act: Act) -> None:
        if target == SERVER:
            self._server.signal(_SIGNALS[act])
        else:
            pid = self._processes[target].pid
            assert pid is not None
            os.kill(pid, _SIGNALS[act])

    def _restart(self) -> None:
        self._server.signal(signal.SIGKILL)
        self._server.exit_code()
        # What was answered before is of the old server, what is asked after is of the new one.
        self._kills.note("kill", now())
        assert not self._server.tracebacks, self._server.text
        self._server.__exit__()
        self._server = Server(self._directory, *self._arguments)

    def _start(self, name: str) -> None:
        road = name in self._roads
        post = Post(
            name,
            self._starts[name],
            self._seed,
            self._record(name),
            f"unix:{self._directory}/{f'{name}.c' if road else 'gpu.sock'}",
            f"unix:{self._directory}/{f'{name}.p' if road else 'provider.sock'}",
            self._until,
        )
        self._starts[name] += 1
        process = self._context.Process(target=_act, args=(ACTORS[name], post), daemon=True)
        process.start()
        self._processes[name] = process

    @property
    def _until(self) -> Path:
        return self._directory / "over"

    def _record(self, name: str) -> Path:
        return self._records / f"{name}.jsonl"

    def _versions(self) -> dict[str, int]:
        with Clientset.connect(f"unix:{self._directory}/gpu.sock") as clients:
            gpus = clients.v1alpha1.gpus.list().items
        return {gpu.name: gpu.metadata.resource_version for gpu in gpus}

    def _last_seen(self, name: str) -> dict[str, int]:
        """The versions that a follower saw last."""
        last: dict[str, int] = {}
        for kind, *facts in lines(self._record(name)):
            if kind in {"stream_from", "change", "event"}:
                states = facts[1] if kind == "stream_from" else facts[1:]
                last.update((gpu, version) for gpu, version, _ in states)
        return last

    def _end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()
        self._server.__exit__()


def _act(role: Callable[[Post], None], post: Post) -> None:
    # A client says what it lost, which here is everything all the time.
    logging.disable(logging.WARNING)
    role(post)
