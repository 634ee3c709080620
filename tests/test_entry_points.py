import sys
import zipfile
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.entry_points import EntryPoint, entry_points, parse

GROUP = "t.things"


def install(directory, folder, *, entries="", name="", version="1.2", file="METADATA"):
    own = directory / folder
    own.mkdir(parents=True)
    (own / "entry_points.txt").write_text(entries)
    (own / file).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no")


def known_to_python(group):
    found = metadata.entry_points(group=group)
    return sorted((p.name, p.value, p.dist.name, p.dist.version) for p in found)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Two directories on Python's path, of which the second is searched last."""
    first, last = tmp_path / "first", tmp_path / "last"
    monkeypatch.setattr(sys, "path", [str(first), str(tmp_path / "missing"), *sys.path, str(last)])
    return first, last


@pytest.mark.parametrize(
    "group", ["console_scripts", "pytest11", "device_api.providers", "device_api.transports"]
)
def test_what_is_installed_here_is_what_python_says(group):
    found = sorted(map(tuple, entry_points(group)))
    assert found == known_to_python(group)
    assert found


def test_a_distribution_counts_where_it_is_found_first(path):
    first, last = path
    install(first, "a_b-1.dist-info", entries=f"[{GROUP}]\nx = m:one", name="a.b")
    install(last, "A.B-2.dist-info", entries=f"[{GROUP}]\nx = m:two", name="a-b")
    install(last, "c.egg-info", entries=f"[{GROUP}]\ny=m", name="c", file="PKG-INFO")
    (first / "d.egg-info").write_text("Name: d\n")
    found = sorted(entry_points(GROUP))
    assert found == [EntryPoint("x", "m:one", "a.b", "1.2"), EntryPoint("y", "m", "c", "1.2")]
    assert sorted(map(tuple, found)) == known_to_python(GROUP)


@pytest.mark.parametrize("archive", ["wheel.zip", "tool.egg"])
def test_a_distribution_in_an_archive_is_found(path, tmp_path, monkeypatch, archive):
    install(tmp_path, "EGG-INFO", entries=f"[{GROUP}]\nz = m", name="z", file="PKG-INFO")
    inside = "EGG-INFO" if archive.endswith(".egg") else "z-1.2.dist-info"
    with zipfile.ZipFile(tmp_path / archive, "w") as packed:
        for file in (tmp_path / "EGG-INFO").iterdir():
            name = file.name.replace("PKG-INFO", "METADATA") if "dist" in inside else file.name
            packed.write(file, f"{inside}/{name}")
    monkeypatch.syspath_prepend(str(tmp_path / archive))
    assert entry_points(GROUP) == [EntryPoint("z", "m", "z", "1.2")]


def test_a_distribution_that_only_a_finder_knows_is_found(monkeypatch):
    class Known(metadata.Distribution):
        def read_text(self, filename):
            texts = {"METADATA": "Name: k\nVersion: 3\n", "entry_points.txt": f"[{GROUP}]\nk = m"}
            return texts.get(filename)

        def locate_file(self, path):
            return path

    class Finder(metadata.DistributionFinder):
        def find_distributions(self, context=None):
            return [Known()]

        def find_spec(self, *_):
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert entry_points(GROUP) == [EntryPoint("k", "m", "k", "3")]


LINES = st.sampled_from(
    ["[t.things]", "[other]", "# a = b", "", "  x = m:a ", "y=m.n:a.b [extra]", "[t.things] ", "=m"]
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_a_file_is_read_as_python_reads_it(text):
    theirs = metadata.EntryPoints._from_text(text)
    expected = [(p.name, p.value) for p in theirs if p.group == GROUP]
    assert [(p.name, p.value) for p in parse(text, GROUP)] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("string", __import__("string")),
        ("string:digits", "0123456789"),
        ("importlib.metadata : EntryPoint.load [x, y]", metadata.EntryPoint.load),
    ],
)
def test_it_loads_what_it_names(value, expected):
    assert EntryPoint("n", value).load() is expected or EntryPoint("n", value).load() == expected


@pytest.mark.parametrize("value", ["", "a b", "no_such_module_", "string:"])
def test_what_names_nothing_cannot_be_loaded(value):
    with pytest.raises(ImportError):
        EntryPoint("n", value).load()


def test_an_attribute_that_is_missing():
    with pytest.raises(AttributeError, match="nothing"):
        EntryPoint("n", "string:nothing").load()
