"""Values: all documented, unknown and ill-typed ones refused, what they mean reaches the server."""

import json
import re

import helm_python as helm
import pytest
import yaml
from rendering import CHART, render

from device_api_core.cli.main import main
from device_api_core.cli.provider import run
from device_api_core.cli.publish import publish
from device_api_core.configuration import read_file, read_publisher
from device_api_core.plugins.discovery import load
from device_api_core.plugins.publishers import load_publisher
from device_api_core.settings import Settings

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def settings(rendered, tmp_path, monkeypatch):
    """The settings that the real server reads from the rendered file, as on one node."""
    monkeypatch.setenv("NODE_NAME", "gpu-node-07")
    monkeypatch.setenv("HOST_IP", "192.0.2.7")
    path = tmp_path / "server.toml"
    path.write_text(rendered.server_toml, encoding="utf-8")
    return Settings(**read_file(str(path)))


def test_lint_has_nothing_to_say():
    result = helm.lint(CHART, {}, strict=True, kube_version="v1.25.0")
    assert result["errors"] == []
    assert [m["error"] for m in result["messages"]] == ["icon is recommended"]


def properties(schema):
    """Paths of the properties that the schema spells out."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    for name, each in schema.get("properties", {}).items():
        yield name
        yield from (f"{name}.{below}" for below in properties(each))


def paths(values):
    for name, each in values.items():
        yield name
        if isinstance(each, dict):
            yield from (f"{name}.{below}" for below in paths(each))


def test_every_value_that_may_be_set_is_in_the_file():
    # What Kubernetes defines is Kubernetes's to document.
    foreign = re.compile(r"(securityContext|resources|sidecarResources|\w+Probe|global)\b.*")
    spelt_out = {path for path in properties(SCHEMA) if not foreign.fullmatch(path)}
    assert spelt_out - set(paths(VALUES)) == set()


WRONG = [
    ({"nvmll": {}}, "nvmll"),
    ({"nvml": {"enable": True}}, "enable"),
    ({"nvml": {"enabled": "true"}}, "/nvml/enabled"),
    ({"nvml": {"home": "fork"}}, "/nvml/home"),
    ({"nvml": {"access": "magic"}}, "/nvml/access"),
    ({"nvml": {"additionalIgnoredXids": "31;43"}}, "/nvml/additionalIgnoredXids"),
    ({"nvml": {"options": {"poll_seconds": {"a": 1}}}}, "/nvml/options/poll_seconds"),
    ({"nvml": {"options": {"Poll Seconds": 1}}}, "Poll Seconds"),
    ({"server": {"healthPort": "8081"}}, "/server/healthPort"),
    ({"server": {"healthPort": 0}}, "/server/healthPort"),
    ({"server": {"unixSocket": "device.sock"}}, "/server/unixSocket"),
    ({"server": {"unixSocket": "/run/$(touch x)/s"}}, "/server/unixSocket"),
    ({"state": {"directory": "/var/a;reboot"}}, "/state/directory"),
    ({"server": {"shutdownDelay": -1}}, "/server/shutdownDelay"),
    ({"server": {"grpcAddress": "50051"}}, "/server/grpcAddress"),
    ({"state": {"directory": "/"}}, "/state/directory"),
    ({"logging": {"format": "xml"}}, "/logging/format"),
    ({"image": {"digest": "sha256:1"}}, "/image/digest"),
    ({"providers": {"nvml": {}}}, "nvml"),
    ({"providers": {"fan": {"hom": "thread"}}}, "hom"),
    ({"kubernetesPublisher": {"enable": True}}, "enable"),
    ({"kubernetesPublisher": {"graceSeconds": 0}}, "/kubernetesPublisher/graceSeconds"),
    ({"kubernetesPublisher": {"metricsPort": 0}}, "/kubernetesPublisher/metricsPort"),
    ({"kubernetesPublisher": {"options": {"a": {"b": 1}}}}, "/kubernetesPublisher/options/a"),
    ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts"),
    ({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, "maxSurge"),
    ({"resources": {"limits": {"memory": "lots"}}}, "/resources/limits/memory"),
    ({"securityContext": {"runAsUser": None}}, "runAsUser"),
    ({"livenessProbe": {"exec": {}}}, "exec"),
    ({"tolerations": {"key": "a"}}, "/tolerations"),
    ({"env": [{"value": "a"}]}, "/env/0"),
    ({"metrics": {"serviceMonitor": {"interval": 30}}}, "/metrics/serviceMonitor/interval"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=lambda value: json.dumps(value)[:60])
def test_a_wrong_value_is_refused_and_named(values, named):
    with pytest.raises(helm.HelmError, match=re.escape(named)):
        render(values)


CONTRADICTIONS = [
    (
        {"server": {"singleSocket": True}, "nvml": {"enabled": True, "home": "sidecar"}},
        "provider nvml as a sidecar needs server.providerSocket",
    ),
    (
        {"server": {"providerSocket": ""}, "providers": {"fan": {"home": "sidecar"}}},
        "provider fan as a sidecar needs server.providerSocket",
    ),
    (
        {"server": {"providerSocket": "/var/run/device-api/provider.sock"}},
        "consumers and providers are both /var/run/device-api",
    ),
    (
        {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "would scrape every pod twice",
    ),
    (
        {"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}},
        "needs the Service of metrics.enabled",
    ),
    (
        {"kubernetesPublisher": {"enabled": True}, "server": {"unixSocket": ""}},
        "kubernetesPublisher.enabled needs server.unixSocket",
    ),
    (
        {"kubernetesPublisher": {"enabled": True, "metricsPort": 8081}},
        "kubernetesPublisher.metricsPort 8081 is a port of the server",
    ),
]


@pytest.mark.parametrize(("values", "complaint"), CONTRADICTIONS, ids=lambda v: str(v)[:40])
def test_values_that_contradict_each_other_are_refused(values, complaint):
    with pytest.raises(helm.HelmError, match=re.escape(complaint)):
        render(values)


def test_the_server_reads_what_the_values_say(tmp_path, monkeypatch):
    rendered = render(
        {
            "server": {
                "grpcAddress": ":50051",
                "unixSocket": "/run/d/c.sock",
                "providerSocket": "/run/p/p.sock",
                "healthPort": 1,
                "metricsPort": 2,
                "shutdownTimeout": 2.5,
                "shutdownDelay": 0,
                "expectProviders": ["other"],
                "requireHeartbeat": True,
                "strictUnregister": True,
                "settings": {"transport": "fast", "shutdown_delay": 1},
            },
            "logging": {"verbosity": 2, "format": "text"},
            "state": {"directory": "/var/state"},
            "nvml": {"enabled": True},
            "dcgm": {"enabled": True, "home": "sidecar"},
            "providers": {"fan": {"home": "thread", "options": {"words": ['a "b" ${NODE_NAME}']}}},
        }
    )
    assert settings(rendered, tmp_path, monkeypatch) == Settings(
        grpc_address=":50051",
        unix_socket="/run/d/c.sock",
        provider_socket="/run/p/p.sock",
        health_port=1,
        metrics_port=2,
        shutdown_timeout=2.5,
        shutdown_delay=1.0,
        expect_provider=("other", "dcgm"),
        require_heartbeat=True,
        strict_unregister=True,
        transport="fast",
        verbosity=2,
        log_format="text",
        state_dir="/var/state",
        provider=("nvml", "fan"),
        providers={
            "nvml": {"isolate": True, "health_check": True, "ignored_xids": []},
            "dcgm": {"url": "http://192.0.2.7:9400/metrics"},
            "fan": {"words": ['a "b" gpu-node-07']},
        },
    )


def test_by_default_no_provider_runs_and_sockets_are_apart(tmp_path, monkeypatch):
    found = settings(render(), tmp_path, monkeypatch)
    assert found == Settings(log_format="json", state_dir="/var/lib/device-api")


@pytest.mark.parametrize(
    ("given", "read"), [("31, 43", [31, 43]), ("31,43 45", [31, 43, 45]), (31, [31]), ("", [])]
)
def test_ignored_xids_are_taken_as_the_reference_takes_them(given, read):
    rendered = render({"nvml": {"enabled": True, "additionalIgnoredXids": given}})
    assert rendered.config["providers"]["nvml"]["ignored_xids"] == read


def test_the_providers_take_their_options(tmp_path, monkeypatch):
    rendered = render(
        {
            "nvml": {"enabled": True, "access": "hostPath", "options": {"poll_seconds": 2}},
            "dcgm": {"enabled": True, "options": {"interval_seconds": 2.5, "max_body_bytes": 9e6}},
            "nvsentinelBridge": {"enabled": True, "options": {"ignored_checks": ["GpuPcieWatch"]}},
        }
    )
    found = settings(rendered, tmp_path, monkeypatch)
    options = found.provider_options
    for name in found.provider:
        assert not load(name, options[name], state_dir=str(tmp_path)).error
    assert options["nvml"]["driver_root"] == "/driver-root"
    assert options["dcgm"]["max_body_bytes"] == 9_000_000
    assert options["nvsentinel"]["node_name"] == "gpu-node-07"
    assert found.isolated == {"nvml"}


def test_a_sidecars_command_is_one_that_exists():
    rendered = render({"nvml": {"enabled": True, "home": "sidecar"}})
    sidecar = rendered.container("provider-nvml")
    assert sidecar["command"] == ["device-api", "provider", "run", "nvml"]
    # Under its parent, whose names for help are remembered with the command.
    with (
        main.make_context("device-api", ["provider", "run"]) as parent,
        run.make_context("run", ["nvml", *sidecar["args"]], parent=parent) as context,
    ):
        assert context.params["server"] == "unix:///var/run/device-api-provider/provider.sock"
        assert context.params["config"] == "/etc/device-api/server.toml"
        assert context.params["state_dir"] == "/var/lib/device-api"
    assert rendered.config["expect_provider"] == ["nvml"]
    assert rendered.config["provider"] == []
    assert rendered.config["providers"]["nvml"] == {"health_check": True, "ignored_xids": []}


def test_the_publishers_command_is_one_that_exists_and_takes_its_options(tmp_path, monkeypatch):
    options = {"interval_seconds": 2.5, "node_name": "${NODE_NAME}", "events": False}
    publisher = {"enabled": True, "graceSeconds": 7.5, "options": options}
    rendered = render({"kubernetesPublisher": publisher})
    sidecar = rendered.container("kubernetes-publisher")
    assert sidecar["command"] == ["device-api", "publish", "kubernetes"]
    environment = {each["name"]: each.get("value") for each in sidecar["env"]}
    with (
        main.make_context("device-api", ["publish"]) as parent,
        publish.make_context("publish", ["kubernetes", *sidecar["args"]], parent=parent) as context,
    ):
        assert context.params["config"] == "/etc/device-api/server.toml"
        assert context.params["metrics_address"] == ":9091"
        assert context.params["grace_seconds"] == 7.5
    assert environment["NVIDIA_DEVICE_API"] == f"unix://{rendered.config['unix_socket']}"
    # The server reads the same file, and is not concerned.
    found = settings(rendered, tmp_path, monkeypatch)
    assert found == settings(render(), tmp_path, monkeypatch)
    path = tmp_path / "publisher.toml"
    path.write_text(rendered.server_toml, encoding="utf-8")
    read = read_publisher(str(path), "kubernetes")
    assert read == {**options, "node_name": "gpu-node-07"}
    assert load_publisher("kubernetes", read).interval_seconds == 2.5


def test_the_readme_is_the_one_that_code_gen_writes(load_tool):
    tool = load_tool("chart_readme")
    current = (CHART / "README.md").read_text(encoding="utf-8")
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    assert tool.readme(current, values) == current, "run `make code-gen`"
    for path in paths(VALUES):
        top = path.partition(".")[0]
        assert f"`{path}`" in current or f"| `{top}" in current
