"""TLS, identities and limits: what the values say reaches the server, the ports and the policy."""

import json
import re
from dataclasses import fields, replace

import helm_python as helm
import pytest
import yaml
from kubernetes_validate import validate
from rendering import CHART, render

from device_api_core.configuration import read_file
from device_api_core.settings import Settings

MUTUAL = {
    "tls": {
        "secretName": "server",
        "clientCASecretName": "clients",
        "providerAddress": ":50052",
        "operatorNames": ["admin@node"],
        "service": {"enabled": True},
    }
}
CERTIFICATE = {"tls": {"certificate": {"enabled": True, "issuerRef": {"name": "gpu"}}}}


def settings(rendered, tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(rendered.server_toml, encoding="utf-8")
    return Settings(**read_file(str(path)))


def let_in(rendered):
    """The ports that the policy opens, with those who may come."""
    rules = rendered.only("NetworkPolicy")["spec"]["ingress"]
    return {rule["ports"][0]["port"]: rule.get("from") for rule in rules}


def test_mutual_tls_reaches_the_server(tmp_path):
    rendered = render(MUTUAL)
    found = settings(rendered, tmp_path)
    assert found == replace(
        Settings(log_format="json", state_dir="/var/lib/device-api"),
        grpc_provider_address=":50052",
        tls_cert_file="/etc/device-api-tls/tls.crt",
        tls_private_key_file="/etc/device-api-tls/tls.key",
        client_ca_file="/etc/device-api-tls/ca.crt",
        tls_operator_name=("admin@node",),
    )
    (volume,) = (each for each in rendered.pod["volumes"] if each["name"] == "tls")
    secrets = {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert secrets == {"tls.crt": "server", "tls.key": "server", "ca.crt": "clients"}
    # A subPath would not follow a renewal.
    (mount,) = (m for m in rendered.container("server")["volumeMounts"] if m["name"] == "tls")
    assert mount == {"name": "tls", "mountPath": "/etc/device-api-tls", "readOnly": True}


def test_the_key_is_in_no_other_container():
    rendered = render({**MUTUAL, "nvml": {"enabled": True, "home": "sidecar"}})
    others = [rendered.container("provider-nvml"), rendered.container("directories")]
    assert not [m for each in others for m in each["volumeMounts"] if m["name"] == "tls"]


def test_ports_open_only_when_they_are_asked_for():
    assert set(let_in(render())) == {8081, 9090}
    assert [each["metadata"]["name"] for each in render().of_kind("Service")] == [
        "device-api-server-metrics"
    ]
    peers = [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]
    rendered = render({**MUTUAL, "networkPolicy": {"providersFrom": peers}})
    assert let_in(rendered) == {8081: None, 9090: None, 50052: peers}
    (service,) = (s for s in rendered.of_kind("Service") if s["metadata"]["name"].endswith("-grpc"))
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
    assert ports == {"grpc-provider": 50052}
    named = {p["name"]: p["containerPort"] for p in rendered.container("server")["ports"]}
    assert named == {"health": 8081, "metrics": 9090, "grpc-provider": 50052}


def test_the_provider_port_is_opened_for_a_setting_too():
    values = {"server": {"grpcAddress": ":7", "settings": {"grpc_provider_address": "0.0.0.0:8"}}}
    assert set(let_in(render(values))) == {8081, 9090, 7, 8}
    values = {"server": {"settings": {"grpc_provider_address": "[::1]:8"}}}
    assert set(let_in(render(values))) == {8081, 9090}


def test_a_certificate_names_the_service_and_feeds_the_server():
    rendered = render(CERTIFICATE)
    spec = rendered.only("Certificate")["spec"]
    assert spec["secretName"] == "device-api-server-tls"
    assert spec["dnsNames"][-1] == "device-api-server-grpc.device-api.svc"
    assert spec["issuerRef"] == {"name": "gpu"}
    (volume,) = (each for each in rendered.pod["volumes"] if each["name"] == "tls")
    assert [s["secret"]["name"] for s in volume["projected"]["sources"]] == [spec["secretName"]]
    assert not render().of_kind("Certificate")


@pytest.mark.parametrize("kubernetes", ["1.25", "1.37"])
def test_kubernetes_takes_the_objects(kubernetes):
    rendered = render(MUTUAL | {"server": {"dedicatedSockets": {"acme": "/run/acme/a.sock"}}})
    for each in rendered.objects:
        validate(each, kubernetes, strict=True)


def test_a_dedicated_socket_has_a_directory_of_its_own(tmp_path):
    values = {
        "server": {"dedicatedSockets": {"nvml": "/run/nvml/n.sock", "acme": "/run/acme/a.sock"}},
        "nvml": {"enabled": True, "home": "sidecar"},
    }
    rendered = render(values)
    assert settings(rendered, tmp_path).dedicated_sockets == {
        "nvml": "/run/nvml/n.sock",
        "acme": "/run/acme/a.sock",
    }
    paths = {v["name"]: v["hostPath"]["path"] for v in rendered.pod["volumes"] if "hostPath" in v}
    assert paths["dedicated-acme"] == "/run/acme"
    script = rendered.container("directories")["command"][-1]
    assert "chmod 0700 /run/acme\n" in script
    assert "chmod 0700 /run/nvml\n" in script
    # A sidecar that has one gets this one and not the others' socket.
    sidecar = rendered.container("provider-nvml")
    assert "--server=unix:///run/nvml/n.sock" in sidecar["args"]
    assert {m["name"] for m in sidecar["volumeMounts"]} == {"config", "state", "dedicated-nvml"}


def test_limits_identities_and_the_transport_reach_the_server(tmp_path):
    values = {
        "forbidAnonymous": True,
        "transport": "h2",
        "maxReadsPerSecond": 7,
        "maxWritesPerSecond": 8,
        "forgetLostProvidersAfter": 9.5,
    }
    found = settings(render({"server": values}), tmp_path)
    assert (found.forbid_anonymous, found.transport) == (True, "h2")
    assert (found.max_reads_per_second, found.max_writes_per_second) == (7, 8)
    assert found.forget_lost_providers_after == 9.5


def test_values_have_the_servers_defaults():
    server = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["server"]
    for name in ("transport", "max_reads_per_second", "max_writes_per_second", "shutdown_delay"):
        value = re.sub(r"_(.)", lambda match: match[1].upper(), name)
        assert server[value] == getattr(Settings(), name)
    assert server["forgetLostProvidersAfter"] == Settings().forget_lost_providers_after


def other(value):
    """Another value of the same kind, as values.yaml would hold it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return ["a"]
    return value + 1 if isinstance(value, (int, float)) else "another"


@pytest.mark.parametrize("name", [f.name for f in fields(Settings) if f.name != "providers"])
def test_every_setting_can_be_given_by_its_name(name):
    value = other(getattr(Settings(), name))
    rendered = render({"server": {"settings": {name: value}}})
    assert rendered.config[name] == value
    # A variable of the pod would win over the file.
    variables = {each["name"] for each in rendered.container("server")["env"]}
    assert f"DEVICE_API_{name.upper()}" not in variables


WRONG = [
    ({"tls": {"secret": "a"}}, "secret"),
    ({"tls": {"secretName": "A B"}}, "/tls/secretName"),
    ({"tls": {"providerAddress": "50052"}}, "/tls/providerAddress"),
    ({"tls": {"certificate": {"issuerRef": {"nam": "a"}}}}, "nam"),
    ({"server": {"dedicatedSockets": {"a": "relative"}}}, "/server/dedicatedSockets/a"),
    ({"server": {"dedicatedSockets": {"A=b": "/run/a/s"}}}, "A=b"),
    ({"server": {"maxReadsPerSecond": 0}}, "/server/maxReadsPerSecond"),
    ({"tls": {"clientCASecretName": "a"}}, "tls.clientCASecretName needs tls.secretName"),
    ({"tls": {"secretName": "a", "providerAddress": ":1"}}, "needs tls.clientCASecretName"),
    ({"tls": {"operatorNames": ["a"]}}, "tls.operatorNames needs tls.providerAddress"),
    ({"tls": {"certificate": {"enabled": True}}}, "issuerRef.name"),
    ({"tls": {"service": {"enabled": True}}}, "tls.service.enabled needs"),
    ({**CERTIFICATE, "server": {"transport": "h2"}}, "server.transport h2 serves"),
    ({"server": {"transport": "h2", "grpcAddress": ":1"}}, "server.transport h2 serves"),
    (
        {"server": {"dedicatedSockets": {"a": "/var/run/device-api-provider/a.sock"}}},
        "the directories of providers and dedicated-a are both",
    ),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=lambda value: json.dumps(value)[:60])
def test_what_cannot_work_is_refused_and_named(values, named):
    with pytest.raises(helm.HelmError, match=re.escape(named)):
        render(values)
