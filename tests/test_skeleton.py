"""``device-api providers new``: the example, under another name."""

from __future__ import annotations

import compileall
import tomllib

import pytest
from click.testing import CliRunner

from device_api_core.cli.main import main


def run(*arguments):
    return CliRunner().invoke(main, ["providers", "new", *map(str, arguments)])


@pytest.fixture
def written(tmp_path):
    directory = tmp_path / "fan"
    result = run("fan-speed", "--directory", directory)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == len([p for p in directory.rglob("*") if p.is_file()])
    return directory


def test_it_is_a_complete_package(written):
    project = tomllib.loads((written / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "device-api-fan-speed"
    entry = project["project"]["entry-points"]["device_api.providers"]
    assert entry == {"fan-speed": "device_api_fan_speed.plugin"}
    assert (written / "device_api_fan_speed" / "plugin.py").is_file()
    assert compileall.compile_dir(written, quiet=2)


def test_nothing_of_the_example_is_left(written):
    for file in written.rglob("*.*"):
        assert "template" not in file.name
        if file.is_file() and file.suffix != ".pyc":
            assert "template" not in file.read_text(encoding="utf-8").lower(), file


def test_it_is_short(written):
    code = [line for file in written.rglob("*.py") for line in file.read_text().splitlines()]
    assert len([line for line in code if line.strip()]) < 80


def test_an_existing_directory_is_left_alone(tmp_path):
    result = run("fan", "--directory", tmp_path)
    assert result.exit_code == 1
    assert "exists" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["Fan", "fan_speed", "-fan", "1fan", "f" * 41])
def test_a_name_that_no_provider_can_have_is_refused(tmp_path, name):
    result = run("--directory", tmp_path / "new", "--", name)
    assert result.exit_code == 1
    assert "lower-case words" in result.output
