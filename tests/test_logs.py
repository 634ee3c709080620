"""One event is one line, whatever a provider writes into it."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.logs import JsonFormatter, TextFormatter, facts_of, set_up

texts = st.text(st.characters(), max_size=60)
facts = st.dictionaries(st.sampled_from(("gpu", "provider", "reason")), texts | st.integers())


def record(message="said", args=(), level=logging.INFO, exc_info=None, **extra):
    made = logging.makeLogRecord(
        {
            "name": "device_api_core.x",
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message,
            "args": args,
            "created": 1_700_000_000.25,
            "exc_info": exc_info,
        }
    )
    vars(made).update(extra)
    return made


@given(texts, facts)
def test_any_event_is_one_line_of_json(message, extra):
    line = JsonFormatter().format(record("%s", (message,), **extra))
    assert len(line.splitlines()) == 1
    parsed = json.loads(line)
    assert parsed == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "device_api_core.x",
        "msg": message,
        **extra,
    }


@given(texts, facts)
def test_any_event_is_one_printable_line_of_text(message, extra):
    line = TextFormatter().format(record("%s", (message,), **extra))
    assert line.isprintable()
    line.encode()
    assert line.startswith("2023-11-14T22:13:20.250Z INFO    ")


def test_a_line_of_text_reads_well():
    line = TextFormatter().format(
        record("GPU %d übel", (3,), logging.WARNING, gpu="g", text='a "b" c', empty="", n=1)
    )
    assert line == (
        '2023-11-14T22:13:20.250Z WARNING GPU 3 übel gpu=g text="a \\"b\\" c" empty="" n=1'
    )


@pytest.mark.parametrize(
    ("told", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("a\u2028b", "a\\u2028b"), ("a\rb", "a\\rb")],
)
def test_what_a_terminal_would_obey_is_escaped(told, shown):
    assert TextFormatter().format(record(told)).endswith(shown)
    assert told not in TextFormatter().format(record(gpu=told))


def failure():
    try:
        int("broken")
    except ValueError as error:
        return (type(error), error, error.__traceback__)


def test_an_error_is_a_field_of_the_json_and_follows_the_text():
    parsed = json.loads(JsonFormatter().format(record(exc_info=failure())))
    assert parsed["error"].endswith("ValueError: invalid literal for int() with base 10: 'broken'")
    text = TextFormatter().format(record(exc_info=failure()))
    assert re.fullmatch(r".* said\nTraceback .*ValueError: .*'broken'", text, re.DOTALL)


def test_facts_are_what_the_call_added():
    assert facts_of(record(gpu="g", n=1)) == {"gpu": "g", "n": 1}


def test_values_that_are_not_json_are_written_as_text():
    parsed = json.loads(JsonFormatter().format(record(where=io.BytesIO)))
    assert parsed["where"] == "<class '_io.BytesIO'>"


@pytest.mark.parametrize(
    ("verbosity", "own", "libraries"),
    [(0, "INFO", "WARNING"), (1, "DEBUG", "WARNING"), (2, "DEBUG", "DEBUG")],
)
def test_verbosity_opens_our_own_detail_first(root_logger, verbosity, own, libraries):
    set_up("text", verbosity)
    set_up("text", verbosity)
    (handler,) = root_logger.handlers
    assert isinstance(handler.formatter, TextFormatter)
    assert logging.getLevelName(root_logger.level) == own
    for name in ("asyncio", "grpc"):
        assert logging.getLevelName(logging.getLogger(name).level) == libraries


def test_everything_goes_to_standard_error(root_logger, capsys):
    set_up("json", 0)
    logging.getLogger("device_api_core.x").info("hello", extra={"gpu": "g"})
    logging.getLogger("device_api_core.x").debug("detail")
    written = capsys.readouterr()
    assert written.out == ""
    assert json.loads(written.err)["gpu"] == "g"
