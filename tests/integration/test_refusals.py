"""Every bad input: the status, a message that names field and rule, and nothing changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from process import Server
from wire import ADMIN_SERVICE, GPU_SERVICE, METHODS, PROVIDER_SERVICE, Api, condition

from device_api_core._proto import admin_pb2, gpu_pb2, provider_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
TAKEN = grpc.StatusCode.ALREADY_EXISTS
CONFLICT = grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

REQUESTS = {
    method.name: getattr(file, method.input_type.name)
    for file in (gpu_pb2, provider_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
UNARY = sorted(set(METHODS) - {"WatchGpus", "Update"})
NAMED = ["RegisterGpu", "UnregisterGpu", "UpdateGpuStatus", "UpdateGpuCondition", "GetGpu"]
OWNED = ["RegisterGpu", "UnregisterGpu", "UpdateGpuStatus", "UpdateGpuCondition", "Heartbeat"]

BAD_NAMES = ["", "-gpu", "gpu-", ".gpu", "gpu_", "g pu", "gpu/0", "ü", "a" * 254, "gpu\n", "a\0b"]
BAD_TYPES = [
    "",
    "ready",
    "9Fan",
    "Fan Healthy",
    "Fan-Healthy",
    "Example.com/Fan",
    "example.com/",
    "/Fan",
    "example.com/fan",
    "a/b/Fan",
    "F" * 129,
    "Fan\n",
]
BAD_STATUSES = ["", "true", "TRUE", "Maybe", "True ", "1"]


@contextmanager
def refused(api: Api, code: grpc.StatusCode, *words: str) -> Iterator[None]:
    """Expect a refusal whose message has those words and that leaves everything as it was."""
    before = api.list()
    providers = {p.name for p in api.list_providers().providers}
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() is code, caught.value
    for word in words:
        assert word in caught.value.details()
    assert caught.value.details()
    assert api.list() == before
    assert {p.name for p in api.list_providers().providers} == providers


@pytest.fixture(scope="module")
def gpu(api: Api) -> str:
    """A GPU with a condition of each of two owners."""
    api.register("known", "alpha", spec={"uuid": "GPU-known"})
    api.set("known", "Fan", "False", "alpha")
    api.set("known", "Pump", "True", "beta")
    return "known"


@pytest.mark.parametrize("method", [*UNARY, "WatchGpus", "Update"])
def test_bytes_that_are_no_message_are_refused(api: Api, gpu: str, method: str) -> None:
    kind = REQUESTS[method].DESCRIPTOR.name
    for data in (b"\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b"\x0b"):
        if method in ("ListGpus", "WatchGpus", "ListProviders") and data == b"\x0a\x02\xff\xfe":
            continue  # field 1 is no text there
        with refused(api, INVALID, "request", kind):
            if method == "Update":
                call = api.channel.stream_stream(METHODS[method])
                list(call(iter([data]), timeout=10))
            else:
                api.raw(method, data, stream=method == "WatchGpus")


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_gpu_name_is_refused(api: Api, gpu: str, method: str, name: str) -> None:
    request = REQUESTS[method](name=name)
    if method == "UpdateGpuCondition":
        request.condition.CopyFrom(condition("Fan"))
    with refused(api, INVALID, "name: must"):
        api.raw(method, request.SerializeToString())


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_gpu_name_is_refused_under_its_own_field(api: Api, gpu: str, name: str) -> None:
    with refused(api, INVALID, "gpu_names[1]: must"):
        api.heartbeat("alpha", "known", name)
    with refused(api, INVALID, "gpu_name: must"):
        api.clear(name, "Fan")
    with refused(api, INVALID, "name: must"):
        api.raw("ForgetGpu", admin_pb2.ForgetGpuRequest(name=name).SerializeToString())


@pytest.mark.parametrize("method", OWNED)
@pytest.mark.parametrize("provider_id", ["x" * 129, "a\tb", "a\n", "\x7f", "\u200b"])
def test_a_bad_provider_id_is_refused(api: Api, gpu: str, method: str, provider_id: str) -> None:
    request = REQUESTS[method](provider_id=provider_id)
    if method != "Heartbeat":
        request.name = gpu
    if method == "UpdateGpuCondition":
        request.condition.CopyFrom(condition("Fan"))
    with refused(api, INVALID, "provider_id: must"):
        api.raw(method, request.SerializeToString())


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"name": "Xids", "counter": 1}, "name: must be like"),
        ({"name": "xids_total", "counter": 1}, "name: must be like"),
        ({"name": "xids"}, "value: is required"),
        ({"name": "xids", "counter": -1}, "amount: must be a number from 0 up"),
        ({"name": "xids", "gauge": float("inf")}, "value: must be a finite number"),
        ({"name": "xids", "gauge": 1, "labels": {"le": "1"}}, "labels: must have names"),
        ({"name": "xids", "gauge": 1, "labels": {"kind": "x" * 129}}, "labels: must have values"),
        ({"name": "xids", "gauge": 1, "labels": dict.fromkeys("abcde", "")}, "labels: must be at"),
    ],
)
def test_a_metric_that_prometheus_could_not_take_is_refused(
    api: Api, gpu: str, metric: dict[str, Any], words: str
) -> None:
    good = provider_pb2.ProviderMetric(name="good", counter=1)
    request = provider_pb2.HeartbeatRequest(provider_id="new")
    request.numbers.metrics.extend([good, provider_pb2.ProviderMetric(**metric)])
    with refused(api, INVALID, f"numbers.metrics[1].{words}"):
        api.providers.Heartbeat(request)


def test_an_empty_provider_id_cannot_send_heartbeats(api: Api, gpu: str) -> None:
    with refused(api, INVALID, "provider_id: must not be empty"):
        api.heartbeat("")


Sender = Callable[[Api, gpu_pb2.Condition], Any]


def _single(api: Api, c: gpu_pb2.Condition) -> None:
    request = provider_pb2.UpdateGpuConditionRequest(name="known", provider_id="alpha", condition=c)
    api.providers.UpdateGpuCondition(request, timeout=10)


def _whole(api: Api, c: gpu_pb2.Condition) -> None:
    api.set_status("known", condition("Link"), c, provider_id="alpha")


def _initial(api: Api, c: gpu_pb2.Condition) -> None:
    status = gpu_pb2.GpuStatus(conditions=[condition("Link"), c])
    api.register("known", "alpha", initial_status=status)


def _initial_of_a_new_gpu(api: Api, c: gpu_pb2.Condition) -> None:
    status = gpu_pb2.GpuStatus(conditions=[condition("Link"), c])
    api.register("fresh", "alpha", initial_status=status)


SENDERS: list[tuple[Sender, str]] = [
    (_single, "condition"),
    (_whole, "status.conditions[1]"),
    (_initial, "initial_status.conditions[1]"),
    (_initial_of_a_new_gpu, "initial_status.conditions[1]"),
]
sent = pytest.mark.parametrize(("send", "field"), SENDERS, ids=lambda v: getattr(v, "__name__", v))


@sent
@pytest.mark.parametrize("type_", BAD_TYPES)
def test_a_bad_condition_type_is_refused(
    api: Api, gpu: str, send: Sender, field: str, type_: str
) -> None:
    with refused(api, INVALID, f"{field}.type: must"):
        send(api, condition(type_))


@sent
@pytest.mark.parametrize("status", BAD_STATUSES)
def test_a_bad_condition_status_is_refused(
    api: Api, gpu: str, send: Sender, field: str, status: str
) -> None:
    with refused(api, INVALID, f"{field}.status: must be True, False or Unknown"):
        send(api, condition("Fan", status))


@sent
def test_long_texts_and_impossible_times_are_refused(
    api: Api, gpu: str, send: Sender, field: str
) -> None:
    with refused(api, INVALID, f"{field}.reason: must not exceed 1024 characters"):
        send(api, condition("Fan", reason="r" * 1_025))
    with refused(api, INVALID, f"{field}.message: must not exceed 32768 bytes"):
        send(api, condition("Fan", message="é" * 16_385))
    for time in ({"seconds": 1, "nanos": -1}, {"seconds": 2**62}, {"nanos": 1_000_000_000}):
        with refused(api, INVALID, f"{field}.last_transition_time: is not a valid timestamp"):
            send(api, condition("Fan", last_transition_time=time))


@sent
def test_texts_of_exactly_the_limit_pass(api: Api, send: Sender, field: str) -> None:
    if send is _initial_of_a_new_gpu:
        api.unregister("fresh")
    send(api, condition("Fan", reason="r" * 1_024, message="é" * 16_384))


@pytest.mark.parametrize("method", ["RegisterGpu", "UpdateGpuStatus"])
def test_a_type_twice_in_one_status_is_refused(api: Api, gpu: str, method: str) -> None:
    status = gpu_pb2.GpuStatus(conditions=[condition("Fan"), condition("Fan", "False")])
    field = "status" if method == "UpdateGpuStatus" else "initial_status"
    request = REQUESTS[method](name=gpu, provider_id="alpha", **{field: status})
    with refused(api, INVALID, f"{field}.conditions[1].type", "twice"):
        api.raw(method, request.SerializeToString())


def test_an_action_that_is_too_long_is_refused(api: Api, gpu: str) -> None:
    with refused(api, INVALID, "status.recommended_action: must not exceed 1024 characters"):
        api.set_status(gpu, condition("Fan"), provider_id="alpha", recommended_action="a" * 1_025)
    status = gpu_pb2.GpuStatus(recommended_action="a" * 1_025)
    with refused(api, INVALID, "initial_status.recommended_action: must not exceed"):
        api.register(gpu, "alpha", initial_status=status)


def test_a_missing_condition_is_refused(api: Api, gpu: str) -> None:
    request = provider_pb2.UpdateGpuConditionRequest(name=gpu, provider_id="alpha")
    with refused(api, INVALID, "condition: is required"):
        api.providers.UpdateGpuCondition(request, timeout=10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uuid", "u" * 257),
        ("uuid", "GPU\n"),
        ("serial", "s\0"),
        ("product_name", "p" * 257),
        ("pci_bus_id", "\t"),
        ("architecture", "a" * 257),
        ("mig_mode", "\x1b[0m"),
        ("index", -1),
        ("minor", -1),
    ],
)
def test_a_bad_spec_is_refused(api: Api, gpu: str, field: str, value: object) -> None:
    for name in (gpu, "fresh-spec"):
        with refused(api, INVALID, f"spec.{field}: must be"):
            api.register(name, "alpha", spec={field: value})


def test_a_uuid_belongs_to_one_name(api: Api, gpu: str) -> None:
    with refused(api, TAKEN, '"known"'):
        api.register("other", "alpha", spec={"uuid": "gpu-KNOWN"})
    with refused(api, TAKEN, '"known"', "GPU-known", "GPU-else"):
        api.register(gpu, "beta", spec={"uuid": "GPU-else"})
    api.register("later", "alpha")
    with refused(api, TAKEN, '"known"'):
        api.register("later", "alpha", spec={"uuid": "GPU-KNOWN"})


def test_what_is_not_there_is_not_found(api: Api, gpu: str) -> None:
    with refused(api, MISSING, '"absent" not found'):
        api.get("absent")
    with refused(api, MISSING, '"KNOWN" not found'):
        api.get("KNOWN")
    with refused(api, MISSING, '"absent" not found'):
        api.set("absent", "Fan", "True", "alpha")
    with refused(api, MISSING, '"absent" not found'):
        api.set_status("absent", condition("Fan"), provider_id="alpha")
    with refused(api, MISSING, "absent"):
        api.clear("absent", "Fan")
    with refused(api, MISSING, "Nothing"):
        api.clear(gpu, "Nothing")
    with refused(api, MISSING, "nobody"):
        request = admin_pb2.ForgetProviderRequest(provider_id="nobody")
        api.raw("ForgetProvider", request.SerializeToString())


def test_another_owners_condition_cannot_be_written(server: Server, api: Api, gpu: str) -> None:
    forged = server.metric("refused_false_total")
    with refused(api, CONFLICT, "Fan", "alpha"):
        api.set(gpu, "Fan", "True", "beta")
    assert server.metric("refused_false_total") == forged
    with refused(api, CONFLICT, "Pump", "beta"):
        api.set(gpu, "Pump", "False", "alpha")
    with refused(api, CONFLICT, "Pump", "beta"):
        api.set_status(gpu, condition("Link"), condition("Pump", "False"), provider_id="alpha")
    assert server.metric("refused_false_total") == forged + 2
    assert [e for e in api.events(gpu_name=gpu) if e.reason == "FalseRefused"]


def test_a_condition_that_is_true_cannot_be_cleared(api: Api, gpu: str) -> None:
    with refused(api, CONFLICT, "Pump"):
        api.clear(gpu, "Pump")


@pytest.mark.parametrize("type_", ["", "fan", "Fan Healthy"])
def test_a_bad_type_cannot_be_cleared(api: Api, gpu: str, type_: str) -> None:
    with refused(api, INVALID, "type: must"):
        api.clear(gpu, type_)


@pytest.mark.parametrize(
    "version", ["-1", "+1", "1.0", "1e3", " 1", "1 ", "0x10", "abc", "9" * 19, "9" * 400, "١"]
)
def test_a_malformed_watch_version_is_refused(api: Api, gpu: str, version: str) -> None:
    with refused(api, INVALID, "opts.resource_version"):
        api.watch(version).next()


def test_initial_events_and_a_version_contradict_each_other(api: Api, gpu: str) -> None:
    version = api.list().metadata.resource_version
    with refused(api, INVALID, "opts.send_initial_events"):
        api.watch(version, allow_watch_bookmarks=True, send_initial_events=True).next()


def test_more_than_64_conditions_are_refused(api: Api, gpu: str) -> None:
    many = [condition(f"Type{i}") for i in range(64)]
    api.register("full", "alpha")
    api.set_status("full", *many, provider_id="alpha")
    with refused(api, EXHAUSTED, "limit is 64"):
        api.set("full", "OneMore", "True", "beta")
    with refused(api, EXHAUSTED, "limit is 64"):
        api.set_status("full", *many, condition("OneMore"), provider_id="alpha")
    api.unregister("full")


def test_an_object_beyond_64_kib_is_refused(api: Api, gpu: str) -> None:
    with refused(api, EXHAUSTED, "bytes"):
        api.set_status(
            "known",
            *(condition(f"Type{i}", message="m" * 30_000) for i in range(3)),
            provider_id="gamma",
        )


def test_a_request_beyond_4_mib_is_refused(api: Api, gpu: str) -> None:
    with refused(api, EXHAUSTED):
        api.raw("GetGpu", gpu_pb2.GetGpuRequest(name="a" * (4 << 20)).SerializeToString())


@pytest.mark.parametrize(
    "path",
    [f"/{GPU_SERVICE}/Nothing", f"/{PROVIDER_SERVICE}/Nothing", f"/{ADMIN_SERVICE}/X", "/x/y"],
)
def test_an_unknown_method_is_unimplemented(api: Api, gpu: str, path: str) -> None:
    with refused(api, grpc.StatusCode.UNIMPLEMENTED):
        api.raw(path, b"")
