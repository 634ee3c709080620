"""What the command line shows without a server: ages, tables, help, plugins, explanations."""

import os
import re
import socket
import subprocess
import sys
from operator import itemgetter

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.cli.ages import age_of, format_age
from device_api_core.cli.failures import diagnose
from device_api_core.cli.main import main
from device_api_core.cli.tables import Table

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "y": 365 * 86_400}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (5, "5s"),
        (119, "119s"),
        (120, "2m"),
        (192, "3m12s"),
        (601, "10m"),
        (4 * 3_600, "4h"),
        (4 * 3_600 + 300, "4h5m"),
        (10 * 3_600 + 300, "10h"),
        (2 * 86_400, "2d"),
        (2 * 86_400 + 7_200, "2d2h"),
        (9 * 86_400 + 7_200, "9d"),
        (800 * 86_400, "2y70d"),
        (9 * 365 * 86_400, "9y"),
    ],
)
def test_an_age_is_short(seconds, shown):
    assert format_age(seconds) == shown


@given(st.integers(0, 10**9))
def test_an_age_reads_back_as_at_most_what_it_was_and_nearly_that(seconds):
    parts = re.findall(r"(\d+)([smhdy])", format_age(seconds))
    read = sum(int(count) * SECONDS[unit] for count, unit in parts)
    assert 1 <= len(parts) <= 2
    assert read <= seconds < max(read * 1.13, 1)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_what_is_older_never_looks_younger(one, other):
    def read(age):
        return sum(int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+)([smhdy])", age))

    younger, older = sorted((one, other))
    assert read(format_age(younger)) <= read(format_age(older))


def test_no_time_has_no_age():
    assert age_of(None) == "-"


def test_a_table_is_aligned_and_later_rows_stay_under_their_headings():
    columns = {"NAME": itemgetter(0), "READY": itemgetter(1), "WHY": itemgetter(2)}
    table = Table(columns)
    lines = table.lines([("gpu-a", "True", ""), ("b", "False", "two\nlines")])
    lines += table.lines([("c", "Unknown", "x")], headings=False)
    assert [click.unstyle(line) for line in lines] == [
        "NAME    READY   WHY",
        "gpu-a   True    -",
        "b       False   two lines",
        "c       Unknown   x",
    ]
    assert click.style("False", fg="red") in lines[2]


def run(*args, **kwargs):
    return CliRunner().invoke(main, args, prog_name="device-api", **kwargs)


def test_help_teaches_with_examples():
    result = run("-h")
    assert result.exit_code == 0
    assert "device-api get gpus -o wide" in result.output
    for command in ("get", "describe", "top", "watch", "wait", "providers", "events", "completion"):
        assert re.search(rf"^  {command} ", result.output, re.MULTILINE)


def commands(group, *path):
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_the_help_of_every_command_has_examples_that_are_whole(path):
    text = run(*path, "-h").output
    examples = re.findall(r"^    (.*device-api .*)$", text, re.MULTILINE)
    # A plural is the same as a singular.
    begins = "device-api " + path[0].removesuffix("s")
    assert any(begins in example for example in examples), text
    # What is longer than a line of the help would be broken.
    assert all(len(line) <= 100 for line in text.splitlines())


def test_wrong_usage_exits_with_2():
    assert run("get", "gpus", "-o", "xml").exit_code == 2
    assert run("no-such-command").exit_code == 2


@pytest.fixture
def nowhere(tmp_path):
    return ("--server", f"{tmp_path}/d.sock", "--provider-server", f"{tmp_path}/p.sock")


def test_without_a_server_the_address_and_the_remedy_are_named(tmp_path, nowhere):
    result = run(*nowhere, "get", "gpus")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr == (
        f"error: no server answers at unix://{tmp_path}/d.sock: the socket does not exist\n"
        "hint: start device-api-server, or name another address with --server or "
        "NVIDIA_DEVICE_API\n"
    )


def test_the_hint_names_the_option_of_the_endpoint_that_failed(nowhere):
    result = run(*nowhere, "events")
    assert result.exit_code == 3
    assert "--provider-server or DEVICE_API_PROVIDER_SOCKET" in result.stderr


@pytest.mark.parametrize(
    "args", [("describe", "gpu", "a"), ("watch", "gpus"), ("clear", "a", "B"), ("get", "gpu", "a")]
)
def test_every_command_exits_with_3_without_a_server(nowhere, args):
    assert run(*nowhere, *args).exit_code == 3


def test_version_works_without_a_server(nowhere):
    result = run(*nowhere, "version")
    assert result.exit_code == 0
    assert re.match(r"Client: +\d+\.\d+\.\d+\nServer: +not reached\n", result.stdout)


def test_a_socket_that_nobody_serves_is_told_from_a_missing_one(tmp_path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert "nobody listens" in diagnose(f"unix://{path}", "")[0]


def test_a_file_is_no_socket(tmp_path):
    (tmp_path / "file").write_text("")
    assert "no socket" in diagnose(f"unix://{tmp_path}/file", "")[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_socket_without_permission_says_whose_it_is(tmp_path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
    path.chmod(0)
    why, hint = diagnose(f"unix://{path}", "")
    assert "may not be opened" in why
    assert "mode 0000" in why
    assert "owner or group" in hint


PLUGIN = """
import click
from device_api_core.plugins import Provider, hookimpl

class Fan(Provider):
    name = "fan"
    contract_version = 1
    interval_seconds = 5.0
    types = ("example.com/FanHealthy",)

    def run(self, sink, stop):
        pass

    def clear(self, gpu, type):
        pass

@hookimpl
def device_api_provider(options):
    return Fan()

@hookimpl
def device_api_commands():
    {commands}
"""
GROUP = 'return click.Command("fan", callback=lambda: click.echo("whirr"), help="Fans.")'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs plugins under names of their own, each from its source text."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, source):
        module = f"cli_test_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[device_api.providers]\n{name} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return add


def test_a_plugin_contributes_its_command(install):
    install("fan", PLUGIN.format(commands=GROUP))
    assert run("fan").output == "whirr\n"
    assert re.search(r"^  fan +Fans\.$", run("--help").output, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('no\\nlibrary')", "RuntimeError: no library"),
        (PLUGIN.format(commands="raise RuntimeError('half done')"), "RuntimeError: half done"),
        (PLUGIN.format(commands="return 7"), "7, which is no click command"),
    ],
)
def test_a_broken_plugin_is_shown_and_breaks_nothing(install, source, why):
    install("fan", source)
    shown = run("--help")
    assert shown.exit_code == 0
    assert why in " ".join(shown.output.split())
    named = run("fan")
    assert named.exit_code == 1
    assert named.stderr.startswith("error: the plugin fan cannot be loaded: ")


def test_providers_lists_what_is_installed_without_a_server(install, nowhere):
    install("fan", PLUGIN.format(commands=GROUP))
    install("bad", "import no_such_module")
    result = run(*nowhere, "providers")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "VERSION", "CONTRACT", "SUMMARY"]
    assert any(re.fullmatch(r"fan +available +1\.2 +1 +-", line) for line in lines)
    assert any(re.match(r"bad +error +1\.2 +- +Module", line) for line in lines)
    assert "note: no server answers at unix://" in result.stderr


def test_plain_commands_do_not_wait_for_plugins(nowhere):
    code = (
        "import sys\n"
        "from device_api_core.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
    )
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *nowhere, "get", "gpus"],
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "device_api_core.client.clientset" in imported
    assert not imported & {"pluggy", "importlib.metadata", "yaml", "device_api_core.plugins"}
