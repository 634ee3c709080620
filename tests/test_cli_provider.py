"""``device-api provider run``: what it teaches and what it refuses, without a server."""

import pytest
from click.testing import CliRunner

from device_api_core.cli.main import main


def run(*arguments):
    return CliRunner().invoke(main, ["provider", "run", *map(str, arguments)])


def test_help_tells_where_it_fits_and_how_it_ends():
    text = run("--help").output
    for word in ("sidecar", "--expect-provider", "Exit codes", "[providers.NAME]"):
        assert word in text


def test_singular_and_plural_are_one_group():
    assert CliRunner().invoke(main, ["providers", "run", "--help"]).exit_code == 0


def test_a_provider_that_is_not_installed_is_named():
    result = run("nowhere-to-be-found")
    assert result.exit_code == 1
    assert "no provider 'nowhere-to-be-found' is installed" in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[providers.fan]\nisolate = 1\n", "isolate must be true or false"),
        ("nonsense = 1\n", "unknown key 'nonsense'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, complaint):
    file = tmp_path / "server.toml"
    file.write_text(text)
    result = run("fan", "--config", file)
    assert result.exit_code == 1
    assert complaint in result.output
