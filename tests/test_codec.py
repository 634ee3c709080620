"""Bytes joined by hand are the bytes that protobuf itself writes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from device_api_core import codec
from device_api_core._proto import gpu_pb2, provider_pb2
from device_api_core.conversion import NANOS, gpu_spec_from_proto
from device_api_core.errors import InvalidArgument
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus
from device_api_core.validation import MAX_TIME, MIN_TIME

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.just("x" * 20_000)
names = st.from_regex(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,251}[A-Za-z0-9])?", fullmatch=True)
versions = st.integers(1, 2**63 - 1)
conditions = st.builds(
    Condition,
    texts,
    st.sampled_from(ConditionStatus),
    texts,
    texts,
    st.none() | st.integers(MIN_TIME, MAX_TIME),
    texts,
)
specs = st.builds(
    GpuSpec,
    texts,
    st.none() | st.integers(0, 2**31 - 1),
    st.none() | st.integers(0, 2**31 - 1),
    texts,
    texts,
    texts,
    st.none() | st.integers(0, 2**64 - 1),
    texts,
    texts,
)
gpus = st.tuples(names, versions, specs, st.lists(conditions, max_size=4), texts)


def condition_message(c):
    message = gpu_pb2.Condition(
        type=c.type,
        status=c.status.value,
        reason=c.reason,
        message=c.message,
        provider_id=c.provider_id,
    )
    if c.last_transition_time is not None:
        stamp = Timestamp()
        stamp.FromNanoseconds(c.last_transition_time)
        message.last_transition_time.CopyFrom(stamp)
    return message


def spec_message(spec):
    fields = {name: getattr(spec, name) for name in GpuSpec.__slots__}
    return gpu_pb2.GpuSpec(**fields)


def gpu_message(name, version, spec, conditions_, action):
    return gpu_pb2.Gpu(
        metadata=gpu_pb2.ObjectMeta(name=name, resource_version=str(version)),
        spec=spec_message(spec),
        status=gpu_pb2.GpuStatus(
            conditions=[condition_message(c) for c in conditions_], recommended_action=action
        ),
        resource_version=version,
    )


def item_of(gpu):
    name, version, spec, conditions_, action = gpu
    parts = [codec.encode_condition(c) for c in conditions_]
    return codec.encode_item(name, version, codec.encode_spec(spec), parts, action)


def assert_is(data, message):
    assert type(message).FromString(data) == message
    assert data == message.SerializeToString(deterministic=True)


@given(gpus)
def test_a_get_response_is_what_protobuf_writes(gpu):
    assert_is(codec.get_response(item_of(gpu)), gpu_pb2.GetGpuResponse(gpu=gpu_message(*gpu)))


@given(versions, st.lists(gpus, max_size=3))
def test_a_list_response_is_what_protobuf_writes(version, some):
    expected = gpu_pb2.ListGpusResponse(
        gpu_list=gpu_pb2.GpuList(
            metadata=gpu_pb2.ListMeta(resource_version=str(version)),
            items=[gpu_message(*g) for g in some],
        )
    )
    assert_is(codec.list_response(version, [item_of(g) for g in some]), expected)


@given(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), gpus)
def test_a_watch_response_is_what_protobuf_writes(kind, gpu):
    expected = gpu_pb2.WatchGpusResponse(type=kind, object=gpu_message(*gpu))
    assert_is(codec.watch_response(kind, item_of(gpu)), expected)


@given(versions)
def test_a_bookmark_carries_only_its_version(version):
    expected = gpu_pb2.WatchGpusResponse(type="BOOKMARK")
    expected.object.metadata.resource_version = str(version)
    assert_is(codec.bookmark(version), expected)


@given(specs)
def test_a_spec_comes_back_as_it_went(spec):
    assert_is(codec.encode_spec(spec), spec_message(spec))
    assert gpu_spec_from_proto(gpu_pb2.GpuSpec.FromString(codec.encode_spec(spec))) == spec


@given(st.lists(conditions, max_size=3), texts, st.sampled_from(["", "a"]))
def test_a_status_comes_back_with_the_sender_as_owner(some, action, sender):
    message = gpu_pb2.GpuStatus(
        conditions=[condition_message(c) for c in some], recommended_action=action
    )
    owned = tuple(
        Condition(c.type, c.status, c.reason, c.message, c.last_transition_time, sender)
        for c in some
    )
    assert codec.decode_status(message, sender, "status") == GpuStatus(owned, action)


@pytest.mark.parametrize("status", ["", "true", "TRUE", "False ", "Maybe", "x" * 10_000])
def test_a_status_is_one_of_three_words(status):
    message = gpu_pb2.GpuStatus(
        conditions=[gpu_pb2.Condition(type="X", status="True"), gpu_pb2.Condition(status=status)]
    )
    with pytest.raises(InvalidArgument, match="must be True, False or Unknown") as caught:
        codec.decode_status(message, "", "initial_status")
    assert caught.value.field == "initial_status.conditions[1].status"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("seconds", "nanos", "valid"),
    [
        (-62_135_596_800, 0, True),
        (-62_135_596_801, 999_999_999, False),
        (253_402_300_799, 999_999_999, True),
        (253_402_300_800, 0, False),
        (0, 1_000_000_000, False),
        (0, -1, False),
    ],
)
def test_a_timestamp_lies_within_the_years_1_to_9999(seconds, nanos, valid):
    message = gpu_pb2.Condition(type="X", status="True")
    message.last_transition_time.seconds = seconds
    message.last_transition_time.nanos = nanos
    if valid:
        decoded = codec.decode_condition(message, "", "c")
        assert decoded.last_transition_time == seconds * NANOS + nanos
    else:
        with pytest.raises(InvalidArgument, match="c.last_transition_time: is not a valid"):
            codec.decode_condition(message, "", "c")


def test_an_absent_time_is_told_from_the_epoch():
    message = gpu_pb2.Condition(type="X", status="True")
    assert codec.decode_condition(message, "", "c").last_transition_time is None
    message.last_transition_time.SetInParent()
    assert codec.decode_condition(message, "", "c").last_transition_time == 0


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\x0a\x05a", b"\x0a\x02\xc3\x28", b"\x0a\x03\xed\xa0\x80"],
    ids=["no tag", "too short", "not UTF-8", "a surrogate"],
)
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(InvalidArgument, match="request: is not a valid HeartbeatRequest"):
        codec.decode(provider_pb2.HeartbeatRequest, data)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(data):
    with suppress(InvalidArgument):
        codec.decode(provider_pb2.UpdateGpuStatusRequest, data)
