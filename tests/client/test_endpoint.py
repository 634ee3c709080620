"""Calls over real sockets: what is repeated, awaited, encrypted, intercepted; both drivers."""

from __future__ import annotations

import collections
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import trustme
from waiting import SECONDS

from device_api_core.client import GPUS, AsyncClientset, Clientset, Options, RetryPolicy, Tls
from device_api_core.client.errors import (
    DeadlineExceeded,
    LimitExceeded,
    NotFound,
    NotServed,
    RpcFailed,
    Unavailable,
    Unreachable,
)
from device_api_core.client.retry import NO_RETRY, Attempts, Backoff
from device_api_core.client.stopping import Stop
from device_api_core.resources import Condition, ConditionStatus, GpuStatus

pytestmark = pytest.mark.once("its servers are grpcio's own")

QUICK = Options(timeout_seconds=SECONDS, retry=RetryPolicy(3, 0.001, 0.01))


class Refusing(grpc.GenericRpcHandler):
    """Refuses the first calls of each method, and counts them."""

    def __init__(self, times: int, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.metadata: list[tuple[str, str]] = []
        self._times = times
        self._status = status

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method.rpartition("/")[2]

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls[method] += 1
            self.metadata += context.invocation_metadata()
            if self.calls[method] <= self._times:
                context.abort(self._status, "not now")
            return b""

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
def serve(directory):
    """Serves a handler on a socket; returns the target."""
    servers = []
    with ThreadPoolExecutor(4) as threads:

        def run(handler, target=f"unix://{directory}/s.sock", credentials=None):
            server = grpc.server(threads, handlers=[handler])
            if credentials is None:
                server.add_insecure_port(target)
            else:
                target = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
            server.start()
            servers.append(server)
            return target

        yield run
        for server in servers:
            server.stop(0).wait()


STATUS = GpuStatus((Condition("A", ConditionStatus.TRUE),))
CALLS = {
    "GetGpu": lambda c: c.v1alpha1.gpus.get("a"),
    "ListGpus": lambda c: c.v1alpha1.gpus.list(),
    "RegisterGpu": lambda c: c.v1alpha1.providers.register("a"),
    "UpdateGpuStatus": lambda c: c.v1alpha1.providers.update_status("a", STATUS),
    "UpdateGpuCondition": lambda c: c.v1alpha1.providers.update_condition(
        "a", STATUS.conditions[0]
    ),
    "Heartbeat": lambda c: c.v1alpha1.providers.heartbeat("p"),
    "ListProviders": lambda c: c.admin.list_providers(),
    "ListEvents": lambda c: c.admin.list_events(),
}
SINGLE = {
    "UnregisterGpu": lambda c: c.v1alpha1.providers.unregister("a"),
    "ClearCondition": lambda c: c.admin.clear_condition("a", "A"),
    "ForgetProvider": lambda c: c.admin.forget_provider("p"),
    "ForgetGpu": lambda c: c.admin.forget_gpu("a"),
}


@pytest.mark.parametrize("method", CALLS)
async def test_what_is_idempotent_is_tried_again(serve, method):
    handler = Refusing(2)
    target = serve(handler)
    with Clientset.connect(target, options=QUICK) as clients:
        CALLS[method](clients)
    assert handler.calls == {method: 3}
    handler.calls.clear()
    async with AsyncClientset.connect(target, options=QUICK) as clients:
        await CALLS[method](clients)
    assert handler.calls == {method: 3}


@pytest.mark.parametrize("method", SINGLE)
async def test_what_may_have_happened_is_not(serve, method):
    handler = Refusing(9)
    target = serve(handler)
    with Clientset.connect(target, options=QUICK) as clients, pytest.raises(Unavailable):
        SINGLE[method](clients)
    async with AsyncClientset.connect(target, options=QUICK) as clients:
        with pytest.raises(Unavailable):
            await SINGLE[method](clients)
    assert handler.calls == {method: 2}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, NotServed),
    ],
)
async def test_an_answer_is_not_asked_for_again(serve, status, kind):
    handler = Refusing(9, status)
    target = serve(handler)
    with Clientset.connect(target, options=QUICK) as clients, pytest.raises(kind):
        clients.v1alpha1.gpus.get("a")
    async with AsyncClientset.connect(target, options=QUICK) as clients:
        with pytest.raises(kind):
            await clients.v1alpha1.gpus.get("a")
    assert handler.calls == {"GetGpu": 2}


def test_attempts_end_with_their_number_or_with_the_deadline():
    now = [0.0]

    def attempts(policy, idempotent=True):
        return Attempts(policy, idempotent=idempotent, timeout_seconds=1, clock=lambda: now[0])

    error = Unavailable("not now")
    three = attempts(RetryPolicy(3, 0.2, 0.2))
    pauses = [three.pause_after(error) for _ in range(3)]
    assert all(0.1 <= pause <= 0.2 for pause in pauses[:2])
    assert pauses[2] is None
    assert attempts(NO_RETRY).pause_after(error) is None
    assert attempts(RetryPolicy(), idempotent=False).pause_after(error) is None
    late = attempts(RetryPolicy(9, 0.2, 0.2))
    now[0] = 0.95
    assert late.pause_after(error) is None
    now[0] = 2.0
    assert late.remaining_seconds == 0


def test_what_is_bound_too_late_is_cancelled_at_once():
    stop, cancelled = Stop(), []
    with stop.bound(lambda: cancelled.append("early")):
        stop.set()
    with stop.bound(lambda: cancelled.append("late")):
        assert cancelled == ["early", "late"]


def test_half_of_a_pause_is_chance():
    assert Backoff(1, 8, lambda: 0.0).pause() == 0.5
    assert Backoff(1, 8, lambda: 1.0).pause() == 1.0


async def test_waiting_for_a_server_that_is_not_there_yet(serve, directory):
    target = f"unix://{directory}/s.sock"
    patient = Options(timeout_seconds=SECONDS, wait_for_ready=True)
    timer = threading.Timer(0.05, lambda: serve(Refusing(0)))
    timer.start()
    with Clientset.connect(target, options=patient) as clients:
        clients.v1alpha1.gpus.list()
    timer.join()
    async with AsyncClientset.connect(target, options=patient) as clients:
        await clients.v1alpha1.gpus.list()


async def test_a_deadline_of_one_call_counts_before_that_of_the_clientset(serve):
    release = threading.Event()

    class Silent(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda r, c: release.wait(SECONDS) or b"")

    target = serve(Silent())
    try:
        with Clientset.connect(target) as clients:
            with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
                clients.v1alpha1.gpus.list(timeout_seconds=0.05)
            stop = Stop()
            timer = threading.Timer(0.05, stop.set)
            timer.start()
            with pytest.raises((RpcFailed, Unreachable)):
                clients.v1alpha1.gpus.caller.call(GPUS.list(), stop=stop)
            timer.join()
        async with AsyncClientset.connect(target) as clients:
            with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
                await clients.v1alpha1.gpus.list(timeout_seconds=0.05)
    finally:
        release.set()


async def test_nobody_listening_is_unreachable_and_a_closed_clientset_too(directory):
    target = f"unix://{directory}/none.sock"
    with Clientset.connect(target, options=QUICK) as clients, pytest.raises(Unreachable):
        clients.v1alpha1.gpus.get("a")
    with pytest.raises(Unreachable):
        clients.v1alpha1.gpus.get("a")
    with pytest.raises(Unreachable):
        clients.v1alpha1.gpus.watch()
    async with AsyncClientset.connect(target, options=QUICK) as clients:
        with pytest.raises(Unreachable):
            await clients.v1alpha1.gpus.get("a")
        with pytest.raises(Unreachable):
            await anext(clients.v1alpha1.gpus.watch())
    with pytest.raises(Unreachable):
        await clients.v1alpha1.gpus.get("a")


class Stamp(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=[("x-caller", "sync")]), request)


class AsyncStamp(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        metadata = grpc.aio.Metadata(("x-caller", "async"))
        return await continuation(details._replace(metadata=metadata), request)


async def test_interceptors_see_every_call(serve):
    handler = Refusing(0)
    target = serve(handler)
    with Clientset.connect(target, interceptors=[Stamp()]) as clients:
        clients.v1alpha1.gpus.list()
    async with AsyncClientset.connect(target, interceptors=[AsyncStamp()]) as clients:
        await clients.v1alpha1.gpus.list()
    assert {v for k, v in handler.metadata if k == "x-caller"} == {"sync", "async"}


async def test_tls_with_a_certificate_for_each_side(serve, directory):
    authority = trustme.CA()
    served, own = authority.issue_cert("gpu-node"), authority.issue_cert("consumer")
    files = {name: directory / name for name in ("ca.pem", "own.pem", "own.key")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    own.cert_chain_pems[0].write_to_path(files["own.pem"])
    own.private_key_pem.write_to_path(files["own.key"])
    credentials = grpc.ssl_server_credentials(
        [(served.private_key_pem.bytes(), served.cert_chain_pems[0].bytes())],
        authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    target = serve(Refusing(0), credentials=credentials)
    tls = Tls(files["ca.pem"], files["own.pem"], files["own.key"], "gpu-node")
    with Clientset.connect(target, options=Options(tls=tls)) as clients:
        clients.v1alpha1.gpus.list()
    async with AsyncClientset.connect(target, options=Options(tls=tls)) as clients:
        await clients.v1alpha1.gpus.list()
    nobody = Options(tls=Tls(files["ca.pem"], server_name="gpu-node"), retry=NO_RETRY)
    with Clientset.connect(target, options=nobody) as clients, pytest.raises(Unreachable):
        clients.v1alpha1.gpus.list()
