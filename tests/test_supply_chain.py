"""What is installed is what was locked, under licences that we accept."""

import re
import sys
import tomllib
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ENTRY = re.compile(
    r"^(?P<pin>[a-z0-9-]+==[^\\\n]+) \\\n"
    r"(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+",
    re.MULTILINE,
)
LOCKS = sorted(ROOT.glob("locks/*.txt"))
OURS = "device-api-"

# By name or classifier, as packages declare them. All let us pass the package on unchanged in an
# image under its own licence; nothing here makes our code follow it.
ACCEPTED = {
    "3-Clause BSD License",
    "Apache-2.0",
    "Apache-2.0 AND BSD-2-Clause",
    "BSD",
    "BSD-3-Clause",
    "MIT",
    "MPL-2.0",
    "PSF-2.0",
}


def pins(lock):
    """What a lock chooses for this interpreter and system, by name."""
    found = [Requirement(entry["pin"]) for entry in ENTRY.finditer(lock.read_text("utf-8"))]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in found
        if each.marker is None or each.marker.evaluate()
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_line_of_a_lock_belongs_to_an_entry_with_hashes(lock):
    text = lock.read_text("utf-8")
    assert ENTRY.search(text)
    assert ENTRY.sub("", text) == ""


def test_every_environment_has_its_lock():
    environments = tomllib.loads((ROOT / "hatch.toml").read_text("utf-8"))["envs"]
    assert {lock.stem for lock in LOCKS} == {"tools", *environments}


def test_what_is_installed_is_what_was_locked():
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        pytest.skip("not in the environment of `make env`")
    locked = pins(ROOT / "locks" / "default.txt")
    installed = {canonicalize_name(each.name): each.version for each in distributions()}
    foreign = {n: v for n, v in installed.items() if not n.startswith(OURS)}
    assert len(foreign) > 50
    assert {n: v for n, v in foreign.items() if locked.get(n) != v} == {}


def needed_to_run():
    """Every distribution that ours need to run, themselves included."""
    todo = [each.name for each in distributions() if canonicalize_name(each.name).startswith(OURS)]
    found = set()
    environment = {**default_environment(), "extra": ""}
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        found.add(name)
        for each in map(Requirement, distribution(name).requires or ()):
            if each.marker is None or each.marker.evaluate(environment):
                todo.append(each.name)
    return sorted(found)


@pytest.mark.parametrize("name", needed_to_run())
def test_what_runs_has_an_accepted_licence(name):
    metadata = distribution(name).metadata
    declared = metadata.get("License-Expression") or metadata.get("License")
    assert declared in ACCEPTED, f"{name} is under {declared!r}: see docs/supply-chain.md"
    if name.startswith(OURS):
        assert declared == "Apache-2.0"
