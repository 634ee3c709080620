"""The checkpoint is hit at every single write: nothing that was acknowledged is lost, and what is
there is whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from disk import FaultyDisk

CRASHES = Path(__file__).parent / "support" / "disk" / "crashes.py"


@pytest.fixture
def folder():
    """A directory in memory where there is one: what is synced is decided by the faulty disk, and
    the real one takes its time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


def play(folder, *what):
    """Returns how many writes were hit."""
    disk = FaultyDisk(folder / "control")
    durable = folder / "durable" if what[0] == "crash" else None
    environment = disk.environment(folder / "state", durable)
    done = subprocess.run(
        [sys.executable, CRASHES, folder, *what],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("start", ["fresh", "earlier"])
def test_what_was_acknowledged_survives_a_crash_and_a_power_loss_at_any_write(folder, start):
    assert play(folder, "crash", start) > 30


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_once_is_made_good(folder, error):
    assert play(folder, "fail", str(error)) > 30
