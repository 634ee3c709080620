"""A command line that is read without click means what it means to click."""

import os
from dataclasses import fields

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.cli import server
from device_api_core.cli.arguments import plain_settings
from device_api_core.errors import SettingsError
from device_api_core.settings import Settings

FIELDS = [f for f in fields(Settings) if f.name != "providers"]
VARIABLES = [f.metadata["env"] or f"DEVICE_API_{f.name.upper()}" for f in FIELDS]
FLAGS = [f"--{f.name.replace('_', '-')}" for f in FIELDS]
MORE_FLAGS = ("-v", "-h", "--help", "--version", "--nope", "--", "-", "--enable-nvml-provider")
VALUES = st.sampled_from(
    (
        "",
        "0",
        "1",
        "2",
        "=2",
        "-1",
        "1.5",
        "1e3",
        " 7 ",
        "07",
        "nan",
        "true",
        "True",
        "yes",
        "false",
    )
    + ("text", "json", "a b", " ", "a=b.sock", "/x.sock", "127.0.0.1:0", "--provider", "x" * 300)
)
TOKENS = st.one_of(
    st.tuples(st.sampled_from((*FLAGS, *MORE_FLAGS)), VALUES),
    st.tuples(st.sampled_from((*FLAGS, *MORE_FLAGS))),
    st.builds("{}={}".format, st.sampled_from((*FLAGS, *MORE_FLAGS)), VALUES).map(lambda t: (t,)),
    st.tuples(VALUES),
)
LINES = st.lists(TOKENS, max_size=5).map(
    lambda tokens: [word for token in tokens for word in token]
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from((*VARIABLES, "DEVICE_API_NVML_ENABLED", "DEVICE_API_NVML_DRIVER_ROOT")),
    VALUES,
    max_size=3,
)
FILE = """
verbosity = 1
provider = ["fan"]
health_port = 9
shutdown_delay = 2
[providers.fan]
isolate = true
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "server.toml"
    path.write_text(FILE)
    return str(path)


def by_click(arguments, environment):
    """The settings; ``None`` if there is something to say or to refuse."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("DEVICE_API_") or name == "NODE_NAME":
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            context = server.main.make_context("device-api-server", list(arguments))
            values = dict(context.params)
            file = context.default_map if values.pop("config") else {}
            return server.settings_from(values, file or {})
        except (click.ClickException, click.exceptions.Exit, SettingsError):
            return None


@given(LINES, ENVIRONMENTS, st.sampled_from(((), ("--config", "F"), ("--config=F",), "env")))
def test_what_is_read_is_what_click_reads(config, line, environment, how):
    if how == "env":
        environment = {**environment, "DEVICE_API_CONFIG": config}
        how = ()
    line = [*(word.replace("F", config) for word in how), *line]
    plain = plain_settings(line, environment)
    assert plain is None or plain == by_click(line, environment)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--config F",
        "--config=F --log-format=json --state-dir /var/lib/x",
        "--provider nvml --provider fan --isolate=fan -v 2",
        "-v=2 --single-socket --shutdown-delay 0.5",
        "--transport h2 --unix-socket d.sock --provider-socket= --grpc-address=",
    ],
)
def test_a_usual_command_line_needs_no_click(config, line):
    words = line.replace("F", config).split()
    plain = plain_settings(words, {"NODE_NAME": "n", "DEVICE_API_METRICS_PORT": "0"})
    assert plain is not None
    assert (plain.node_name, plain.metrics_port) == ("n", 0)
    assert plain == by_click(words, {"NODE_NAME": "n", "DEVICE_API_METRICS_PORT": "0"})


@pytest.mark.parametrize(
    ("line", "environment"),
    [
        ("--help", {}),
        ("--health-port x", {}),
        ("--health-port", {}),
        ("--config /nowhere", {}),
        ("--enable-nvml-provider", {}),
        ("", {"DEVICE_API_NVML_DRIVER_ROOT": "/"}),
        ("", {"_DEVICE_API_SERVER_COMPLETE": "bash_source"}),
        ("", {"DEVICE_API_SINGLE_SOCKET": "maybe"}),
        ("--unix-socket= --provider-socket= --grpc-address=", {}),
    ],
)
def test_what_click_has_to_answer_is_left_to_it(line, environment):
    assert plain_settings(line.split(), environment) is None
