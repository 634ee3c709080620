"""The client against a server that answers by script: deadlines, errors, streams."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from device_api_core._proto import admin_pb2, gpu_pb2, provider_pb2
from device_api_core.client import Clientset, EventType
from device_api_core.client.admin import Event, Forgotten, ProviderInfo, ServerInfo
from device_api_core.client.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    NotServed,
    PermissionDenied,
    RpcFailed,
    Unavailable,
    Unreachable,
    WatchExpired,
)
from device_api_core.client.v1alpha1 import Registration
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

METHODS = {
    method.name: (service.full_name, method)
    for file in (gpu_pb2, provider_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
MESSAGES = {**vars(gpu_pb2), **vars(provider_pb2), **vars(admin_pb2)}

Answer = Callable[[Any, grpc.ServicerContext], Any]


@dataclass
class ScriptedServer(grpc.GenericRpcHandler):
    """Answers each method by its script, and keeps the requests. Others are unimplemented."""

    target: str
    scripts: dict[str, Answer] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)

    def on(self, method: str, answer: Any) -> None:
        self.scripts[method] = answer if callable(answer) else lambda request, context: answer

    def refuse(self, method: str, status: str, message: str = "no", reason: str = "") -> None:
        def answer(request: Any, context: grpc.ServicerContext) -> None:
            if reason:
                context.set_trailing_metadata((("device-api-reason", reason),))
            context.abort(grpc.StatusCode[status], message)

        self.scripts[method] = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, name = details.method.removeprefix("/").rpartition("/")
        if name not in self.scripts or METHODS[name][0] != service:
            return None
        method = METHODS[name][1]

        def behave(request: Any, context: grpc.ServicerContext) -> Any:
            self.requests.append(request)
            return self.scripts[name](request, context)

        kind = (
            grpc.unary_stream_rpc_method_handler
            if name == "WatchGpus"
            else grpc.unary_unary_rpc_method_handler
        )
        return kind(
            behave,
            request_deserializer=MESSAGES[method.input_type.name].FromString,
            response_serializer=MESSAGES[method.output_type.name].SerializeToString,
        )


@pytest.fixture
def server(tmp_path) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer(f"unix://{tmp_path}/s.sock")
    with ThreadPoolExecutor(4) as threads:
        running = grpc.server(threads, handlers=[scripted])
        running.add_insecure_port(scripted.target)
        running.start()
        yield scripted
        running.stop(0).wait()


@pytest.fixture
def clients(server) -> Iterator[Clientset]:
    with Clientset.connect(server.target) as connected:
        yield connected


def gpu_message(name="gpu-a", version=7, **status: Any) -> gpu_pb2.Gpu:
    return gpu_pb2.Gpu(
        metadata=gpu_pb2.ObjectMeta(name=name, resource_version=str(version)),
        status=gpu_pb2.GpuStatus(**status),
        resource_version=version,
    )


def test_get_returns_a_frozen_gpu(server, clients):
    server.on("GetGpu", gpu_pb2.GetGpuResponse(gpu=gpu_message()))
    gpu = clients.v1alpha1.gpus.get("gpu-a")
    assert (gpu.name, gpu.metadata.resource_version) == ("gpu-a", 7)
    assert gpu.ready is ConditionStatus.UNKNOWN
    assert server.requests == [gpu_pb2.GetGpuRequest(name="gpu-a")]


def test_list_is_sorted_and_carries_the_version_of_the_snapshot(server, clients):
    items = [gpu_message("gpu-b"), gpu_message("gpu-a")]
    listed = gpu_pb2.GpuList(metadata=gpu_pb2.ListMeta(resource_version="9"), items=items)
    server.on("ListGpus", gpu_pb2.ListGpusResponse(gpu_list=listed))
    found = clients.v1alpha1.gpus.list()
    assert [gpu.name for gpu in found.items] == ["gpu-a", "gpu-b"]
    assert found.resource_version == 9


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("NOT_FOUND", NotFound),
        ("ALREADY_EXISTS", AlreadyExists),
        ("FAILED_PRECONDITION", Conflict),
        ("PERMISSION_DENIED", PermissionDenied),
        ("RESOURCE_EXHAUSTED", LimitExceeded),
        ("OUT_OF_RANGE", WatchExpired),
        ("UNAVAILABLE", Unavailable),
        ("INTERNAL", RpcFailed),
    ],
)
def test_a_status_becomes_the_error_that_the_server_meant(server, clients, status, kind):
    server.refuse("GetGpu", status, "gpu-a: told so", reason="rate")
    with pytest.raises(kind) as caught:
        clients.v1alpha1.gpus.get("gpu-a")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.reason) == ("gpu-a: told so", "rate")


@pytest.mark.parametrize(
    ("message", "field", "rule"),
    [
        ("status.conditions[0].type: must not be empty", "status.conditions[0].type", "must not"),
        ("name is required", "request", "name is required"),
        ("Some words: and more", "request", "Some words: and more"),
    ],
)
def test_an_invalid_argument_names_its_field(server, clients, message, field, rule):
    server.refuse("GetGpu", "INVALID_ARGUMENT", message)
    with pytest.raises(InvalidArgument) as caught:
        clients.v1alpha1.gpus.get("")
    assert caught.value.field == field
    assert caught.value.rule.startswith(rule)


def test_a_server_that_says_unavailable_is_not_unreachable(server, clients):
    server.refuse("ListGpus", "UNAVAILABLE", "waits for nvml")
    with pytest.raises(Unavailable, match="waits for nvml") as caught:
        clients.v1alpha1.gpus.list()
    assert not isinstance(caught.value, Unreachable)


def test_nobody_listening_is_unreachable_at_once(tmp_path):
    target = f"unix://{tmp_path}/none.sock"
    with Clientset.connect(target) as clients, pytest.raises(Unreachable) as caught:
        clients.v1alpha1.gpus.list()
    assert caught.value.target == target


def test_every_unary_call_has_a_deadline(server):
    release = threading.Event()
    server.on("ListGpus", lambda request, context: release.wait(30))
    with Clientset.connect(server.target, timeout_seconds=0.1) as clients:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
            clients.v1alpha1.gpus.list()
        release.set()


def test_an_endpoint_without_the_service_says_so(clients):
    with pytest.raises(NotServed, match="does not offer this service"):
        clients.admin.list_providers()


def test_writes_go_to_the_provider_endpoint(server, tmp_path):
    server.on("Heartbeat", provider_pb2.HeartbeatResponse(acknowledged=True))
    elsewhere = f"{tmp_path}/elsewhere.sock"
    with Clientset.connect(elsewhere, provider_target=server.target) as clients:
        assert clients.v1alpha1.providers.heartbeat("fan", ["gpu-a"]) is True
        with pytest.raises(Unreachable):
            clients.v1alpha1.gpus.list()
    assert server.requests == [
        provider_pb2.HeartbeatRequest(provider_id="fan", gpu_names=["gpu-a"])
    ]


def test_a_provider_writes_through_typed_values(server, clients):
    server.on("RegisterGpu", provider_pb2.RegisterGpuResponse(created=True, resource_version=1))
    server.on("UpdateGpuStatus", provider_pb2.UpdateGpuStatusResponse(resource_version=2))
    server.on("UpdateGpuCondition", provider_pb2.UpdateGpuConditionResponse(resource_version=3))
    server.on("UnregisterGpu", provider_pb2.UnregisterGpuResponse(deleted=True))
    providers = clients.v1alpha1.providers
    fan = Condition("example.com/FanHealthy", ConditionStatus.FALSE, "Stuck", "stuck", 1_500)
    status = GpuStatus((fan,), "CUSTOM")

    spec = GpuSpec(uuid="GPU-A", index=0)
    registered = providers.register("gpu-a", spec, provider_id="fan", initial_status=status)
    assert registered == Registration(created=True, resource_version=1)
    assert providers.update_status("gpu-a", status, provider_id="fan") == 2
    assert providers.update_condition("gpu-a", fan, provider_id="fan") == 3
    assert providers.unregister("gpu-a", provider_id="fan") is True

    register, update, condition, unregister = server.requests
    assert register.spec.HasField("index")
    assert not register.spec.HasField("minor")
    assert register.initial_status == update.status
    assert condition.condition.last_transition_time.nanos == 1_500
    assert condition.condition.status == "False"
    assert {r.provider_id for r in server.requests} == {"fan"}
    assert unregister.name == "gpu-a"


def test_an_operator_sees_and_acts_through_typed_values(server, clients):
    response = admin_pb2.ListProvidersResponse(
        providers=[admin_pb2.Provider(name="nvml", state="running"), admin_pb2.Provider(name="a")],
        server=admin_pb2.ServerInfo(version="1", ready=True),
    )
    server.on("ListProviders", response)
    server.on("ClearCondition", admin_pb2.ClearConditionResponse(resource_version=4))
    server.on("ForgetProvider", admin_pb2.ForgetProviderResponse(gpus=1, conditions=2))
    server.on("ForgetGpu", admin_pb2.ForgetGpuResponse(deleted=False))
    event = admin_pb2.Event(sequence=1, severity="Normal", reason="Started")
    server.on("ListEvents", admin_pb2.ListEventsResponse(events=[event]))

    listed = clients.admin.list_providers()
    assert listed.providers == (ProviderInfo("a"), ProviderInfo("nvml", state="running"))
    assert listed.server == ServerInfo("1", ready=True)
    assert clients.admin.clear_condition("gpu-a", "XidHealthy") == 4
    assert clients.admin.forget_provider("fan") == Forgotten(gpus=1, conditions=2)
    assert clients.admin.forget_gpu("gpu-a") is False
    assert clients.admin.list_events(limit=1) == (Event(1, None, "Normal", "Started"),)


def event_message(kind: str, version: int) -> gpu_pb2.WatchGpusResponse:
    return gpu_pb2.WatchGpusResponse(type=kind, object=gpu_message(version=version))


def test_a_watch_yields_events_until_it_is_closed(server, clients):
    closed = threading.Event()

    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(closed.set)
        yield event_message("ADDED", 1)
        yield event_message("BOOKMARK", 2)
        closed.wait(30)

    server.on("WatchGpus", answer)
    watch = clients.v1alpha1.gpus.watch(5, allow_bookmarks=True)
    with closing(watch):
        seen = [next(watch), next(watch)]
    assert [(e.type, e.resource_version) for e in seen] == [
        (EventType.ADDED, 1),
        (EventType.BOOKMARK, 2),
    ]
    assert list(watch) == []
    assert closed.wait(5)
    options = gpu_pb2.ListOptions(resource_version="5", allow_watch_bookmarks=True)
    assert server.requests == [gpu_pb2.WatchGpusRequest(opts=options)]


def test_closing_a_watch_ends_a_reader_that_is_blocked(server, clients):
    open_ = threading.Event()

    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        ended = threading.Event()
        context.add_callback(ended.set)
        open_.set()
        ended.wait(30)
        yield from ()

    server.on("WatchGpus", answer)
    watch = clients.v1alpha1.gpus.watch()
    reader = threading.Thread(target=lambda: list(watch))
    reader.start()
    assert open_.wait(5)
    watch.close()
    reader.join(5)
    assert not reader.is_alive()


def test_a_watch_that_the_server_ends_raises_why(server, clients):
    server.refuse("WatchGpus", "RESOURCE_EXHAUSTED", "too slow", reason="slow-watcher")
    with clients.v1alpha1.gpus.watch() as watch, pytest.raises(LimitExceeded) as caught:
        next(watch)
    assert caught.value.reason == "slow-watcher"


def test_a_watch_never_ends_in_silence(server, clients):
    server.on("WatchGpus", lambda request, context: iter(()))
    with clients.v1alpha1.gpus.watch() as watch, pytest.raises(Unavailable, match="ended"):
        next(watch)


def test_an_event_of_an_unknown_type_is_an_error(server, clients):
    server.on("WatchGpus", lambda request, context: iter([event_message("ERROR", 1)]))
    with clients.v1alpha1.gpus.watch() as watch, pytest.raises(RpcFailed, match="'ERROR'"):
        next(watch)
