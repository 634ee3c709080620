"""The publisher at an API server that is well, and at one that is not."""

from __future__ import annotations

import socket
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from device_api_kubernetes.api import ApiServer
from device_api_kubernetes.condition import stamp
from device_api_kubernetes.options import KubernetesOptions
from device_api_kubernetes.publisher import KubernetesPublisher
from fleets import FALSE, UNKNOWN, gpu
from kube_api import NODE, cuts, drips, hangs, refuses, resets, says, swallows, talks_without_end

from device_api_core.errors import PublishFailed

GOOD = [gpu("gpu-a"), gpu("gpu-b", index=1)]
BAD = [gpu("gpu-a", FALSE, "Xid79", "RESTART_BM", version=2), GOOD[1]]
STALE = "device-api-server has not answered since 2026-11-24T11:58:00Z"
GET, SET = f"GET /api/v1/nodes/{NODE}", f"PATCH /api/v1/nodes/{NODE}/status"
TELL = "POST /api/v1/namespaces/default/events"


class Publishing:
    """A publisher with its counts."""

    now = 1_000.0

    def __init__(self, api, **options):
        self.counts = Counter()
        own = KubernetesOptions(**api.options | options)
        self.publisher = KubernetesPublisher(own, clock=lambda: self.now)
        self.publisher.prepare()

    def __call__(self, gpus, stale=""):
        self.publisher.publish(gpus, stale=stale, count=self._count)

    def _count(self, name, amount=1, /, **labels):
        assert not labels
        self.counts[name] += amount


@pytest.fixture
def publish(api):
    return Publishing(api)


def messages(api):
    return [(e["type"], e["message"]) for e in api.events.values()]


def test_a_change_is_one_patch_and_one_event(api, publish):
    publish(GOOD)
    assert api.requests == [GET, SET]
    assert api.condition["status"] == "True"
    publish(BAD)
    assert api.requests[2:] == [GET, SET, TELL]
    assert api.condition["status"] == "False"
    assert messages(api) == [("Warning", "gpu-a: Xid79, RESTART_BM")]
    assert api.events.popitem()[1]["involvedObject"]["name"] == NODE
    # Everything else of the Node is as it was.
    assert api.node["status"]["conditions"][0] == {"type": "Ready", "status": "True"}


def test_what_did_not_change_is_only_looked_at(api, publish):
    for _ in range(3):
        publish(BAD)
    assert Counter(api.requests) == {GET: 3, SET: 1, TELL: 1}


def test_an_old_heartbeat_is_renewed_and_the_transition_stays(api, publish):
    publish(BAD)
    old = stamp(datetime.now(UTC) - timedelta(minutes=5))
    api.condition.update(lastHeartbeatTime=old, lastTransitionTime=old)
    publish(BAD)
    assert api.condition["lastHeartbeatTime"] > old
    assert api.condition["lastTransitionTime"] == old


def test_a_condition_that_somebody_deleted_or_changed_comes_back(api, publish):
    publish(BAD)
    api.node["status"]["conditions"].clear()
    publish(BAD)
    assert api.condition["status"] == "False"
    api.condition["status"] = "True"
    publish(BAD)
    assert api.condition["status"] == "False"


def test_a_node_without_any_condition_gets_its_first(api, publish):
    api.node["status"] = {"conditions": []}
    publish(GOOD)
    assert api.condition["status"] == "True"


def test_the_type_and_the_events_are_options(api):
    publish = Publishing(api, condition_type="AcceleratorHealthy", events=False)
    publish(BAD)
    assert api.requests == [GET, SET]
    assert [c["type"] for c in api.node["status"]["conditions"]] == ["Ready", "AcceleratorHealthy"]


def test_without_proof_nothing_is_good_and_nothing_is_told(api, publish):
    publish(GOOD)
    publish(GOOD, STALE)
    assert (api.condition["status"], api.condition["reason"]) == ("Unknown", "GPUHealthStale")
    assert api.condition["message"] == STALE
    publish([], "")
    assert (api.condition["status"], api.condition["reason"]) == ("Unknown", "NoGPUs")
    assert api.events == {}


def test_bad_news_survives_the_loss_of_the_server(api, publish):
    publish(BAD)
    publish(BAD, STALE)
    assert api.condition["status"] == "False"
    assert STALE in api.condition["message"]
    before = dict(api.condition)
    # And a restart of the publisher meanwhile.
    Publishing(api)([], STALE)
    assert api.condition == before


def test_a_restart_that_finds_nothing_writes_that_it_knows_nothing(api, publish):
    publish(GOOD)
    Publishing(api)([], STALE)
    assert api.condition["status"] == "Unknown"


def test_a_new_process_does_not_tell_again_what_the_node_shows(api, publish):
    publish(BAD)
    Publishing(api)(BAD)
    assert len(api.events) == 1
    Publishing(api)([gpu("gpu-a", version=3), gpu("gpu-b", FALSE, "Xid48", version=4)])
    assert messages(api)[1:] == [
        ("Warning", "gpu-b: Xid48"),
        ("Normal", "gpu-a is healthy again"),
    ]


def test_too_many_events_are_suppressed_counted_and_told(api):
    publish = Publishing(api, events_per_minute=5)
    publish(GOOD)
    assert dict(publish.counts) == {"events_suppressed": 0}
    many = [gpu(f"gpu-{i:02}", FALSE, "Xid79", version=i) for i in range(72)]
    publish(many)
    assert len(api.events) == 5
    assert publish.counts["events_suppressed"] == 67
    # They are not told later: the condition says how things are.
    publish.now += 60
    publish(many)
    assert len(api.events) == 5
    publish([gpu("gpu-00", version=100), *many[1:]])
    assert messages(api)[-1] == (
        "Normal",
        "gpu-00 is healthy again (67 Events before this one were suppressed)",
    )
    publish([gpu("gpu-00", version=100), gpu("gpu-01", version=101), *many[2:]])
    assert messages(api)[-1] == ("Normal", "gpu-01 is healthy again")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refuses(500, "etcdserver: leader changed"), "answers 500 (500: etcdserver: leader"),
        (refuses(503, "starting"), "answers 503"),
        (refuses(403, "nodes is forbidden"), "forbids it: allow get of nodes by a ClusterRole (4"),
        (refuses(404, 'nodes "node-7" not found'), "knows no Node 'node-7': set NODE_NAME"),
        (refuses(401, "Unauthorized"), "does not accept the token of "),
        (refuses(301, "elsewhere", Location="https://example.com/"), "answers 301"),
        (refuses(422, "a\nb\x1b[31m"), "answers 422 (422: a b\N{REPLACEMENT CHARACTER}[31m)"),
        (resets, "broke the connection"),
        (cuts, "broke the connection"),
        (talks_without_end, "an answer of more than 4194304 bytes"),
    ],
)
def test_a_refusal_says_what_to_do_and_the_next_attempt_works(api, publish, fault, words):
    api.faults.append(fault)
    with pytest.raises(PublishFailed) as failed:
        publish(BAD)
    assert words in str(failed.value)
    assert f"the API server at {api.url} " in str(failed.value)
    assert api.token not in str(failed.value)
    assert api.condition == {}
    publish(BAD)
    assert api.condition["status"] == "False"
    assert len(api.events) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_object_is_a_failure(api, publish, body):
    api.faults.append(says(body))
    with pytest.raises(PublishFailed, match="answers with something else than an object"):
        publish(BAD)
    api.faults.append(says(body, 502))
    with pytest.raises(PublishFailed, match=r"answers 502 \(502: Bad Gateway\)"):
        publish(BAD)
    assert api.condition == {}


def test_what_forbids_the_patch_and_the_event_names_their_rules(api, publish):
    api.faults.extend([lambda *_: True, refuses(403)])
    with pytest.raises(PublishFailed, match="forbids it: allow patch of nodes/status by a Clust"):
        publish(BAD)
    api.faults.extend([lambda *_: True, lambda *_: True, refuses(403)])
    with pytest.raises(PublishFailed, match="allow create of events by a Role in namespace def"):
        publish(BAD)
    # The condition is there, and the Event comes as soon as it may.
    assert api.condition["status"] == "False"
    publish(BAD)
    assert len(api.events) == 1


@pytest.mark.parametrize(
    ("after", "seconds"), [("7", 7), ("0", 0), ("soon", 0), ("", 0), ("-1", 0), ("9" * 400, 0)]
)
def test_patience_is_passed_on(api, publish, after, seconds):
    api.faults.append(refuses(429, "too many requests", **{"Retry-After": after}))
    with pytest.raises(PublishFailed, match="asks for patience") as failed:
        publish(BAD)
    assert failed.value.retry_after_seconds == seconds


def test_a_conflict_is_tried_once_more_at_once(api, publish):
    api.faults.extend([lambda *_: True, refuses(409, "the object has been modified")])
    publish(GOOD)
    assert api.condition["status"] == "True"
    assert api.requests == [GET, SET, SET]
    api.faults.extend([lambda *_: True, *[refuses(409, "the object has been modified")] * 2])
    with pytest.raises(PublishFailed, match="conflicts: the object has been modified"):
        publish(BAD)
    publish(BAD)
    assert api.condition["status"] == "False"


def test_an_event_whose_answer_was_lost_is_not_told_twice(api, publish):
    api.faults.extend([lambda *_: True, lambda *_: True, swallows])
    with pytest.raises(PublishFailed):
        publish(BAD)
    publish(BAD)
    assert api.requests[-1] == TELL
    assert len(api.events) == 1
    publish(BAD)
    assert api.requests[-1] == GET


def test_a_token_that_was_renewed_is_used_at_once(api, publish):
    publish(GOOD)
    api.token = "second-token"
    with pytest.raises(PublishFailed, match="does not accept the token"):
        publish(BAD)
    api.token_file.write_text("second-token")
    publish(BAD)
    assert api.condition["status"] == "False"


@pytest.mark.parametrize("content", ["", "\n", "two words", "kön"])
def test_a_file_without_a_token_is_no_token(api, publish, content):
    api.token_file.write_text(content)
    with pytest.raises(PublishFailed, match="holds no token"):
        publish(BAD)
    api.token_file.unlink()
    with pytest.raises(PublishFailed, match="cannot read the token .*: No such file"):
        publish(BAD)
    assert api.requests == []


def test_a_server_of_another_authority_gets_no_token(api, publish):
    stranger = trustme.CA()
    api.use(stranger)
    with pytest.raises(PublishFailed, match=r"is not trusted: .*; is .*ca\.crt the cluster's"):
        publish(BAD)
    assert api.requests == []
    # An authority that was renewed is used at once.
    stranger.cert_pem.write_to_path(api.ca_file)
    publish(BAD)
    assert api.condition["status"] == "False"


def test_a_certificate_for_another_host_is_not_trusted(api, publish):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(api.ca_file)
    api.use(authority, "elsewhere.example.com")
    with pytest.raises(PublishFailed, match="is not trusted"):
        publish(BAD)
    assert api.requests == []


def test_a_broken_authority_file_is_named(api, publish):
    api.ca_file.write_text("no certificate")
    with pytest.raises(PublishFailed, match=r"fails TLS|cannot be asked"):
        publish(BAD)
    api.ca_file.unlink()
    with pytest.raises(PublishFailed, match=r"cannot be asked: .*ca\.crt"):
        publish(BAD)


@pytest.mark.parametrize("fault", [hangs, drips])
def test_a_server_that_does_not_come_to_an_end_is_left(api, fault):
    server = ApiServer(
        api.url,
        token_file=str(api.token_file),
        ca_file=str(api.ca_file),
        read_seconds=0.3,
        whole_seconds=0.5,
    )
    api.faults.append(fault)
    in_time = pytest.raises(PublishFailed, match="does not answer in time")
    with server.connected() as connection, in_time:
        connection.node(NODE)


def test_nobody_there_is_told_in_words(api):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    publish = Publishing(api, server=f"https://127.0.0.1:{port}")
    with pytest.raises(PublishFailed, match="cannot be reached: Connection refused"):
        publish(BAD)


def test_the_environment_of_a_shell_changes_nothing(api, publish, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    publish(BAD)
    assert api.condition["status"] == "False"


def test_unknown_gpus_are_told_by_the_condition_alone(api, publish):
    publish([gpu("gpu-a", UNKNOWN, "ProviderLost"), GOOD[1]])
    assert api.condition["message"] == "the health of 1 of 2 GPUs is unknown: gpu-a: ProviderLost"
    assert api.events == {}
