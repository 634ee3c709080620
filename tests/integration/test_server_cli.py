"""The server's command line: what it says, what it takes, and what wins."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import Installed, good
from process import PROGRAM, Server, environment

from device_api_core import __version__

pytestmark = pytest.mark.once("settings are read before a transport begins")

Start = Callable[..., Server]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=environment(env or {}),
    )


SEED_FLAGS = [
    "--grpc-address",
    "--unix-socket",
    "--health-port",
    "--metrics-port",
    "--shutdown-timeout",
    "--shutdown-delay",
    "--log-format",
    "-v",
    "--node-name",
    "--enable-nvml-provider",
    "--nvml-driver-root",
    "--nvml-health-check",
    "--nvml-ignored-xids",
    "--version",
]
SEED_ENVIRONMENT = [
    "DEVICE_API_GRPC_ADDRESS",
    "DEVICE_API_UNIX_SOCKET",
    "DEVICE_API_HEALTH_PORT",
    "DEVICE_API_METRICS_PORT",
    "DEVICE_API_LOG_FORMAT",
    "NODE_NAME",
    "DEVICE_API_NVML_ENABLED",
    "DEVICE_API_NVML_DRIVER_ROOT",
    "DEVICE_API_NVML_HEALTH_CHECK",
    "DEVICE_API_NVML_IGNORED_XIDS",
]
OUR_FLAGS = [
    "--provider-socket",
    "--single-socket",
    "--http-address",
    "--provider",
    "--expect-provider",
    "--require-heartbeat",
    "--config",
    "--state-dir",
    "--strict-unregister",
]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_teaches_every_flag_and_variable(flag: str) -> None:
    shown = run(flag)
    assert shown.returncode == 0
    for word in (*SEED_FLAGS, *OUR_FLAGS, *SEED_ENVIRONMENT, "Examples:"):
        assert word in shown.stdout


def test_version_prints_and_exits() -> None:
    shown = run("--version")
    assert (shown.returncode, shown.stdout) == (0, f"device-api-server, version {__version__}\n")


def test_flag_wins_over_environment_and_environment_over_file(
    start: Start, directory: Path
) -> None:
    (directory / "server.toml").write_text('node_name = "file"\nshutdown_delay = 0\n')
    config = f"--config={directory / 'server.toml'}"
    for arguments, env, winner in (
        (["--node-name=flag"], {"NODE_NAME": "environment"}, "flag"),
        ([], {"NODE_NAME": "environment"}, "environment"),
        ([], {}, "file"),
    ):
        server = start(config, *arguments, env=env)
        assert server.addresses["node"] == winner
        assert server.stop() == 0


def test_an_empty_variable_does_not_hide_the_file(start: Start, directory: Path) -> None:
    (directory / "server.toml").write_text('node_name = "file"\n')
    server = start(f"--config={directory / 'server.toml'}", env={"NODE_NAME": ""})
    assert server.addresses["node"] == "file"
    assert server.stop() == 0


def test_everything_may_come_from_the_environment(
    start: Start, directory: Path, tmp_path: Path
) -> None:
    installed = Installed(directory / "plugins").add("one", good("one")).add("two", good("two"))
    (directory / "server.toml").write_text('log_format = "json"\n')
    env = {
        "DEVICE_API_CONFIG": str(directory / "server.toml"),
        "DEVICE_API_PROVIDER": "one two",
        "DEVICE_API_STRICT_UNREGISTER": "true",
        "DEVICE_API_STATE_DIR": str(tmp_path / "state"),
    }
    server = start(env=env, plugins=installed.directory).wait_serving()
    assert server.addresses["providers"] == "one,two"
    assert (tmp_path / "state" / "state.db").exists()
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodename = 'x'", ["unknown key 'nodename'", "node_name"]),
        ("health_port = '8081'", ["health_port must be of type int"]),
        ("provider = 'nvml'", ["provider must be a list of strings"]),
        ("providers = 3", ["[providers.NAME]"]),
        ("single_socket = 1", ["single_socket must be of type bool"]),
        ("this is not toml", ["is not valid TOML"]),
        ("health_port = 70000", ["--health-port must be 0 to 65535"]),
    ],
)
def test_a_bad_file_is_refused(directory: Path, text: str, words: list[str]) -> None:
    (directory / "server.toml").write_text(text)
    refused = run("--config", str(directory / "server.toml"))
    assert refused.returncode != 0
    for word in words:
        assert word in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=/nonexistent/file"], ["cannot read /nonexistent/file"]),
        (["--health-port=1", "--metrics-port=1"], ["must differ"]),
        (["--health-port=-1"], ["--health-port"]),
        (["--metrics-port=x"], ["--metrics-port", "'x'"]),
        (["--shutdown-timeout=-1"], ["--shutdown-timeout"]),
        (["--shutdown-delay=nan"], ["--shutdown-delay"]),
        (["--log-format=xml"], ["text", "json"]),
        (["--grpc-address=", "--unix-socket=", "--provider-socket="], ["nothing to listen on"]),
        (["--single-socket", "--unix-socket="], ["--single-socket needs --unix-socket"]),
        (["--nvml-ignored-xids=13,x"], ["'x' is not an XID number"]),
        (["--unknown"], ["--unknown"]),
        (["extra"], ["extra"]),
        (["-v=x"], ["is not a number"]),
        (["--transport=h3"], ["--transport", "'h3' is not installed"]),
    ],
)
def test_a_bad_command_line_is_refused(
    directory: Path, arguments: list[str], words: list[str]
) -> None:
    safe = [f"--unix-socket={directory / 'a.sock'}", f"--provider-socket={directory / 'b.sock'}"]
    safe += ["--grpc-address=127.0.0.1:0", "--health-port=0", "--metrics-port=0"]
    refused = run(*safe, *arguments)
    assert refused.returncode in (1, 2)
    for word in words:
        assert word in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_nvml_flags_become_options_of_that_provider(start: Start, directory: Path) -> None:
    installed = Installed(directory / "plugins").add(
        "nvml", good("nvml"), distribution="device_api_nvml"
    )
    (directory / "server.toml").write_text(
        '[providers.nvml]\ndriver_root = "file"\nextra = "kept"\n'
    )

    def options(*arguments: str, **env: str) -> str:
        server = start(*arguments, env=env, plugins=installed.directory).wait_serving()
        api = server.api()
        while not (summary := api.provider("nvml").summary):
            pass
        assert server.stop() == 0
        return summary.removeprefix("works with ")

    assert options("--enable-nvml-provider") == "{}"
    everything = options(
        "--enable-nvml-provider",
        "--provider=nvml",
        f"--config={directory / 'server.toml'}",
        "--nvml-driver-root=/driver",
        "--no-nvml-health-check",
        "--nvml-ignored-xids=13, 31 43,,",
    )
    assert everything == repr(
        {
            "driver_root": "/driver",
            "extra": "kept",
            "health_check": False,
            "ignored_xids": (13, 31, 43),
        }
    )
    by_environment = options(
        DEVICE_API_NVML_ENABLED="1",
        DEVICE_API_NVML_HEALTH_CHECK="0",
        DEVICE_API_NVML_DRIVER_ROOT="/env",
        DEVICE_API_NVML_IGNORED_XIDS="64",
    )
    assert by_environment == repr(
        {"driver_root": "/env", "health_check": False, "ignored_xids": (64,)}
    )


@pytest.mark.parametrize("arguments", [["-v=2"], ["-v", "2"], ["-v2"], ["--verbosity=2"]])
def test_verbosity_takes_gos_spelling_too(start: Start, arguments: list[str]) -> None:
    server = start(*arguments).wait_serving()
    assert server.stop() == 0
    assert any(entry["level"] == "debug" for entry in server.log)


def test_text_logs_are_one_event_a_line(directory: Path) -> None:
    with Server(directory, "--log-format=text", "--grpc-address=") as server:
        while not any(" serving " in line for line in server.output):
            assert server.process.poll() is None, server.text
        server.signal()
        assert server.exit_code() == 0
    for line in server.output:
        assert line[:2] == "20", line
        assert " INFO " in line or " WARNING " in line, line
