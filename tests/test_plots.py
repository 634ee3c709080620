"""The pictures of the benchmarks show what the figures say."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.panels import Panel, Scale, svg
from benchmarks.plot import pictures

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"
HIGHEST, LOWEST = 36, 216

positive = st.floats(1e-3, 1e6)


def curve(axis, name, points):
    return {"axis": axis, "name": name, "unit": "us", "points": points}


def drawn(panel):
    """The texts of a picture with one panel, its lines, and the labels' heights."""
    root = ET.fromstring(svg("title", [panel]))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    lines = [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    labels = [float(t.get("y")) for t in root.iter(f"{SVG}text") if t.get("class") == "label"]
    return texts, lines, labels


def test_a_picture_for_each_axis_and_one_of_propagation(tmp_path):
    facts = {
        "figures": [
            {"name": "write to the last of 1 watcher: p50", "server": 1.0, "bare": 0.5},
            {"name": "write to the last of 1,000 watchers: p50", "server": 50.0, "bare": 40.0},
            {"name": "RSS at rest", "server": 40.0, "bare": None},
        ],
        "curves": [
            curve("GPUs", "latency", {"h2": {"1": 2.0, "4": 3.0}}),
            curve("writes offered a second", "p99", {"h2": {"1": 2.0}}),
        ],
    }
    source = tmp_path / "figures.json"
    source.write_text(json.dumps(facts))
    command = [sys.executable, "-m", "benchmarks.plot", str(source), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    names = {path.name for path in tmp_path.glob("*.svg")}
    assert names == {"propagation.svg", "scaling-gpus.svg", "scaling-writes.svg"}
    text = (tmp_path / "propagation.svg").read_text()
    assert "p50, ms" in text
    assert ">1,000<" in text
    assert "latency, µs" in (tmp_path / "scaling-gpus.svg").read_text()


def test_what_reaches_zero_has_no_logarithmic_plot():
    lost = curve("writes offered a second", "events lost", {"h2": {"1": 0, "3": 1}})
    seen = curve("writes offered a second", "achieved", {"h2": {"1": 1, "3": 3}})
    picture = pictures({"figures": [], "curves": [lost, seen]})["scaling-writes.svg"]
    assert "achieved" in picture
    assert "events lost" not in picture


def test_ten_times_as_much_is_as_far_everywhere():
    panel = Panel("p", "x", {"h2": [(1, 1), (10, 10), (100, 100)], "Go": [(1, 2), (100, 5)]})
    texts, lines, _ = drawn(panel)
    (x1, y1), (x2, y2), (x3, y3) = lines[0]
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert (y1, y3) == (LOWEST, HIGHEST)
    assert {"1", "10", "100", "h2", "Go", "p", "x"} <= set(texts)


@given(st.lists(st.lists(positive, min_size=1, max_size=4), min_size=1, max_size=3))
def test_lines_stay_inside_and_labels_apart(values):
    lines = {f"s{n}": list(enumerate(line, 1)) for n, line in enumerate(values)}
    _, found, labels = drawn(Panel("p", "x", lines))
    for line in found:
        assert all(HIGHEST - 0.1 <= y <= LOWEST + 0.1 for _, y in line)
    assert all(HIGHEST <= y - 4 <= LOWEST for y in labels)
    assert all(below - above >= 14.8 for above, below in pairwise(sorted(labels)))


@given(positive, positive)
def test_an_axis_has_round_numbers_that_hold_the_values(one, other):
    ticks = Scale([one, other], 0, 100).ticks()
    assert len(ticks) >= 2
    assert all(re.fullmatch(r"[125]e[+-]\d\d", f"{tick:.0e}") for tick in ticks)
    low, high = sorted((one, other))
    assert ticks[0] / 10 <= low
    assert ticks[-1] * 10 >= high


def test_dark_readers_get_other_colours_and_their_own_background():
    picture = svg("t", [Panel("p", "x", {"h2": [(1, 1)]})])
    light, dark = picture.split("prefers-color-scheme: dark")
    for name in ("paper", "ink", "soft", "grid", "first", "second", "third"):
        values = [re.search(rf"--{name}: (#\w+)", part)[1] for part in (light, dark)]
        assert values[0] != values[1]
    assert 'fill="var(--paper)"' in picture
