"""The benchmarks still run; what they measure is nobody's business here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Curve, against, growth_table

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


def test_without_go_the_peer_is_left_out_with_the_command_that_installs_it(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "peer"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "apt install golang-go" in done.stderr


def test_growth_is_measured_of_three_servers_in_turns(tmp_path):
    file = tmp_path / "figures.json"
    options = ("--quick", "--only", "scaling", "--json", str(file))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "skipped" in done.stderr:
        pytest.skip(done.stderr)
    assert "h2 / Go peer / grpcio" in done.stdout
    curves = {(c["axis"], c["name"]): c["points"] for c in json.loads(file.read_text())["curves"]}
    assert {axis for axis, _ in curves} == {"GPUs", "watchers", "writes offered a second"}
    lost = curves.pop(("writes offered a second", "events lost"))
    assert lost == {server: {"1": 0, "3": 0} for server in ("h2", "Go peer", "grpcio")}
    for points in curves.values():
        assert list(points) == ["h2", "Go peer", "grpcio"]
        assert all(len(line) == 2 and min(line.values()) > 0 for line in points.values())


def test_a_table_of_growth_has_a_line_for_each_count():
    curve = Curve("GPUs", "RSS", "MiB")
    for server, at, value in (("h2", 1, 31.25), ("Go peer", 1, 9.0), ("h2", 1_024, 141.0)):
        curve.add(server, at, value)
    table = growth_table([curve])
    assert table.startswith("h2 / Go peer:")
    assert "| 1     | 31.2 / 9 |" in table
    assert "| 1,024 | 141 / -  |" in table


@pytest.mark.parametrize(
    ("ratio", "at_least", "verdict"),
    [(0.5, False, "MISSED"), (0.4, False, "ok"), (0.2, False, "ok, aim reached")]
    + [(0.1, True, "MISSED"), (0.3, True, "ok"), (0.4, True, "ok, aim reached")],
)
def test_a_ratio_is_held_against_both_goals(ratio, at_least, verdict):
    goals = (0.2, 0.4) if at_least else (0.4, 0.2)
    figure = against("x", "us", [ratio], [1.0], goals, at_least=at_least)
    assert figure.verdict == verdict
