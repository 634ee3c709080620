"""Writing to a fake node: messages in, messages out, checked as the server checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from device_api_core import codec
from device_api_core._proto import admin_pb2, provider_pb2
from device_api_core.client.fake.ledger import Ledger
from device_api_core.conditions import has_lapsed
from device_api_core.conversion import gpu_spec_from_proto
from device_api_core.entries import SetCondition, SetStatus
from device_api_core.errors import InvalidArgument, NotFound
from device_api_core.validation import (
    check_action,
    check_condition,
    check_name,
    check_provider_id,
    check_spec,
    check_status,
    check_type,
)

_WRITES = "/nvidia.device.v1alpha1.ProviderService/"
_ACTS = "/device_api.admin.v1.Admin/"


class Services:
    """The unary methods, by path. The caller sees to it that one thread at a time is here."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._heard: set[str] = set()
        self.methods: dict[str, Callable[[Any], Message]] = {
            _WRITES + "RegisterGpu": self._register,
            _WRITES + "UnregisterGpu": self._unregister,
            _WRITES + "UpdateGpuStatus": self._update_status,
            _WRITES + "UpdateGpuCondition": self._update_condition,
            _WRITES + "Heartbeat": self._heartbeat,
            _ACTS + "ListProviders": self._list_providers,
            _ACTS + "ClearCondition": self._clear_condition,
            _ACTS + "ForgetProvider": self._forget_provider,
            _ACTS + "ForgetGpu": self._forget_gpu,
        }

    # --- writes

    def _register(self, request: provider_pb2.RegisterGpuRequest) -> Message:
        check_name(request.name)
        check_provider_id(request.provider_id)
        spec = gpu_spec_from_proto(request.spec)
        check_spec(spec)
        initial = codec.decode_status(request.initial_status, request.provider_id, "initial_status")
        check_status(initial, "initial_status")
        created, version = self.ledger.register(request.name, spec, request.provider_id, initial)
        self._heard.add(request.provider_id)
        return provider_pb2.RegisterGpuResponse(created=created, resource_version=version)

    def _unregister(self, request: provider_pb2.UnregisterGpuRequest) -> Message:
        check_name(request.name)
        check_provider_id(request.provider_id)
        if request.provider_id:
            deleted = self.ledger.withdraw(request.name, request.provider_id)
            self._heard.add(request.provider_id)
        else:
            deleted = self.ledger.unregister(request.name)
        return provider_pb2.UnregisterGpuResponse(deleted=deleted)

    def _update_status(self, request: provider_pb2.UpdateGpuStatusRequest) -> Message:
        check_name(request.name)
        check_provider_id(request.provider_id)
        status = codec.decode_status(request.status, request.provider_id, "status")
        check_status(status)
        change = SetStatus(request.name, status.conditions, status.recommended_action)
        version = self.ledger.apply(request.provider_id, change)
        self._heard.add(request.provider_id)
        return provider_pb2.UpdateGpuStatusResponse(resource_version=version)

    def _update_condition(self, request: provider_pb2.UpdateGpuConditionRequest) -> Message:
        check_name(request.name)
        check_provider_id(request.provider_id)
        if not request.HasField("condition"):
            raise InvalidArgument("condition", "is required")
        condition = codec.decode_condition(request.condition, request.provider_id, "condition")
        check_condition(condition)
        action = request.recommended_action if request.HasField("recommended_action") else None
        if action is not None:
            check_action(action)
        change = SetCondition(request.name, condition, action)
        version = self.ledger.apply(request.provider_id, change)
        self._heard.add(request.provider_id)
        return provider_pb2.UpdateGpuConditionResponse(resource_version=version)

    def _heartbeat(self, request: provider_pb2.HeartbeatRequest) -> Message:
        check_provider_id(request.provider_id)
        if not request.provider_id:
            raise InvalidArgument("provider_id", "must not be empty")
        for i, name in enumerate(request.gpu_names):
            check_name(name, f"gpu_names[{i}]")
        codec.decode_numbers(request.numbers)
        self._heard.add(request.provider_id)
        owned = self.ledger.owned_by(request.provider_id)
        if request.gpu_names:
            owned = [e for e in owned if e.name in set(request.gpu_names)]
        lapsed = any(has_lapsed(e.health, request.provider_id) for e in owned)
        return provider_pb2.HeartbeatResponse(acknowledged=bool(owned) and not lapsed)

    # --- operator's acts

    def _list_providers(self, request: admin_pb2.ListProvidersRequest) -> Message:
        providers = [
            admin_pb2.Provider(
                name=id_, home="remote", state="running", gpus=len(self.ledger.owned_by(id_))
            )
            for id_ in sorted(self._heard)
        ]
        server = admin_pb2.ServerInfo(
            version="fake", ready=True, resource_version=self.ledger.version
        )
        return admin_pb2.ListProvidersResponse(providers=providers, server=server)

    def _clear_condition(self, request: admin_pb2.ClearConditionRequest) -> Message:
        check_name(request.gpu_name, "gpu_name")
        check_type(request.type, "type")
        version = self.ledger.clear(request.gpu_name, request.type)
        return admin_pb2.ClearConditionResponse(resource_version=version)

    def _forget_provider(self, request: admin_pb2.ForgetProviderRequest) -> Message:
        id_ = request.provider_id
        check_provider_id(id_)
        if id_ not in self._heard and not self.ledger.owned_by(id_):
            raise NotFound(f"provider {id_ or '(anonymous)'} is not known")
        gpus, said = self.ledger.forget(id_)
        self._heard.discard(id_)
        return admin_pb2.ForgetProviderResponse(gpus=gpus, conditions=said)

    def _forget_gpu(self, request: admin_pb2.ForgetGpuRequest) -> Message:
        check_name(request.name)
        return admin_pb2.ForgetGpuResponse(deleted=self.ledger.unregister(request.name))
