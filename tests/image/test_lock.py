"""The versions in the image are ones that the distributions ask for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {
    "core": [ROOT / "pyproject.toml"],
    "all": [
        ROOT / "pyproject.toml",
        *sorted(ROOT.glob("providers/*/pyproject.toml")),
        *sorted(ROOT.glob("publishers/*/pyproject.toml")),
    ],
}
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", re.MULTILINE)


def declared(path):
    """What a distribution needs from PyPI."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    found = map(Requirement, project["dependencies"])
    return [each for each in found if not each.name.startswith("device-api-")]


@pytest.mark.parametrize("variant", PROJECTS)
def test_every_dependency_is_locked_in_its_range_and_with_hashes(variant):
    text = (ROOT / "image" / f"requirements-{variant}.txt").read_text(encoding="utf-8")
    entries = re.findall(
        r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:\S+(?: \\)?\n)+)", text, re.M
    )
    locked = {name: version for name, version, _ in entries}
    assert len(locked) == text.count("==") > 8
    for path in PROJECTS[variant]:
        for each in declared(path):
            name = each.name.lower()
            assert each.specifier.contains(locked[name]), f"run `make image-lock`: {each}"


def test_the_smaller_image_has_nothing_of_its_own():
    core, everything = (
        (ROOT / "image" / f"requirements-{variant}.txt").read_text(encoding="utf-8")
        for variant in ("core", "all")
    )
    assert set(core.splitlines()) <= set(everything.splitlines())
