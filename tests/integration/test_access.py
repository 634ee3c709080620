"""Who may write: sockets of one provider, anonymous writers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from installed import Installed, good
from process import Server
from writing import report

from device_api_core.client import Clientset
from device_api_core.client.errors import NotServed, PermissionDenied
from device_api_core.resources import Condition, ConditionStatus


def test_a_dedicated_socket_is_the_only_way_to_write_as_its_provider(
    directory: Path, start: Callable[..., Server]
) -> None:
    own = directory / "own.sock"
    server = start(f"--dedicated-socket=alpha={own}").wait_serving()
    assert own.stat().st_mode & 0o777 == 0o600
    shared = server.api()
    with Clientset.connect(f"unix://{own}") as clients:
        report(clients, "alpha", "gpu")
        assert clients.v1alpha1.gpus.get("gpu").ready is ConditionStatus.TRUE
        for claimed in ("beta", ""):
            with pytest.raises(PermissionDenied, match="belongs to provider alpha"):
                report(clients, claimed, "gpu")
        with pytest.raises(NotServed):
            clients.admin.list_providers()
    with pytest.raises(grpc.RpcError) as caught:
        shared.set("gpu", "FanHealthy", "False", "alpha")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "socket of its own" in caught.value.details()
    shared.register("gpu", "beta")
    assert server.stop() == 0
    assert not own.exists()


def test_a_dedicated_socket_needs_a_provider_id(
    directory: Path, start: Callable[..., Server]
) -> None:
    server = start(f"--dedicated-socket={'x' * 129}={directory}/own.sock")
    assert server.exit_code() == 1
    assert "--dedicated-socket: provider_id: must" in " ".join(server.text.split())


def test_anonymous_writers_can_be_forbidden(start: Callable[..., Server]) -> None:
    api = start("--forbid-anonymous").wait_serving().api()
    for write in (
        lambda: api.register("gpu"),
        lambda: api.unregister("gpu"),
        lambda: api.set("gpu", "FanHealthy", "True"),
        lambda: api.set_status("gpu"),
        lambda: api.hold(""),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            write()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "forbids anonymous writers" in caught.value.details()
    api.register("gpu", "alpha")
    api.set("gpu", "FanHealthy", "True", "alpha")


def test_a_private_socket_takes_only_its_plugin_and_what_it_declares(
    directory: Path, start: Callable[..., Server]
) -> None:
    installed = Installed(directory / "plugins").add("fan", good("fan"))
    server = start("--provider=fan", "--isolate=fan", plugins=installed.directory).wait_serving()
    [private] = directory.glob("fan-*/provider.sock")
    assert private.parent.stat().st_mode & 0o777 == 0o700
    assert private.stat().st_mode & 0o777 == 0o600
    with Clientset.connect(f"unix://{private}") as clients:
        writes = clients.v1alpha1.providers
        with pytest.raises(PermissionDenied, match="belongs to provider fan"):
            writes.register("gpu-fan", provider_id="other")
        undeclared = Condition("MemoryHealthy", ConditionStatus.TRUE)
        with pytest.raises(PermissionDenied, match="does not declare MemoryHealthy"):
            writes.update_condition("gpu-fan", undeclared, provider_id="fan")
        with pytest.raises(NotServed):
            clients.admin.list_providers()
    assert server.stop() == 0
