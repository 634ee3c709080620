"""Versions rise over restarts, whatever the clock and the disk do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_api_core.checkpoint import BLOCK, VersionCeiling
from device_api_core.errors import SettingsError

NOW = 1_700_000_000_000_000


@contextmanager
def running(directory, clock=NOW):
    """One run of the server: its ceiling and its first version."""
    ceiling = VersionCeiling(str(directory))
    try:
        yield ceiling, ceiling.start(clock)
    finally:
        ceiling.close()


def on_disk(directory):
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        return connection.execute("SELECT ceiling FROM version").fetchall()


def test_without_a_directory_the_clock_is_all_there_is():
    with running("") as (ceiling, version):
        assert version == NOW
        ceiling.reached(NOW + 10 * BLOCK)


def test_the_first_run_starts_at_the_clock_and_reserves_a_block(tmp_path):
    with running(tmp_path / "new" / "dir") as (_, version):
        assert version == NOW
        assert on_disk(tmp_path / "new" / "dir") == [(NOW + BLOCK,)]
    assert (tmp_path / "new" / "dir").stat().st_mode & 0o777 == 0o700


def test_a_clock_that_was_set_back_does_not_set_versions_back(tmp_path):
    with running(tmp_path):
        pass
    with running(tmp_path, NOW - 10**12) as (_, version):
        assert version == NOW + BLOCK + 1
    with running(tmp_path, NOW + 10**12) as (_, version):
        assert version == NOW + 10**12


def test_a_new_block_is_reserved_when_half_of_one_is_used(tmp_path):
    with running(tmp_path) as (ceiling, version):
        ceiling.reached(version + BLOCK // 2)
    assert on_disk(tmp_path) == [(NOW + BLOCK,)]
    with running(tmp_path, NOW + 2 * BLOCK) as (ceiling, version):
        ceiling.reached(version + BLOCK // 2 + 1)
        ceiling.reached(version + BLOCK // 2 + 2)
    assert on_disk(tmp_path) == [(NOW + 4 * BLOCK,)]


@settings(max_examples=20)
@given(runs=st.lists(st.tuples(st.integers(0, 5 * BLOCK), st.integers(0, 4)), max_size=5))
def test_no_run_repeats_a_version_of_an_earlier_one(tmp_path_factory, runs):
    directory = tmp_path_factory.mktemp("state")
    highest = 0
    for clock, half_blocks in runs:
        with running(directory, clock) as (ceiling, version):
            assert version > highest
            for _ in range(half_blocks):
                version += BLOCK // 2
                ceiling.reached(version)
            highest = version


def test_a_directory_that_cannot_be_made_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="--state-dir: cannot use .*state.db"):
        VersionCeiling(str(tmp_path / "file")).start(NOW)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 1_000),
        lambda path: path.mkdir(),
        lambda path: sql(path, "CREATE TABLE version (other)"),
        lambda path: sql(path, *held("'text'")),
        lambda path: sql(path, *held("NULL")),
        lambda path: sql(path, *held("-5")),
        lambda path: sql(path, *held(str(2**63 - 1))),
    ],
    ids=["garbage", "directory", "schema", "text", "null", "negative", "too high"],
)
def test_a_damaged_file_stops_the_start(tmp_path, damage):
    damage(tmp_path / "state.db")
    with pytest.raises(SettingsError, match="move a damaged file away"):
        VersionCeiling(str(tmp_path)).start(NOW)


def held(value):
    return (
        "CREATE TABLE version (id INTEGER PRIMARY KEY CHECK (id = 1), ceiling INT)",
        f"INSERT INTO version VALUES (1, {value})",
    )


def sql(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_file_that_can_be_read_but_not_written_stops_the_start(tmp_path):
    with running(tmp_path):
        pass
    # Works for root too, unlike a mode: every write is refused by the file itself.
    sql(
        tmp_path / "state.db",
        "CREATE TRIGGER full BEFORE INSERT ON version BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    with pytest.raises(SettingsError, match="full"):
        VersionCeiling(str(tmp_path)).start(NOW)


def test_a_write_that_fails_later_is_counted_and_tried_again(tmp_path, caplog):
    with running(tmp_path) as (ceiling, version):
        sql(
            tmp_path / "state.db",
            "CREATE TRIGGER full BEFORE INSERT ON version BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        ceiling.reached(version + BLOCK)
        ceiling.close()
        assert ceiling.failures == 1
    assert "cannot write the version ceiling" in caplog.text
    sql(tmp_path / "state.db", "DROP TRIGGER full")
    with running(tmp_path, NOW) as (ceiling, version):
        assert version == NOW + BLOCK + 1
        ceiling.reached(version + BLOCK)
    assert on_disk(tmp_path) == [(NOW + 3 * BLOCK + 1,)]


def test_a_second_server_starts_above_the_first_and_neither_lowers_the_ceiling(tmp_path):
    with running(tmp_path) as (first, first_version):
        with running(tmp_path) as (second, second_version):
            assert second_version == NOW + BLOCK + 1
            second.reached(second_version + 3 * BLOCK)
        highest = on_disk(tmp_path)
        first.reached(first_version + BLOCK // 2 + 1)
    assert on_disk(tmp_path) == highest


def test_two_processes_never_start_from_one_version(tmp_path):
    script = (
        "import sys; from device_api_core.checkpoint import VersionCeiling; "
        "print(VersionCeiling(sys.argv[1]).start(1))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    versions = sorted(int(process.communicate()[0]) for process in started)
    assert versions == [1 + i * (BLOCK + 1) for i in range(4)]


def test_a_start_waits_for_the_reservation_of_another_server(tmp_path):
    with running(tmp_path):
        pass
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE version SET ceiling = ?", (NOW + 9 * BLOCK,))
    with ThreadPoolExecutor() as pool, closing(other):
        starting = pool.submit(start_once, tmp_path)
        time.sleep(0.05)  # too short a wait passes the test without having tried
        other.execute("COMMIT")
        assert starting.result() == NOW + 9 * BLOCK + 1


def start_once(directory):
    with running(directory) as (_, version):
        return version


def test_closing_twice_is_harmless(tmp_path):
    with running(tmp_path) as (ceiling, _):
        ceiling.close()
