"""Settings: flag over environment over file, unknown keys are errors, everything is documented."""

from __future__ import annotations

import math
import os
from dataclasses import fields

import pytest
from click.testing import CliRunner

from device_api_core.cli import server, serving
from device_api_core.cli.arguments import plain_settings
from device_api_core.configuration import read_file, read_publisher
from device_api_core.errors import SettingsError
from device_api_core.settings import Settings

FIELDS = [f for f in fields(Settings) if f.name != "providers"]


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """The settings that the server would run with. What is read without click is the same."""

    def parse(*flags, env=None, file=None):
        seen = []
        monkeypatch.setattr(serving, "run", lambda settings: seen.append(settings) or 0)
        monkeypatch.delenv("DEVICE_API_TRANSPORT", raising=False)
        if file is not None:
            (tmp_path / "server.toml").write_text(file, encoding="utf-8")
            flags = (*flags, "--config", str(tmp_path / "server.toml"))
        result = CliRunner().invoke(server.main, flags, env=env or {}, catch_exceptions=False)
        plain = plain_settings(flags, {**os.environ, **(env or {})})
        assert plain is None or [plain] == seen
        if result.exit_code:
            raise SettingsError(result.output)
        return seen[0]

    return parse


def test_without_anything_the_defaults_hold(parse):
    assert parse() == Settings()


# name, flag value, environment value, file value
SAMPLES = {
    "grpc_address": ("127.0.0.1:1", "127.0.0.1:2", '"127.0.0.1:3"'),
    "unix_socket": ("1.sock", "2.sock", '"3.sock"'),
    "provider_socket": ("1.sock", "2.sock", '"3.sock"'),
    "grpc_provider_address": ("127.0.0.1:1", "127.0.0.1:2", '"127.0.0.1:3"'),
    "tls_cert_file": ("1.pem", "2.pem", '"3.pem"'),
    "tls_private_key_file": ("1.pem", "2.pem", '"3.pem"'),
    "client_ca_file": ("1.pem", "2.pem", '"3.pem"'),
    "tls_operator_name": ("o1", "o2 o3", '["o4"]'),
    "dedicated_socket": ("a=1", "a=2 b=3", '["a=4"]'),
    "max_reads_per_second": ("1", "2", "3"),
    "max_writes_per_second": ("1", "2", "3"),
    "max_watches": ("1", "2", "3"),
    "http_address": ("::1", "::2", '"::3"'),
    "health_port": ("1", "2", "3"),
    "metrics_port": ("1", "2", "3"),
    "shutdown_timeout": ("1.5", "2.5", "3.5"),
    "shutdown_delay": ("1.5", "2.5", "3"),
    "log_format": ("json", "text", '"text"'),
    "verbosity": ("1", "2", "3"),
    "node_name": ("n1", "n2", '"n3"'),
    "provider": ("p1", "p2 p3", '["p4"]'),
    "isolate": ("p1", "p2 p3", '["p4"]'),
    "expect_provider": ("p1", "p2 p3", '["p4"]'),
    "state_dir": ("d1", "d2", '"d3"'),
    "forget_lost_providers_after": ("1.5", "2.5", "3"),
    "transport": ("t1", "t2", '"t3"'),
}
SWITCHES = ("single_socket", "forbid_anonymous", "require_heartbeat", "strict_unregister")
PAIR = ("tls_cert_file", "tls_private_key_file")
# what a setting cannot be without
NEEDED = {
    "tls_cert_file": PAIR,
    "tls_private_key_file": PAIR,
    "client_ca_file": PAIR,
    "grpc_provider_address": (*PAIR, "client_ca_file"),
}


def env_name(name):
    return {"node_name": "NODE_NAME"}.get(name, f"DEVICE_API_{name.upper()}")


def value_of(name, text):
    default = getattr(Settings(), name)
    if isinstance(default, tuple):
        return tuple(text.strip('[]"').split())
    return type(default)(text.strip('"'))


def test_every_setting_is_tried_here():
    assert {*SAMPLES, *SWITCHES} == {f.name for f in FIELDS}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_flag_wins_over_the_environment_and_that_over_the_file(parse, name):
    flag, env, in_file = SAMPLES[name]
    arguments = (f"--{name.replace('_', '-')}", flag)
    others = {env_name(other): "other" for other in NEEDED.get(name, ()) if other != name}
    environment, file = {**others, env_name(name): env}, f"{name} = {in_file}"
    assert getattr(parse(env=others, file=file), name) == value_of(name, in_file)
    assert getattr(parse(env=environment, file=file), name) == value_of(name, env)
    everything = parse(*arguments, env=environment, file=file)
    assert getattr(everything, name) == value_of(name, flag)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_can_be_set_everywhere(parse, name):
    assert getattr(parse("--" + name.replace("_", "-")), name) is True
    assert getattr(parse(env={env_name(name): "true"}), name) is True
    assert getattr(parse(file=f"{name} = true"), name) is True
    assert getattr(parse(env={env_name(name): "false"}, file=f"{name} = true"), name) is False


def test_a_provider_can_be_named_several_times(parse):
    assert parse("--provider", "a", "--provider", "b").provider == ("a", "b")


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_every_setting_is_documented(field):
    text = field.metadata["help"]
    assert text.endswith(".")
    shown = CliRunner().invoke(server.main, ["--help"]).output
    assert f"--{field.name.replace('_', '-')}" in shown
    assert env_name(field.name) in shown


def test_options_of_providers_come_from_their_tables(parse):
    settings = parse(file='[providers.nvml]\ndriver_root = "/x"\n[providers.dcgm]\nurl = "u"')
    assert settings.providers == {"nvml": {"driver_root": "/x"}, "dcgm": {"url": "u"}}


def test_the_nvml_options_are_options_of_its_table(parse):
    file = '[providers.nvml]\ndriver_root = "/file"\nhealth_check = true'
    settings = parse(
        *("--nvml-driver-root", "/flag", "--no-nvml-health-check"),
        *("--nvml-ignored-xids", "13, 31 43", "--enable-nvml-provider"),
        file=file,
    )
    assert settings.provider == ("nvml",)
    assert settings.providers == {
        "nvml": {"driver_root": "/flag", "health_check": False, "ignored_xids": (13, 31, 43)}
    }
    assert parse("--enable-nvml-provider", "--provider", "nvml").provider == ("nvml",)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("helth_port = 1", "unknown key 'helth_port'; known are client_ca_file, dedicated_socket"),
        ("[provider.nvml]\nx = 1", "provider must be a list of strings"),
        ("providers = 1", "providers must be tables"),
        ("providers.nvml = 1", "providers must be tables"),
        ("health_port = '1'", "health_port must be of type int, not '1'"),
        ("health_port = 1.0", "health_port must be of type int"),
        ("health_port = true", "health_port must be of type int"),
        ("single_socket = 1", "single_socket must be of type bool"),
        ("shutdown_delay = true", "shutdown_delay must be of type float"),
        ("provider = 'nvml'", "provider must be a list of strings"),
        ("provider = [1]", "provider must be a list of strings"),
        ("provider", "is not valid TOML"),
        ("health_port = " + "1" * 5_000, "is not valid TOML: Exceeds the limit"),
        ("provider = " + "[" * 2_000, "is not valid TOML: maximum recursion depth"),
        ("[providers.nvml]\n" + "a." * 900 + "b = 1", "providers are nested too deeply"),
        ("log_format = 'xml'", "'xml' is not one of"),
        ("verbosity = -1", "is not a number"),
        ("shutdown_delay = nan", "--shutdown-delay must be 0 or more seconds"),
        ("shutdown_timeout = inf", "--shutdown-timeout must be 0 or more seconds"),
    ],
)
def test_a_wrong_file_stops_the_start_and_says_why(parse, file, complaint):
    with pytest.raises(SettingsError) as caught:
        parse(file=file)
    assert complaint in " ".join(str(caught.value).split())


def test_a_file_that_is_not_there_or_not_text_stops_the_start(tmp_path):
    with pytest.raises(SettingsError, match="cannot read .*: No such file"):
        read_file(str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="Is a directory"):
        read_file(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_file(str(tmp_path / "binary"))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"grpc_address": "", "unix_socket": "", "provider_socket": ""}, "nothing to listen on"),
        ({"single_socket": True, "unix_socket": ""}, "--single-socket needs --unix-socket"),
        ({"log_format": "xml"}, "--log-format must be text or json"),
        ({"health_port": -1}, "--health-port must be 0 to 65535"),
        ({"metrics_port": 65_536}, "--metrics-port must be 0 to 65535"),
        ({"health_port": 1, "metrics_port": 1}, "must differ"),
        ({"tls_cert_file": "c"}, "--tls-cert-file and --tls-private-key-file go together"),
        ({"tls_private_key_file": "k"}, "go together"),
        ({"client_ca_file": "a"}, "--client-ca-file needs --tls-cert-file"),
        ({"grpc_provider_address": ":1"}, "taken with mutual TLS only"),
        (
            {"grpc_provider_address": ":1", "tls_cert_file": "c", "tls_private_key_file": "k"},
            "taken with mutual TLS only",
        ),
        ({"dedicated_socket": ("path",)}, "--dedicated-socket must be ID=PATH, not 'path'"),
        ({"dedicated_socket": ("=path",)}, "--dedicated-socket must be ID=PATH"),
        ({"dedicated_socket": ("a=",)}, "--dedicated-socket must be ID=PATH"),
        ({"dedicated_socket": ("a=1", "a=2")}, "a provider has one socket"),
        ({"max_reads_per_second": 0}, "--max-reads-per-second must be 1 or more"),
        ({"max_writes_per_second": -1}, "--max-writes-per-second must be 1 or more"),
        ({"max_watches": 0}, "--max-watches must be 1 or more"),
        ({"shutdown_delay": -0.1}, "--shutdown-delay must be 0 or more seconds"),
        ({"shutdown_timeout": math.nan}, "--shutdown-timeout must be 0 or more seconds"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, complaint):
    with pytest.raises(SettingsError, match=complaint):
        Settings(**values)


def test_two_ports_may_both_be_picked():
    Settings(health_port=0, metrics_port=0)
    Settings(health_port=65_535, shutdown_delay=0.0, shutdown_timeout=0.0)


def test_the_nodes_name_is_the_hosts_unless_set():
    assert Settings(node_name="n").node == "n"
    assert Settings().node


@pytest.mark.parametrize("flag", ["-v=2", "-v2", "--verbosity=2"])
def test_verbosity_is_taken_in_the_form_of_go_programs(parse, flag):
    assert parse(flag).verbosity == 2


@pytest.mark.parametrize("flags", [["-v=x"], ["--nvml-ignored-xids", "13,x"], ["--no-such"]])
def test_a_wrong_flag_is_refused(parse, flags):
    with pytest.raises(SettingsError):
        parse(*flags)


def test_options_of_providers_may_name_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOST_IP", "192.0.2.7")
    monkeypatch.setenv("EMPTY", "")
    path = tmp_path / "server.toml"
    path.write_text(
        'node_name = "${HOST_IP}"\n'
        "[providers.dcgm]\n"
        'url = "http://${HOST_IP}:9400/${EMPTY}metrics"\n'
        'words = ["$HOST_IP", "${HOST_IP}"]\nnumber = 1\n'
    )
    assert read_file(str(path)) == {
        "node_name": "${HOST_IP}",  # has a variable of its own
        "providers": {
            "dcgm": {
                "url": "http://192.0.2.7:9400/metrics",
                "words": ["$HOST_IP", "192.0.2.7"],
                "number": 1,
            }
        },
    }


def test_a_variable_that_is_not_set_stops_the_start_and_says_where(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text('[providers.dcgm]\nurl = "http://${NO_SUCH_VARIABLE}:9400"\n')
    with pytest.raises(SettingsError, match=r"\[providers.dcgm\]: url: .* NO_SUCH_VARIABLE is not"):
        read_file(str(path))


def test_tables_of_publishers_are_for_their_own_process(parse, tmp_path, monkeypatch):
    path = tmp_path / "server.toml"
    text = (
        'node_name = "n"\n'
        '[providers.dcgm]\nurl = "http://${HOST_IP}:9400"\n'
        '[publishers.kubernetes]\nnode_name = "${NODE}"\nevents = false\n'
        '[publishers.other]\nx = "${NO_SUCH_VARIABLE}"\n'
    )
    path.write_text(text)
    monkeypatch.setenv("NODE", "node-7")
    # Each reads what is its own, and needs no variable of another's.
    own = {"node_name": "node-7", "events": False}
    assert read_publisher(str(path), "kubernetes") == own
    assert read_publisher(str(path), "absent") == {}
    with pytest.raises(SettingsError, match=r"\[publishers.other\]: x: .* NO_SUCH_VARIABLE is not"):
        read_publisher(str(path), "other")
    monkeypatch.setenv("HOST_IP", "192.0.2.7")
    monkeypatch.delenv("NODE")
    providers = {"dcgm": {"url": "http://192.0.2.7:9400"}}
    assert read_file(str(path)) == {"node_name": "n", "providers": providers}
    assert parse(file=text) == Settings(node_name="n", providers=providers)


@pytest.mark.parametrize("text", ["publishers = 1", "[publishers]\nkubernetes = 1"])
@pytest.mark.parametrize("read", [read_file, lambda path: read_publisher(path, "kubernetes")])
def test_publishers_must_be_tables(tmp_path, text, read):
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"publishers must be tables \[publishers.NAME\]"):
        read(str(path))
