"""The state file: what goes in comes out, and a file that is not ours to use stops nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "support"))

from kept import NOW, entries

from device_api_core.conditions import assembled
from device_api_core.database import MAX_ASIDE, Database
from device_api_core.entries import Entry, encoded
from device_api_core.errors import SettingsError
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.rows import FORMAT, Contents

NAMES = ("gpu-0", "gpu-1", "gpu-2")


@pytest.fixture
def claimed(tmp_path):
    """Makes databases of one directory, one after the other."""
    made = []

    def make(directory=tmp_path):
        for database in made:
            database.release()
        database = Database(directory)
        database.claim()
        made.append(database)
        return database

    yield make
    for database in made:
        database.release()


def write(database, *gpus, ceiling=7, boot_id="boot"):
    everything = {gpu.name: gpu for gpu in gpus}
    database.write(everything, everything, ceiling=ceiling, boot_id=boot_id)


def content(entry):
    """What has to come back: the bytes are made anew."""
    ready = entry.health.ready
    return (
        entry.name,
        entry.spec,
        entry.registrants,
        entry.health.conditions,
        entry.health.actions,
        (ready.status, ready.last_transition_time),
    )


states = st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=3).flatmap(
    lambda names: st.tuples(*(entries(name) for name in names)).map(
        lambda gpus: {gpu.name: gpu for gpu in gpus}
    )
)


@settings(max_examples=40)
@given(history=st.lists(states, min_size=1, max_size=4))
def test_any_history_of_changes_is_read_back_as_its_last_state(tmp_path_factory, history):
    database = Database(tmp_path_factory.mktemp("state"))
    database.claim()
    before = {}
    for number, state in enumerate(history):
        order = {name: None for name in (*before, *state) if name in state}
        changed = {name: state.get(name) for name in before | state}
        database.write(changed, state, ceiling=number, boot_id="boot")
        assert database.load(NOW).ceiling == number
        before = {name: state[name] for name in order}
    contents = database.load(NOW)
    assert [content(e) for e in contents.entries] == [content(e) for e in before.values()]
    assert (contents.boot_id, database.take_notes()) == ("boot", ())
    database.release()


@settings(max_examples=20)
@given(gpu=entries("gpu-0"))
def test_a_change_of_one_condition_leaves_the_others(tmp_path_factory, gpu):
    database = Database(tmp_path_factory.mktemp("state"))
    database.claim()
    write(database, gpu)
    for one in gpu.health.conditions:
        others = tuple(c for c in gpu.health.conditions if c is not one)
        changed = (*others, replace(one, message=f"not {one.message}"))
        gpu = replace(gpu, health=replace(gpu.health, conditions=tuple(sorted(changed, key=key))))
        database.write({gpu.name: gpu}, {gpu.name: gpu}, ceiling=8, boot_id="boot")
    assert database.load(NOW).entries[0].health.conditions == gpu.health.conditions
    database.release()


def key(condition):
    return condition.type, condition.provider_id


def fault(name="gpu-0"):
    broken = Condition("Fan", ConditionStatus.FALSE, "Broken", "", NOW, "alpha")
    health = assembled([broken], (), None, NOW)
    return encoded(Entry(name, GpuSpec(uuid=f"u-{name}"), frozenset({"alpha"}), health), None, 1)


def test_files_and_directory_are_for_their_owner_only(tmp_path, claimed):
    directory = tmp_path / "new" / "state"
    write(claimed(directory), fault())
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "state.db").stat().st_mode & 0o777 == 0o600


def test_a_missing_file_is_no_alarm(claimed):
    database = claimed()
    assert database.load(NOW) == Contents()
    assert database.take_notes() == ()


def test_the_ceiling_never_falls(claimed):
    database = claimed()
    write(database, ceiling=9)
    write(database, ceiling=3)
    assert database.load(NOW).ceiling == 9


# --- other files


def sql(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def ceiling_only(path, value="42"):
    path.unlink()
    sql(
        path,
        "CREATE TABLE version (id INTEGER PRIMARY KEY CHECK (id = 1), ceiling INT)",
        f"INSERT INTO version VALUES (1, {value})",
    )


def test_the_format_of_before_is_taken_over(tmp_path, claimed):
    (tmp_path / "state.db").touch()
    ceiling_only(tmp_path / "state.db")
    database = claimed()
    assert database.load(NOW) == Contents(ceiling=42)
    write(database, fault(), ceiling=43)
    assert database.take_notes() == ()
    contents = claimed().load(NOW)
    assert ([e.name for e in contents.entries], contents.ceiling) == (["gpu-0"], 43)


def foreign(path):
    path.unlink()
    sql(path, "CREATE TABLE bookmarks (url TEXT)")


def torn(path):
    path.write_bytes(path.read_bytes()[:-5_000])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(bytes(data))


def schema(path):
    """SQLite complains of this by quoting it, in bytes that are no text."""
    data = path.read_bytes()
    assert b"CREATE TABLE boot" in data
    path.write_bytes(data.replace(b"CREATE TABLE boot", b"CREATE TABL\xff boot"))


def orphan(path):
    """An index that has lost its table: SQLite does not mind until the table is written anew."""
    data = path.read_bytes()
    named = b"sqlite_autoindex_conditions_1conditions"
    assert named in data
    path.write_bytes(data.replace(named, named[:-1] + b"z"))


DAMAGES = {
    "garbage": (lambda path: path.write_bytes(b"no database" * 1_000), 0, "not a database"),
    "a directory": (lambda path: path.unlink() or path.mkdir(), 0, "no file"),
    "a pipe": (lambda path: path.unlink() or os.mkfifo(path), 0, "no file"),
    "torn": (torn, None, ""),
    "a page of zeros": (flipped, None, ""),
    "a schema that is no text": (schema, 0, "can't decode"),
    "an index without a table": (orphan, 7, "sqlite_autoindex_conditions_1 is not as"),
    "foreign": (foreign, 0, "another program"),
    "newer": (lambda path: sql(path, f"PRAGMA user_version = {FORMAT + 1}"), 7, "newer"),
    "older": (lambda path: sql(path, "PRAGMA user_version = 0"), 7, "older"),
    "a table less": (lambda path: sql(path, "DROP TABLE actions"), 7, "its index actions_of_gpu"),
    "a status": (lambda path: sql(path, "UPDATE conditions SET status = 'Bad'"), 7, "Bad"),
    "a name": (lambda path: sql(path, "UPDATE gpus SET name = '?' WHERE place = 1"), 7, "name"),
    "an owner": (lambda path: sql(path, "UPDATE OR IGNORE registrants SET gpu = 'x'"), 7, "x"),
    "a spec": (lambda path: sql(path, "UPDATE gpus SET spec = x'ffff'"), 7, "GpuSpec"),
    "a time": (
        lambda path: sql(path, "UPDATE conditions SET seconds = 'now'"),
        7,
        "place of a time",
    ),
    "a type": (lambda path: sql(path, "UPDATE conditions SET type = 5"), 7, ""),
    "text": (lambda path: sql(path, "UPDATE conditions SET message = CAST(x'ff' AS TEXT)"), 7, ""),
    "no version": (lambda path: sql(path, "UPDATE version SET ceiling = 'x'"), 0, "version"),
    "a version too high": (
        lambda path: sql(path, f"UPDATE version SET ceiling = {2**63 - 1}"),
        0,
        "version",
    ),
    "a version below 0": (lambda path: sql(path, "UPDATE version SET ceiling = -1"), 0, "version"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_cannot_be_used_is_set_aside_loudly_and_stops_nothing(
    tmp_path, claimed, damage
):
    path = tmp_path / "state.db"
    do, ceiling, why = DAMAGES[damage]
    database = claimed()
    write(database, fault("gpu-0"), fault("gpu-1"))
    database.release()
    do(path)
    before = path.read_bytes() if path.is_file() else None
    database = claimed()
    contents = database.load(NOW)
    assert contents.entries == ()
    assert ceiling is None or contents.ceiling == ceiling
    (note,) = database.take_notes()
    assert "was set aside as" in note
    assert why in note
    if before is not None:
        assert (tmp_path / "state.db.aside-1").read_bytes() == before
    write(database, fault("gpu-2"))
    database = claimed()
    assert [e.name for e in database.load(NOW).entries] == ["gpu-2"]
    assert database.take_notes() == ()


def test_an_empty_file_is_told_and_used(tmp_path, claimed):
    (tmp_path / "state.db").touch()
    database = claimed()
    assert database.load(NOW) == Contents()
    assert "is empty" in database.take_notes()[0]
    write(database, fault())
    assert len(claimed().load(NOW).entries) == 1
    assert not list(tmp_path.glob("*aside*"))


def test_a_log_without_its_database_is_set_aside(tmp_path, claimed):
    write(claimed(), fault())
    (tmp_path / "state.db").rename(tmp_path / "elsewhere")
    database = claimed()
    (tmp_path / "state.db-wal").write_bytes(b"x")
    assert database.load(NOW) == Contents()
    assert "was set aside" in database.take_notes()[0]
    assert (tmp_path / "state.db.aside-1-wal").exists()


def test_only_a_few_files_are_kept_aside_the_newest(tmp_path, claimed):
    for number in range(MAX_ASIDE + 2):
        database = claimed()
        (tmp_path / "state.db").write_text(f"garbage {number}" * 100)
        database.load(NOW)
    numbers = sorted(int(p.name.rpartition("-")[2]) for p in tmp_path.glob("*.aside-*"))
    assert numbers == list(range(3, MAX_ASIDE + 3))


# --- while it runs


def test_a_file_that_was_removed_is_written_anew_and_whole(tmp_path, claimed):
    database = claimed()
    write(database, fault("gpu-0"))
    for path in tmp_path.iterdir():
        path.unlink()
    new = fault("gpu-1")
    everything = {"gpu-0": fault("gpu-0"), "gpu-1": new}
    database.write({"gpu-1": new}, everything, ceiling=8, boot_id="boot")
    assert "removed or replaced" in database.take_notes()[0]
    assert [e.name for e in claimed().load(NOW).entries] == ["gpu-0", "gpu-1"]


def test_a_file_put_in_its_place_is_not_written_over(tmp_path, claimed):
    database = claimed()
    write(database, fault())
    (tmp_path / "other").write_text("precious")
    (tmp_path / "other").rename(tmp_path / "state.db")
    write(database, fault())
    assert (tmp_path / "state.db.aside-1").read_text() == "precious"
    assert any("was set aside" in note for note in database.take_notes())
    assert len(claimed().load(NOW).entries) == 1


def test_a_file_that_is_damaged_while_it_runs_is_replaced_from_memory(tmp_path, claimed):
    database = claimed()
    write(database, fault())
    database.close()
    (tmp_path / "state.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(sqlite3.DatabaseError):
        write(database, fault())
    write(database, fault())
    assert "was set aside" in database.take_notes()[0]
    database.close()
    schema(tmp_path / "state.db")
    with pytest.raises(UnicodeDecodeError):
        write(database, fault())
    write(database, fault())
    assert "was set aside" in database.take_notes()[0]
    assert len(claimed().load(NOW).entries) == 1


def test_a_first_write_that_fails_again_and_again_sets_nothing_aside(tmp_path, claimed):
    (tmp_path / "state.db").write_text("precious")
    database = claimed()
    database.load(NOW)
    broken = replace(fault(), spec_bytes=object())
    for _ in range(MAX_ASIDE + 1):
        with pytest.raises(sqlite3.Error):
            write(database, broken)
    write(database, fault())
    assert (tmp_path / "state.db.aside-1").read_text() == "precious"
    assert not (tmp_path / "state.db.aside-2").exists()


def test_a_second_server_is_kept_out(tmp_path, claimed):
    claimed()
    script = (
        "import sys, pathlib; from device_api_core.database import Database; "
        "Database(pathlib.Path(sys.argv[1])).claim()"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert f"another server uses {tmp_path}: stop it or name another directory" in done.stderr


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="--state-dir: cannot use .*file"):
            Database(path).claim()
