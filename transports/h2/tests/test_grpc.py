"""gRPC over HTTP/2 as the gRPC project's PROTOCOL-HTTP2 document has it."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

import pytest
from hyperframe.frame import RstStreamFrame
from raw import CANCEL, NO_ERROR, grpc_frame, headers_of

from device_api_core.errors import LimitExceeded
from device_api_core.validation import MAX_MESSAGE_BYTES

ECHO, WAIT, FAIL, WATCH, TALK = (
    f"/t.S/{name}" for name in ("Echo", "Wait", "Fail", "Watch", "Talk")
)


async def settled(condition):
    """Let the loop turn until it holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_unary_call(raw):
    raw.call(1, ECHO, b"hello")
    answer = await raw.answer(1)
    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"] == "application/grpc"
    assert (answer.messages, answer.status, answer.reset) == ([b"hello"], "0", None)


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_379, 65_535, 65_536, 1_000_000])
async def test_messages_of_all_sizes(raw, size):
    raw.say(raw.headers(1, headers_of(ECHO)))
    await raw.upload(1, grpc_frame(bytes(size)))
    assert (await raw.answer(1)).messages == [bytes(size)]


async def test_a_message_in_single_bytes(raw):
    raw.say(raw.headers(1, headers_of(ECHO)))
    body = grpc_frame(b"slowly")
    for byte in body[:-1]:
        raw.say(raw.data(1, bytes([byte])))
        await asyncio.sleep(0)
    raw.say(raw.data(1, body[-1:], "END_STREAM"))
    assert (await raw.answer(1)).messages == [b"slowly"]


async def test_padding_is_no_part_of_a_message(raw):
    frame = raw.data(1, grpc_frame(b"padded"), "END_STREAM", "PADDED")
    frame.pad_length = 100
    raw.say(raw.headers(1, headers_of(ECHO)), frame)
    assert (await raw.answer(1)).messages == [b"padded"]


async def test_the_end_may_come_by_itself(raw):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, grpc_frame(b"x")))
    raw.say(raw.data(1, b"", "END_STREAM"))
    assert (await raw.answer(1)).messages == [b"x"]


async def test_the_end_may_come_with_trailers(raw):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, grpc_frame(b"x")))
    raw.say(raw.headers(1, [("some", "trailer")], "END_STREAM"))
    assert (await raw.answer(1)).messages == [b"x"]


async def test_an_error_is_trailers_only(raw):
    raw.call(1, FAIL, "gone: ü 100%\n".encode())
    answer = await raw.answer(1)
    assert (answer.status, answer.trailers, answer.data) == ("5", {}, b"")
    assert answer.text == "gone: %C3%BC 100%25%0A"
    assert unquote(answer.text) == "gone: ü 100%\n"


async def test_a_defect_tells_no_details(raw, caplog):
    raw.call(1, FAIL, b"defect")
    answer = await raw.answer(1)
    assert answer.status == "13"
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


async def test_a_long_text_is_cut_between_characters(raw):
    raw.call(1, FAIL, "ü".encode() * 5_000)
    text = unquote((await raw.answer(1)).text)
    assert 500 < len(text) < 1_000
    assert set(text) == {"ü"}


async def test_the_reason_is_trailing_metadata(raw):
    raw.call(1, WATCH, b"refuse")
    answer = await raw.answer(1)
    assert (answer.status, answer.headers["device-api-reason"]) == ("14", "rate")


@pytest.mark.parametrize(
    ("changed", "status", "word"),
    [
        ({"path": "/t.S/None"}, "12", "no method /t.S/None"),
        ({"path": "/"}, "12", "no method"),
        ({"grpc_encoding": "gzip"}, "12", "compressed"),
        ({"grpc_timeout": "soon"}, "13", "grpc-timeout"),
        ({"grpc_timeout": "123456789S"}, "13", "grpc-timeout"),
    ],
)
async def test_a_request_that_cannot_be_served(raw, changed, status, word):
    raw.call(1, ECHO, b"x", **changed)
    answer = await raw.answer(1)
    assert answer.status == status
    assert word in unquote(answer.text)
    raw.call(3, ECHO, b"the connection lives")
    assert (await raw.answer(3)).status == "0"


async def test_what_compression_is_understood_is_said(raw):
    raw.call(1, ECHO, b"x", grpc_encoding="gzip")
    assert (await raw.answer(1)).headers["grpc-accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"method": "GET"}, "405"),
        ({"content_type": "text/html"}, "415"),
        ({"content_type": None}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
    ],
)
async def test_what_is_not_grpc_is_answered_as_http(raw, changed, status):
    raw.call(1, ECHO, b"x", **changed)
    assert (await raw.answer(1)).headers[":status"] == status


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
async def test_kinds_of_grpc(raw, kind):
    raw.call(1, ECHO, b"x", content_type=kind, grpc_encoding="identity", grpc_timeout="10S")
    assert (await raw.answer(1)).status == "0"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "no message"),
        (grpc_frame(b"a") + grpc_frame(b"b"), "more than one"),
        (grpc_frame(b"abc")[:-1], "inside a message"),
        (b"\0\0", "inside a message"),
        (grpc_frame(b"x", flag=1), "compressed"),
        (grpc_frame(b"x", flag=255), "compressed"),
    ],
)
async def test_a_body_that_is_no_request(raw, body, word):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, body, "END_STREAM"))
    answer = await raw.answer(1)
    assert answer.status == "13"
    assert word in unquote(answer.text)


async def test_a_message_above_the_limit_is_refused_at_its_first_bytes(raw):
    huge = (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big")
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, b"\0" + huge + b"begins"))
    answer = await raw.answer(1)
    assert answer.status == "8"
    assert answer.reset in {None, NO_ERROR}
    raw.call(3, ECHO, b"the connection lives")
    assert (await raw.answer(3)).status == "0"


async def test_metadata_above_the_limit_is_refused(raw):
    raw.call(1, ECHO, b"x", filler="x" * 14_000, more="y" * 3_000)
    assert (await raw.answer(1)).status == "8"
    raw.call(3, ECHO, b"x", filler="x" * 14_000)
    assert (await raw.answer(3)).status == "0"


async def test_a_deadline_ends_a_call(served, raw):
    raw.call(1, WAIT, b"x", grpc_timeout="30m")
    answer = await raw.answer(1)
    assert answer.status == "4"
    await settled(lambda: served.service.cancelled == 1)


async def test_a_deadline_ends_a_watch(served, raw):
    raw.call(1, WATCH, b"first", grpc_timeout="50000u")
    answer = await raw.answer(1)
    assert (answer.messages, answer.status) == ([b"first"], "4")
    assert served.service.hub.active == 0


async def test_a_cancelled_call_is_given_up(served, raw):
    raw.call(1, WAIT, b"x")
    await settled(lambda: served.service.waiting == 1)
    raw.say(RstStreamFrame(1, CANCEL))
    await settled(lambda: served.service.cancelled == 1)
    raw.call(3, ECHO, b"the connection lives")
    assert (await raw.answer(3)).status == "0"


async def test_a_vanished_client_gives_up_all_its_calls(served, raw):
    for stream in (1, 3, 5):
        raw.call(stream, WAIT, b"x")
    raw.call(7, WATCH, b"x")
    await settled(lambda: served.service.waiting == 3 and served.service.hub.active == 1)
    await raw.close()
    await settled(lambda: served.service.cancelled == 3 and served.service.hub.active == 0)


async def test_a_call_that_waits_is_answered_later(served, raw):
    raw.call(1, WAIT, b"late")
    raw.call(3, ECHO, b"at once")
    assert (await raw.answer(3)).messages == [b"at once"]
    served.service.let.set()
    assert (await raw.answer(1)).messages == [b"late"]


async def test_a_watch_gets_every_event_in_order(served, raw):
    raw.call(1, WATCH, b"initial")
    await raw.message(1)
    for version in range(1, 1_001):
        served.service.hub.publish(version, str(version).encode())
        if version % 50 == 0:
            await raw.message(1, version + 1)
    assert raw.answers[1].messages == [b"initial", *(str(v).encode() for v in range(1, 1_001))]


async def test_a_watch_ends_with_the_hub(served, raw):
    raw.call(1, WATCH, b"initial")
    await raw.message(1)
    served.service.hub.close(LimitExceeded("enough", reason="slow-watcher"))
    answer = await raw.answer(1)
    assert (answer.status, answer.text) == ("8", "enough")
    assert answer.trailers["device-api-reason"] == "slow-watcher"


async def test_an_exchange(served, raw):
    raw.say(raw.headers(1, headers_of(TALK)), raw.data(1, grpc_frame(b"one")))
    assert await raw.message(1, 2) == [b"one", b"one"]
    raw.say(raw.data(1, grpc_frame(b"two") + grpc_frame(b"three"), "END_STREAM"))
    answer = await raw.answer(1)
    assert answer.messages == [b"one"] * 2 + [b"two"] * 2 + [b"three"] * 2
    assert answer.status == "0"
    assert served.service.ended == ["half-close"]


async def test_an_exchange_that_fails(raw):
    raw.say(raw.headers(1, headers_of(TALK)), raw.data(1, grpc_frame(b"fail")))
    answer = await raw.answer(1)
    assert (answer.status, answer.text) == ("5", "as you wish")


@pytest.mark.parametrize("how", ["reset", "vanish"])
async def test_a_broken_exchange_is_not_taken_for_a_complete_one(served, raw, how):
    raw.say(raw.headers(1, headers_of(TALK)), raw.data(1, grpc_frame(b"one")))
    await raw.message(1, 2)
    if how == "reset":
        raw.say(RstStreamFrame(1, CANCEL))
    else:
        await raw.close()
    await settled(lambda: served.service.ended)
    assert served.service.ended == ["broken"]
