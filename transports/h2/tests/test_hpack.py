"""RFC 7541, section by section, in header blocks written by hand."""

from __future__ import annotations

import pytest
from hyperframe.frame import HeadersFrame
from raw import COMPRESSION_ERROR, grpc_frame, headers_of

ECHO = "/t.S/Echo"
# POST, http, the path and what gRPC needs, none of it indexed.
PLAIN = b"\x83\x86\x04\x09/t.S/Echo\x0f\x10\x10application/grpc\x00\x02te\x08trailers"


def block(stream: int, data: bytes, *flags: str) -> HeadersFrame:
    return HeadersFrame(stream, data, flags=["END_HEADERS", *flags])


async def answers(raw, stream, data):
    """The block is a good request."""
    raw.say(block(stream, data), raw.data(stream, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(stream)).status == "0"


BROKEN = {
    "2.3.3 index zero": b"\x80",
    "2.3.3 an index beyond both tables": b"\xff\x00",
    "2.3.3 a name's index beyond both tables": b"\x7f\x00\x01x",
    "4.2 a table above the limit": b"\x3f\xe2\x1f" + PLAIN,
    "4.2 a new size between fields": b"\x83\x20\x86",
    "5.1 a number that overflows": b"\xff" + b"\xff" * 10 + b"\x7f",
    "5.1 a number without its end": b"\xff\x80",
    "5.2 a string longer than the block": b"\x00\x05ab",
    "5.2 a string of two gigabytes": b"\x00\x7f\xff\xff\xff\xff\x07x",
    "5.2 padding of eight bits": b"\x00\x01a\x82\x1f\xff",
    "5.2 padding that is not ones": b"\x00\x01a\x81\x18",
    "5.2 the end-of-string symbol": b"\x00\x01a\x84\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_block_that_is_broken(raw, data):
    raw.say(block(1, data))
    last = await raw.end()
    assert last is not None
    assert last.error_code == COMPRESSION_ERROR


async def test_a_broken_block_on_a_call_that_is_over_breaks_the_connection_too(raw):
    """4.1: the table is the connection's, so that no block may be skipped."""
    await answers(raw, 1, PLAIN)
    raw.say(block(1, b"\x80", "END_STREAM"))
    assert (await raw.end()).error_code == COMPRESSION_ERROR


async def test_blocks_of_refused_calls_fill_the_table(raw):
    """4.1 again: what a call that is refused has added is there for the next."""
    added = b"\x83\x86\x44\x09/t.S/None\x40\x03abc\x03def"
    raw.say(block(1, added, "END_STREAM"))
    assert (await raw.answer(1)).headers[":status"] == "415"
    await answers(raw, 3, PLAIN + b"\xbe")  # the newest of the table: abc


async def test_every_form_of_a_field(raw):
    """6.1 and 6.2: indexed, with indexing, without, and never."""
    await answers(
        raw, 1, b"\x83\x86\x44\x09/t.S/Echo\x5f\x10application/grpc\x10\x02te\x08trailers"
    )
    await answers(raw, 3, b"\x83\x86\xbf\xbe\x00\x02te\x08trailers")
    await answers(raw, 5, raw.encoder.encode(headers_of(ECHO), huffman=True))


async def test_a_table_that_is_emptied_and_grows_again(raw):
    """4.3, 4.4 and 6.3."""
    await answers(raw, 1, b"\x83\x86\x44\x09/t.S/Echo" + PLAIN[13:])
    await answers(raw, 3, b"\x20\x3f\xe1\x1f" + PLAIN)
    raw.say(block(5, b"\xbe"))  # nothing is left there
    assert (await raw.end()).error_code == COMPRESSION_ERROR


async def test_a_field_larger_than_the_table_empties_it(raw):
    """4.4: that is no error."""
    long = b"\x40\x03big\x7f\x89\x26" + b"x" * 5_000
    await answers(raw, 1, PLAIN + b"\x40\x03abc\x03def")
    await answers(raw, 3, PLAIN + long)
    raw.say(block(5, b"\xbe"))
    assert (await raw.end()).error_code == COMPRESSION_ERROR
