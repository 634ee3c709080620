"""The tables of the state database, and how GPUs become rows of them and are read back.

What is read was written by this program or by anybody: every value is checked like one that came
over the wire. The table ``version`` is the whole format of servers before 1.0, which kept only the
ceiling of the version counter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from device_api_core import codec
from device_api_core.conditions import Action, assembled
from device_api_core.conversion import NANOS
from device_api_core.entries import Entry
from device_api_core.errors import InvalidArgument
from device_api_core.resources import READY, Condition, ConditionStatus
from device_api_core.validation import (
    check_action,
    check_condition,
    check_name,
    check_provider_id,
    check_spec,
)

APPLICATION_ID = 0x64617069
FORMAT = 1
"""Of the tables. Another number is another format: such a file is set aside."""

MAX_CEILING = 2**62
"""Versions are 63 bits; in microseconds this is 146,000 years."""

_VERSION = "CREATE TABLE IF NOT EXISTS version (id INTEGER PRIMARY KEY CHECK (id = 1), ceiling INT)"
# A time is what a Timestamp is, since nanoseconds of years far away do not fit 64 bits.
_TABLES = (
    _VERSION,
    "CREATE TABLE boot (id INTEGER PRIMARY KEY CHECK (id = 1), boot_id TEXT NOT NULL)",
    "CREATE TABLE gpus (place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec BLOB NOT NULL, "
    "ready TEXT NOT NULL, seconds INTEGER NOT NULL, nanos INTEGER NOT NULL)",
    "CREATE TABLE registrants (gpu TEXT NOT NULL REFERENCES gpus (name) ON DELETE CASCADE, "
    "provider_id TEXT NOT NULL, PRIMARY KEY (gpu, provider_id))",
    "CREATE TABLE conditions (gpu TEXT NOT NULL REFERENCES gpus (name) ON DELETE CASCADE, "
    "type TEXT NOT NULL, provider_id TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, "
    "message TEXT NOT NULL, seconds INTEGER NOT NULL, nanos INTEGER NOT NULL, "
    "PRIMARY KEY (gpu, type, provider_id))",
    "CREATE TABLE actions (place INTEGER PRIMARY KEY, gpu TEXT NOT NULL REFERENCES gpus (name) "
    "ON DELETE CASCADE, provider_id TEXT NOT NULL, action TEXT NOT NULL)",
    "CREATE INDEX actions_of_gpu ON actions (gpu)",
)


class Damaged(Exception):
    """The file does not hold what this server can read."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that is kept: all GPUs in order of registration, the highest version that may
    have been handed out, the boot in which it was written (empty if unknown)."""

    entries: tuple[Entry, ...] = ()
    ceiling: int = 0
    boot_id: str = ""


def create(connection: sqlite3.Connection) -> None:
    """Begin with empty tables; the ceiling stays."""
    for table in ("actions", "conditions", "registrants", "gpus", "boot"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def write_boot(connection: sqlite3.Connection, boot_id: str) -> None:
    """Note in which boot of the node the rest is written."""
    connection.execute("INSERT INTO boot VALUES (1, ?)", (boot_id,))


def write_ceiling(connection: sqlite3.Connection, ceiling: int) -> None:
    """Note the highest version that may be handed out; it never falls."""
    connection.execute(
        "INSERT INTO version VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET ceiling = "
        "excluded.ceiling WHERE excluded.ceiling > ceiling",
        (ceiling,),
    )


def write_gpu(
    connection: sqlite3.Connection, name: str, before: Entry | None, after: Entry | None
) -> None:
    """Make the rows of a GPU those of ``after``, where they are those of ``before`` now."""
    if after is None:
        connection.execute("DELETE FROM gpus WHERE name = ?", (name,))
        return
    ready = after.health.ready
    connection.execute(
        "INSERT INTO gpus (name, spec, ready, seconds, nanos) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, ready = excluded.ready, "
        "seconds = excluded.seconds, nanos = excluded.nanos",
        (name, after.spec_bytes, ready.status.value, *_stamp(ready)),
    )
    _write_registrants(connection, name, before, after)
    _write_conditions(connection, name, before, after)
    if before is None or before.health.actions != after.health.actions:
        connection.execute("DELETE FROM actions WHERE gpu = ?", (name,))
        connection.executemany(
            "INSERT INTO actions (gpu, provider_id, action) VALUES (?, ?, ?)",
            [(name, a.provider_id, a.action) for a in after.health.actions],
        )


def _write_registrants(
    connection: sqlite3.Connection, name: str, before: Entry | None, after: Entry
) -> None:
    known = before.registrants if before is not None else frozenset()
    if known == after.registrants:
        return
    connection.executemany(
        "DELETE FROM registrants WHERE gpu = ? AND provider_id = ?",
        [(name, id_) for id_ in known - after.registrants],
    )
    connection.executemany(
        "INSERT INTO registrants VALUES (?, ?)", [(name, id_) for id_ in after.registrants - known]
    )


def _write_conditions(
    connection: sqlite3.Connection, name: str, before: Entry | None, after: Entry
) -> None:
    known = before.health.conditions if before is not None else ()
    same = set(map(id, known)) & set(map(id, after.health.conditions))
    left = {(c.type, c.provider_id) for c in after.health.conditions}
    connection.executemany(
        "DELETE FROM conditions WHERE gpu = ? AND type = ? AND provider_id = ?",
        [(name, c.type, c.provider_id) for c in known if (c.type, c.provider_id) not in left],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO conditions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (name, c.type, c.provider_id, c.status.value, c.reason, c.message, *_stamp(c))
            for c in after.health.conditions
            if id(c) not in same
        ],
    )


def read_ceiling(connection: sqlite3.Connection) -> int:
    """The ceiling alone. Raises ``Damaged``, ``sqlite3.Error``."""
    row = connection.execute("SELECT ceiling FROM version WHERE id = 1").fetchone()
    ceiling = row[0] if row else 0
    if not isinstance(ceiling, int) or not 0 <= ceiling < MAX_CEILING:
        raise Damaged(f"it holds {ceiling!r} in place of a version")
    return ceiling


def read(connection: sqlite3.Connection, now: int) -> Contents:
    """Everything. Raises ``Damaged``, ``sqlite3.Error``."""
    if not _is_ours(connection):
        return Contents(ceiling=read_ceiling(connection))
    for problem in connection.execute("PRAGMA integrity_check(1)"):
        if problem[0] != "ok":
            raise Damaged(f"its integrity is broken: {problem[0]}")
    boot = connection.execute("SELECT boot_id FROM boot").fetchone()
    try:
        entries = tuple(_entries(connection, now))
        _check_together(entries)
    except (InvalidArgument, ValueError, TypeError, KeyError, AttributeError) as error:
        # A value of another type fails in as many ways as there are uses of it.
        raise Damaged(f"a row of it breaks the rules: {error}") from error
    return Contents(entries, read_ceiling(connection), str(boot[0]) if boot else "")


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Whether it has our tables; False is a file of which only the ceiling is known."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {row[0] for row in found}
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    number = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == 0 and number == 0 and tables == {"version"}:
        return False
    if application != APPLICATION_ID:
        raise Damaged("it belongs to another program")
    if number != FORMAT:
        age = "a newer" if number > FORMAT else "an older"
        raise Damaged(f"it is of format {number}, which is {age} server's; this one has {FORMAT}")
    _check_schema(connection)
    return True


def _check_schema(connection: sqlite3.Connection) -> None:
    """SQLite's own check overlooks an index of a table that is not there, and the next write would
    make the file unreadable."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        create(fresh)
        for kind, name, *_ in sorted(_schema(fresh) - _schema(connection)):
            raise Damaged(f"its {kind} {name} is not as this server makes it")


def _schema(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    # The table of versions may be one of an older server.
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name != 'version'"
    return set(connection.execute(query))


@dataclass(slots=True)
class _Parts:
    spec: bytes
    ready: Condition
    registrants: set[str] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)


def _entries(connection: sqlite3.Connection, now: int) -> Iterator[Entry]:
    gpus: dict[str, _Parts] = {}
    for name, spec, ready, *stamp in connection.execute(
        "SELECT name, spec, ready, seconds, nanos FROM gpus ORDER BY place"
    ):
        check_name(name)
        gpus[name] = _Parts(spec, Condition(READY, ConditionStatus(ready), "", "", _time(*stamp)))
    for name, provider_id in connection.execute("SELECT gpu, provider_id FROM registrants"):
        check_provider_id(provider_id)
        gpus[name].registrants.add(provider_id)
    for name, *values in connection.execute(
        "SELECT gpu, type, provider_id, status, reason, message, seconds, nanos FROM conditions"
    ):
        gpus[name].conditions.append(_condition(*values))
    for name, provider_id, action in connection.execute(
        "SELECT gpu, provider_id, action FROM actions ORDER BY place"
    ):
        check_provider_id(provider_id)
        check_action(action)
        gpus[name].actions.append(Action(provider_id, action))
    for name, parts in gpus.items():
        spec = codec.parse_spec(parts.spec)
        check_spec(spec)
        health = assembled(parts.conditions, tuple(parts.actions), parts.ready, now)
        yield Entry(name, spec, frozenset(parts.registrants), health)


def _condition(*values: Any) -> Condition:
    type_, provider_id, status, reason, message, seconds, nanos = values
    check_provider_id(provider_id)
    condition = Condition(
        type_, ConditionStatus(status), reason, message, _time(seconds, nanos), provider_id
    )
    check_condition(condition)
    return condition


def _check_together(entries: Iterable[Entry]) -> None:
    uuids: set[str] = set()
    for entry in entries:
        types = [c.type for c in entry.health.conditions if c.type != READY]
        if len(types) != len(set(types)):
            raise ValueError(f"two providers own one condition type of {entry.name}")
        if entry.spec.uuid:
            if entry.spec.uuid.casefold() in uuids:
                raise ValueError(f"two GPUs have uuid {entry.spec.uuid}")
            uuids.add(entry.spec.uuid.casefold())


def _stamp(condition: Condition) -> tuple[int, int]:
    return divmod(condition.last_transition_time or 0, NANOS)


def _time(seconds: Any, nanos: Any) -> int:
    # A column takes any type, and a text a billion times takes all the memory of a node.
    if not (isinstance(seconds, int) and isinstance(nanos, int)):
        raise TypeError(f"it holds {(seconds, nanos)!r:.99} in place of a time")
    return seconds * NANOS + nanos
