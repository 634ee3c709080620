"""A server that follows a script, and a handler that holds it to a consistent history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from device_api_core._proto import gpu_pb2 as pb
from device_api_core.client.errors import (
    DeadlineExceeded,
    LimitExceeded,
    RpcFailed,
    Unavailable,
    Unreachable,
    WatchExpired,
)
from device_api_core.client.watch import Watch
from device_api_core.conversion import gpu_to_proto
from device_api_core.resources import Condition, ConditionStatus, Gpu, GpuStatus, ObjectMeta

NAMES = [f"gpu-{c}" for c in "abcd"]

ERRORS: dict[str, Callable[[], Exception]] = {
    "unreachable": lambda: Unreachable("gone", target="scripted"),
    "unavailable": lambda: Unavailable("not ready"),
    "late": lambda: DeadlineExceeded("late", target="scripted"),
    "defect": lambda: RpcFailed("oh", status="INTERNAL"),
    "slow": lambda: LimitExceeded("slow", reason="slow-watcher"),
    "full": lambda: LimitExceeded("full", reason="watcher-limit"),
    "expired": lambda: WatchExpired("expired"),
}

Action = tuple[Any, ...]

ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(NAMES), st.sampled_from(list(ConditionStatus))),
    st.tuples(st.just("set"), st.sampled_from(NAMES), st.sampled_from(list(ConditionStatus))),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("bookmark")),
    st.tuples(st.just("deliver"), st.integers(1, 5)),
    st.tuples(st.just("break"), st.sampled_from(sorted(ERRORS))),
    st.tuples(st.just("compact")),
    st.tuples(st.just("restart"), st.sets(st.sampled_from(NAMES)), st.booleans()),
)
"""What may happen: changes, progress of the handlers, breaks of the stream or of a list, a history
that is dropped, and a server that starts anew with some GPUs, with or without higher versions."""


@dataclass
class ScriptedServer:
    """Does the next action of its script whenever the client would have to wait for it, and when a
    list is asked for. ``over`` is called when the script is done and the client has seen it all."""

    script: list[Action]
    over: Callable[[], object]
    deliver: Callable[[int], object] = lambda count: None
    target: str = "scripted"
    version: int = 1_000_000
    floor: int = 1_000_000
    truth: dict[str, Gpu] = field(default_factory=dict)
    history: list[tuple[int, pb.WatchGpusResponse]] = field(default_factory=list)
    lists: int = 0

    # --- what the reflector calls

    def call(self, unary: Any, timeout_seconds: Any = None, stop: Any = None) -> Any:
        self.lists += 1
        # Things happen between two calls of a client, too.
        self.act()
        listed = pb.GpuList(
            metadata=pb.ListMeta(resource_version=str(self.version)),
            items=[gpu_to_proto(gpu) for gpu in self.truth.values()],
        )
        return unary.convert(pb.ListGpusResponse(gpu_list=listed))

    def stream(self, streaming: Any) -> Watch[Any]:
        return Watch(_Stream(self, self.frames(streaming)), streaming.convert, _never)

    def frames(self, streaming: Any) -> Iterator[pb.WatchGpusResponse]:
        since = int(streaming.request.opts.resource_version)
        if not self.floor <= since <= self.version:
            raise WatchExpired("no such version")
        while True:
            waiting = [(v, frame) for v, frame in self.history if v > since]
            if waiting:
                since = waiting[0][0]
                yield waiting[0][1]
            elif not self.script:
                self.over()
                return
            elif self.act() == "bookmark":
                meta = pb.ObjectMeta(resource_version=str(self.version))
                yield pb.WatchGpusResponse(type="BOOKMARK", object=pb.Gpu(metadata=meta))
            elif since < self.floor:
                raise WatchExpired("fell out of the history")

    # --- what happens

    def act(self) -> str:
        if not self.script:
            return ""
        kind, *how = self.script.pop(0)
        getattr(self, f"do_{kind}")(*how)
        return kind

    def do_set(self, name: str, status: ConditionStatus) -> None:
        known = name in self.truth
        self.version += 1
        gpu = Gpu(ObjectMeta(name, self.version), status=GpuStatus((Condition("Ready", status),)))
        self.truth[name] = gpu
        self.publish("MODIFIED" if known else "ADDED", gpu)

    def do_remove(self, name: str) -> None:
        gpu = self.truth.pop(name, None)
        if gpu is not None:
            self.version += 1
            self.publish("DELETED", Gpu(ObjectMeta(name, self.version), gpu.spec, gpu.status))

    def do_bookmark(self) -> None:
        pass

    def do_deliver(self, count: int) -> None:
        self.deliver(count)

    def do_break(self, error: str) -> None:
        raise ERRORS[error]()

    def do_compact(self) -> None:
        self.floor = self.version
        self.history.clear()

    def do_restart(self, kept: set[str], higher: bool) -> None:
        # Lower is what the server never does; so much lower, a client must still notice. A server
        # that gives one version to two states cannot be followed by anybody.
        self.version = self.version + (1_000 if higher else -1_000)
        self.truth = {
            name: Gpu(
                ObjectMeta(name, min(self.version, gpu.metadata.resource_version)),
                gpu.spec,
                gpu.status,
            )
            for name, gpu in self.truth.items()
            if name in kept
        }
        self.do_compact()
        raise Unreachable("restarting", target="scripted")

    def publish(self, kind: str, gpu: Gpu) -> None:
        self.history.append(
            (self.version, pb.WatchGpusResponse(type=kind, object=gpu_to_proto(gpu)))
        )


class _Stream:
    def __init__(self, server: ScriptedServer, frames: Iterator[Any]) -> None:
        self._frames = frames

    def __next__(self) -> Any:
        return next(self._frames)

    def cancel(self) -> None:
        pass


def _never(error: BaseException) -> Any:
    raise AssertionError(error)


class Witness:
    """Handlers that follow every object and assert that what they are told continues what they were
    told before."""

    def __init__(self) -> None:
        self.objects: dict[str, Gpu] = {}

    def on_add(self, gpu: Gpu) -> None:
        assert gpu.name not in self.objects
        self.objects[gpu.name] = gpu

    def on_update(self, old: Gpu, new: Gpu) -> None:
        assert old.name == new.name
        assert self.objects[old.name] is old
        self.objects[old.name] = new

    def on_delete(self, gpu: Gpu) -> None:
        assert self.objects.pop(gpu.name) is gpu
