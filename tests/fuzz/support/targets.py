"""What is fuzzed: each target takes any bytes, and raises if a promise about them is broken."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from device_api_dcgm import exposition
from device_api_nvsentinel_bridge import events as nvsentinel
from device_api_nvsentinel_bridge._proto import health_event_pb2
from device_api_nvsentinel_bridge.options import BridgeOptions
from google.protobuf.message import DecodeError
from messages import Source, build
from protocols import h2_words, rpc, says_why

from device_api_core import codec, rows
from device_api_core._proto import gpu_pb2, provider_pb2
from device_api_core.cli.jsonpath import BadTemplate, JsonPathError, parse_path, parse_template
from device_api_core.configuration import read_file
from device_api_core.conversion import condition_to_proto, gpu_spec_to_proto
from device_api_core.database import FILE, Database
from device_api_core.entries import Entry, encoded
from device_api_core.errors import InvalidArgument, SettingsError
from device_api_core.resources import Condition, ConditionStatus
from device_api_core.settings import Settings
from device_api_core.validation import check_condition, check_spec

Target = Callable[[bytes], None]
NOW = 1_700_000_000_000_000_000
_DOCUMENT = json.loads(
    '{"items":[{"metadata":{"name":"gpu-0"},"status":{"conditions":[{"type":"Ready","status":'
    '"True","n":1.5},{"type":"Fan","status":"False","n":null}]}},{"metadata":{}}],"a.b":[[1,2],3]}'
)


def dcgm_exposition(data: bytes) -> None:
    """Whatever an exporter says, what can be read is, and the rest is counted."""
    found = exposition.parse(data)
    assert found.skipped <= data.count(b"\n") + 1
    for name, reading in found.gpus.items():
        assert name == reading.spec.uuid.lower()
        check_spec(reading.spec)


def nvsentinel_event(data: bytes) -> None:
    """An event that counts can be said of a GPU."""
    source = Source(data)
    if source.number(2):
        message = build(health_event_pb2.HealthEvent, source)
    else:
        message = health_event_pb2.HealthEvent()
        try:
            message.ParseFromString(source.rest())
        except DecodeError:
            return
    options = BridgeOptions(node_name="gpu-0")
    nvsentinel.lacks_custom_action(message)
    nvsentinel.has_unknown_enum(message)
    if nvsentinel.screen(message, options) is not None:
        return
    event = nvsentinel.read_event(message, NOW, options)
    assert len(event.text.encode()) <= nvsentinel.TEXT_BYTES
    assert 0 < event.time <= NOW
    type_ = nvsentinel.condition_word(event.check)
    for code in ("", *event.codes):
        reason = nvsentinel.reason_for(event.check, code)
        check_condition(Condition(type_, event.status, reason, event.text, event.time))


def jsonpath(data: bytes) -> None:
    """A template is refused, or renders or says why it does not."""
    text = data.decode("utf-8", errors="replace")
    with suppress(BadTemplate, JsonPathError):
        parse_path(text).find(_DOCUMENT)
    try:
        parse_template(text).render(_DOCUMENT)
    except (BadTemplate, JsonPathError) as error:
        says_why(error)


def settings_file(data: bytes) -> None:
    """A file of settings is taken or refused with a reason."""
    with tempfile.NamedTemporaryFile(dir=_memory(), suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            settings = Settings(**read_file(file.name))
        except SettingsError as error:
            says_why(error)
            return
    assert settings.dedicated_sockets is not None
    assert settings.isolated is not None
    assert settings.provider_options is not None


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def state_file(data: bytes) -> None:
    """Any file is read or set aside and told of, and what was read can be kept and read again."""
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        path = Path(directory, FILE)
        path.write_bytes(data)
        with _database(directory) as database:
            found = database.load(NOW)
            assert path.exists() or database.take_notes()
            everything = {e.name: encoded(e, None, 1) for e in found.entries}
            database.write(everything, everything, ceiling=found.ceiling, boot_id=found.boot_id)
        with _database(directory) as database:
            again = database.load(NOW)
            assert database.take_notes() == ()
    assert (again.ceiling, again.boot_id) == (found.ceiling, found.boot_id)
    assert list(map(_content, again.entries)) == list(map(_content, found.entries))


def _content(entry: Entry) -> tuple[object, ...]:
    health = entry.health
    return entry.name, entry.spec, entry.registrants, health.conditions, health.actions


@contextmanager
def _database(directory: str) -> Iterator[Database]:
    database = Database(Path(directory))
    database.claim()
    try:
        yield database
    finally:
        database.release()


def state_rows(data: bytes) -> None:
    """The same for any values in the right tables."""
    source = Source(data)
    with closing(sqlite3.connect(":memory:")) as connection:
        rows.create(connection)
        tables = {
            table: len(connection.execute(f"PRAGMA table_info({table})").fetchall())
            for table in ("gpus", "registrants", "conditions", "actions", "version", "boot")
        }
        while source:
            table = source.choose(tuple(tables))
            values = [_value(source) for _ in range(tables[table])]
            marks = ",".join("?" * len(values))
            with suppress(sqlite3.Error):
                connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)
        try:
            contents = rows.read(connection, NOW)
        except (rows.Damaged, sqlite3.Error) as error:
            says_why(error)
            return
    assert 0 <= contents.ceiling < rows.MAX_CEILING


def _value(source: Source) -> str | int | float | bytes | None:
    kinds = (
        source.text,
        source.text,
        lambda: source.number(3),
        lambda: source.integer(-(2**63), 2**63 - 1),
        lambda: source.take(source.number(20)),
        lambda: build(gpu_pb2.GpuSpec, source).SerializeToString(),
        lambda: None,
        lambda: source.number(100) / 7,
    )
    return source.choose(kinds)()


def conversion(data: bytes) -> None:
    """What is decoded and allowed comes back when it is encoded and decoded again."""
    source = Source(data)
    with suppress(InvalidArgument):
        condition = codec.decode_condition(_any(gpu_pb2.Condition, source), "alpha", "condition")
        check_condition(condition)
        again = codec.decode_condition(condition_to_proto(condition), "alpha", "condition")
        assert again == condition
        assert isinstance(condition.status, ConditionStatus)
    with suppress(InvalidArgument):
        spec = codec.parse_spec(_any(gpu_pb2.GpuSpec, source).SerializeToString())
        check_spec(spec)
        assert codec.parse_spec(gpu_spec_to_proto(spec).SerializeToString()) == spec
    with suppress(InvalidArgument):
        codec.decode_numbers(_any(provider_pb2.ProviderNumbers, source))


def _any(kind: type, source: Source):
    if source.number(4):
        return build(kind, source)
    return codec.decode(kind, source.take(source.number(200)))


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        dcgm_exposition,
        nvsentinel_event,
        jsonpath,
        settings_file,
        state_file,
        state_rows,
        conversion,
        h2_words,
        rpc,
    )
}
