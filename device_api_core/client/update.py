"""A held update: reads wait while its provider finds out what is wrong."""

from __future__ import annotations

import queue
from collections.abc import Iterable

import grpc

from device_api_core._proto import provider_pb2 as pb
from device_api_core._proto.provider_pb2_grpc import ProviderServiceStub
from device_api_core.client.endpoint import Endpoint
from device_api_core.client.errors import DeviceApiError, UpdateAborted
from device_api_core.conversion import condition_to_proto, gpu_status_to_proto
from device_api_core.resources import Condition, GpuStatus


class HeldUpdate:
    """One update, held from construction to :meth:`commit` or :meth:`abort`. Not for several
    threads at once."""

    def __init__(
        self,
        stub: ProviderServiceStub,
        endpoint: Endpoint,
        provider_id: str,
        gpu_names: Iterable[str],
    ) -> None:
        self._endpoint = endpoint
        begin = pb.BeginUpdate(provider_id=provider_id, gpu_names=gpu_names)
        requests: queue.SimpleQueue[pb.UpdateRequest | None] = queue.SimpleQueue()
        requests.put(pb.UpdateRequest(begin=begin))
        self._requests = requests
        self._call = stub.Update(
            iter(requests.get, None), timeout=endpoint.timeout_seconds, wait_for_ready=False
        )
        # gRPC reads the requests in a thread of its own, which must not outlive the call.
        self._call.add_callback(lambda: requests.put(None))
        self._answer()

    def set_condition(
        self, name: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        """Stage one condition; what is wrong with it, :meth:`commit` raises."""
        change = pb.UpdateGpuConditionRequest(
            name=name,
            condition=condition_to_proto(condition),
            recommended_action=recommended_action,
        )
        self._requests.put(pb.UpdateRequest(condition=change))

    def set_status(self, name: str, status: GpuStatus) -> None:
        """Stage all conditions and the action of the provider on one GPU."""
        change = pb.UpdateGpuStatusRequest(name=name, status=gpu_status_to_proto(status))
        self._requests.put(pb.UpdateRequest(status=change))

    def commit(self) -> dict[str, int]:
        """Apply what was staged in one step. Returns the versions of the GPUs, by name. Raises
        ``UpdateAborted`` if the update was over before, and what the single writes raise."""
        self._requests.put(None)
        answer = self._answer()
        while answer.held:
            answer = self._answer()
        return dict(answer.resource_versions)

    def abort(self, why: str) -> None:
        """Drop what was staged. The provider's True on the GPUs in doubt is Unknown when this
        returns; if the server cannot be asked, it does that by itself."""
        self._requests.put(pb.UpdateRequest(abort=pb.AbortUpdate(reason=why)))
        self._requests.put(None)
        try:
            self._answer()
        except DeviceApiError:
            # What ended the stream has aborted the update, too.
            self._call.cancel()

    def _answer(self) -> pb.UpdateResponse:
        try:
            return next(self._call)
        except StopIteration:
            raise UpdateAborted("the server ended the update without a result") from None
        except grpc.RpcError as error:
            self._endpoint.fail(error)
