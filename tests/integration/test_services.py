"""Every method of every service, called as it is meant to be."""

import time

import grpc
import pytest
from process import Server
from wire import DEADLINE, Api, condition, status_of

from device_api_core._proto import admin_pb2, gpu_pb2, provider_pb2


def test_register_makes_a_gpu_known_and_again_changes_nothing(api: Api) -> None:
    first = api.register("reg-1", "alpha", spec={"uuid": "GPU-reg-1", "index": 0})
    again = api.register("reg-1", "alpha", spec={"uuid": "gpu-REG-1", "index": 0})
    assert first.created
    assert not again.created
    assert again.resource_version == first.resource_version
    gpu = api.get("reg-1")
    assert gpu.metadata.name == "reg-1"
    assert gpu.spec.uuid == "GPU-reg-1"
    assert gpu.resource_version == first.resource_version
    assert gpu.metadata.resource_version == str(first.resource_version)
    assert status_of(gpu).status == "Unknown"


def test_a_second_provider_registers_the_same_gpu_and_fills_in_its_spec(api: Api) -> None:
    first = api.register("reg-2", "alpha")
    second = api.register("reg-2", "beta", spec={"uuid": "GPU-reg-2", "product_name": "H100"})
    assert not second.created
    assert second.resource_version > first.resource_version
    assert api.get("reg-2").spec.product_name == "H100"


def test_initial_status_counts_for_a_new_gpu_only(api: Api) -> None:
    status = gpu_pb2.GpuStatus(
        conditions=[condition("Fan", "False", reason="Stuck")], recommended_action="RESTART_BM"
    )
    api.register("reg-3", "alpha", initial_status=status)
    gpu = api.get("reg-3")
    assert status_of(gpu, "Fan").provider_id == "alpha"
    assert status_of(gpu).reason == "Stuck"
    assert gpu.status.recommended_action == "RESTART_BM"
    status.conditions[0].status = "True"
    assert not api.register("reg-3", "alpha", initial_status=status).created
    assert status_of(api.get("reg-3"), "Fan").status == "False"


def test_set_condition_sets_one_and_computes_ready(api: Api) -> None:
    api.register("set-1", "alpha")
    api.set("set-1", "Fan", "True", "alpha")
    assert status_of(api.get("set-1")).status == "True"
    version = api.set("set-1", "example.com/Pump", "False", "beta", reason="Dry", message="no flow")
    gpu = api.get("set-1")
    assert gpu.resource_version == version
    ready = status_of(gpu)
    assert (ready.status, ready.reason, ready.message) == ("False", "Dry", "no flow")
    assert status_of(gpu, "Fan").status == "True"


def test_a_change_that_changes_nothing_keeps_the_version(api: Api) -> None:
    api.register("set-2", "alpha")
    version = api.set("set-2", "Fan", "True", "alpha", reason="Ok")
    assert api.set("set-2", "Fan", "True", "alpha", reason="Ok") == version


def test_set_status_replaces_the_callers_conditions_and_nobody_elses(api: Api) -> None:
    api.register("set-3", "alpha")
    api.set_status("set-3", condition("Fan"), condition("Pump", "False"), provider_id="alpha")
    api.set("set-3", "Link", "True", "beta")
    api.set_status("set-3", condition("Fan", "Unknown"), provider_id="alpha")
    types = {c.type: c.status for c in api.get("set-3").status.conditions}
    assert types == {"Ready": "Unknown", "Fan": "Unknown", "Link": "True"}
    request = provider_pb2.UpdateGpuStatusRequest(name="set-3", provider_id="alpha")
    api.providers.UpdateGpuStatus(request, timeout=DEADLINE)
    assert {c.type for c in api.get("set-3").status.conditions} == {"Ready", "Link"}


def test_transition_time_moves_only_with_the_status(api: Api) -> None:
    api.register("set-4", "alpha")
    given = condition("Fan", "False")
    given.last_transition_time.seconds = 1_600_000_000
    api.set_status("set-4", given, provider_id="alpha")
    assert status_of(api.get("set-4"), "Fan").last_transition_time.seconds == 1_600_000_000
    api.set("set-4", "Fan", "False", "alpha", reason="Other")
    assert status_of(api.get("set-4"), "Fan").last_transition_time.seconds == 1_600_000_000
    future = condition("Fan", "True")
    future.last_transition_time.seconds = int(time.time()) + 3_600
    api.set_status("set-4", future, provider_id="alpha")
    moved = status_of(api.get("set-4"), "Fan").last_transition_time.seconds
    assert abs(moved - time.time()) < 60


def test_the_strongest_action_shows_while_its_provider_doubts(api: Api) -> None:
    api.register("act-1", "alpha")
    api.set_status(
        "act-1", condition("Fan", "False"), provider_id="alpha", recommended_action="call somebody"
    )
    api.set_status(
        "act-1", condition("Pump", "False"), provider_id="beta", recommended_action="RESTART_VM"
    )
    assert api.get("act-1").status.recommended_action == "RESTART_VM"
    api.set("act-1", "Pump", "True", "beta")
    assert api.get("act-1").status.recommended_action == "call somebody"


def test_unregister_without_a_provider_removes_the_gpu_whole(api: Api) -> None:
    api.register("un-1", "alpha")
    api.set("un-1", "Fan", "False", "alpha")
    assert api.unregister("un-1")
    assert not api.unregister("un-1")
    with pytest.raises(grpc.RpcError) as caught:
        api.get("un-1")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert any(e.gpu_name == "un-1" for e in api.events() if e.reason == "GpuUnregistered")


def test_withdrawal_keeps_what_is_false_and_what_others_say(api: Api) -> None:
    api.register("un-2", "alpha")
    api.register("un-2", "beta")
    api.set_status("un-2", condition("Fan"), condition("Pump", "False"), provider_id="alpha")
    assert not api.unregister("un-2", "alpha")
    assert {c.type for c in api.get("un-2").status.conditions} == {"Ready", "Pump"}
    assert not api.unregister("un-2", "beta")
    api.set("un-2", "Pump", "True", "alpha")
    assert api.unregister("un-2", "alpha")


def test_heartbeat_is_acknowledged_while_the_server_knows_the_provider(api: Api) -> None:
    assert not api.heartbeat("hb")
    api.register("hb-1", "hb")
    assert api.heartbeat("hb", "hb-1")
    assert api.heartbeat("hb")
    assert not api.heartbeat("hb", "unknown-gpu")


def test_list_is_one_snapshot_with_its_version(api: Api) -> None:
    version = api.register("list-1", "alpha").resource_version
    listed = api.list()
    assert int(listed.metadata.resource_version) == version
    assert [g.metadata.name for g in listed.items].count("list-1") == 1
    assert max(g.resource_version for g in listed.items) <= version


def test_the_version_after_a_delete_is_the_deletes_own(api: Api) -> None:
    api.register("list-2", "alpha")
    watch = api.watch(api.list().metadata.resource_version)
    api.unregister("list-2")
    event = watch.next()
    assert event.type == "DELETED"
    assert str(event.object.resource_version) == api.list().metadata.resource_version
    watch.cancel()


def test_list_providers_tells_of_remote_providers_and_of_the_server(api: Api) -> None:
    api.register("adm-1", "remote-one")
    api.set("adm-1", "Fan", "True", "remote-one")
    row = api.provider("remote-one")
    assert (row.home, row.state, row.gpus) == ("remote", "running", 1)
    assert list(row.condition_types) == ["Fan"]
    assert row.last_sign_of_life.seconds > 0
    assert not row.HasField("lease")
    about = api.list_providers().server
    assert about.ready
    assert about.version
    assert about.started.seconds > 0
    assert about.resource_version >= api.get("adm-1").resource_version


def test_clear_turns_a_fault_into_unknown_until_its_provider_reports(api: Api) -> None:
    api.register("adm-2", "alpha")
    api.set("adm-2", "Fan", "False", "alpha")
    version = api.clear("adm-2", "Fan")
    gpu = api.get("adm-2")
    assert gpu.resource_version == version
    fan = status_of(gpu, "Fan")
    assert (fan.status, fan.reason, fan.provider_id) == ("Unknown", "ClearedByOperator", "alpha")


def test_forget_provider_drops_all_it_said(api: Api) -> None:
    api.register("adm-3", "gone")
    api.register("adm-4", "alpha")
    api.set("adm-3", "Fan", "False", "gone")
    api.set("adm-4", "Pump", "False", "gone")
    request = admin_pb2.ForgetProviderRequest(provider_id="gone")
    forgotten = api.admin.ForgetProvider(request, timeout=DEADLINE)
    assert (forgotten.gpus, forgotten.conditions) == (2, 2)
    assert "adm-3" not in {g.metadata.name for g in api.list().items}
    assert "gone" not in {p.name for p in api.list_providers().providers}


def test_forget_gpu_removes_it_and_is_idempotent(api: Api) -> None:
    api.register("adm-5", "alpha")
    request = admin_pb2.ForgetGpuRequest(name="adm-5")
    assert api.admin.ForgetGpu(request, timeout=DEADLINE).deleted
    assert not api.admin.ForgetGpu(request, timeout=DEADLINE).deleted


def test_list_events_filters_and_keeps_the_newest(api: Api) -> None:
    api.register("ev-1", "alpha")
    for status in ("True", "False", "Unknown"):
        api.set("ev-1", "Fan", status, "alpha", reason=f"Is{status}")
    events = api.events(gpu_name="ev-1")
    assert [e.reason for e in events if e.reason.startswith("Is")][-3:] != []
    sequences = [e.sequence for e in events]
    assert sequences == sorted(sequences)
    assert [e.sequence for e in api.events(gpu_name="ev-1", limit=1)] == sequences[-1:]
    assert events[-1].severity in {"Normal", "Warning"}


def test_consumers_read_on_the_socket_and_on_tcp(server: Server, api: Api) -> None:
    api.register("face-1", "alpha")
    for face in ("consumer", "tcp"):
        client = server.api(face)
        assert client.get("face-1") == api.get("face-1")
        assert client.list() == api.list()
        watch = client.watch()
        assert watch.next().type == "ADDED"
        watch.cancel()
