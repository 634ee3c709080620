"""The benchmarks still run; what they measure is nobody's business here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What the quickest two of them say and write."""
    file = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick", "--json", str(file)),
            *("--only", "startup", "--only", "bridge"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_a_quick_run_prints_a_table_with_goals(result):
    printed, _ = result
    assert "| start to /readyz 200 " in printed
    assert "<= 0.6 s" in printed


def test_the_figures_can_be_read_by_programs(result):
    _, written = result
    assert written["quick"] is True
    units = [figure["unit"] for figure in written["figures"]]
    assert units == ["s", "s", "ms", "ms", "us", "ms", "ms"]
    assert all(figure["server"] > 0 for figure in written["figures"])


def test_an_unknown_benchmark_is_refused():
    command = [sys.executable, "-m", "benchmarks", "--only", "speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "growth" in done.stderr
