"""What the publisher can be told, and what it must find before it begins."""

from __future__ import annotations

import pytest
from device_api_kubernetes.options import KubernetesOptions
from device_api_kubernetes.plugin import device_api_publisher

from device_api_core.plugins import InvalidOption

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_the_defaults_suit_a_pod():
    options = KubernetesOptions()
    assert options.url(IN_POD) == "https://10.96.0.1:443"
    assert options.url(IN_POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}) == "https://[fd00::1]:443"
    assert options.node({"NODE_NAME": "node-7.example.com"}) == "node-7.example.com"
    assert KubernetesOptions(node_name="other").node({"NODE_NAME": "node-7"}) == "other"
    assert options.token_file == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert options.ca_file == "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"node": "x"}, "unknown option 'node'; known are "),
        ({"node_name": "a/../b"}, "no name of a Node"),
        ({"node_name": "Node"}, "no name of a Node"),
        ({"condition_type": "Ready"}, "other than DiskPressure"),
        ({"condition_type": "gpu healthy"}, "CamelCase"),
        ({"events": 1}, "must be bool"),
        ({"events_per_minute": 0}, "set events = false"),
        ({"interval_seconds": 0}, "above zero"),
        ({"interval_seconds": float("nan")}, "above zero"),
        ({"interval_seconds": float("inf")}, "above zero"),
        ({"server": "http://10.96.0.1"}, "must be a URL like https://"),
        ({"server": "https://user:secret@10.96.0.1"}, "without credentials"),
        ({"server": "https://10.96.0.1:99999"}, "must be a URL"),
        ({"server": "https://"}, "must be a URL"),
        ({"server": "https://a b"}, "must be a URL"),
        ({"server": "https://a/?x"}, "must be a URL"),
    ],
)
def test_a_wrong_option_is_refused_by_name(table, words):
    with pytest.raises(InvalidOption, match=words.replace("(", r"\(")) as refused:
        device_api_publisher(table)
    assert "secret" not in str(refused.value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A pod, as its environment and files show it."""
    for name, value in {**IN_POD, "NODE_NAME": "node-7"}.items():
        monkeypatch.setenv(name, value)
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    return {"token_file": str(tmp_path / "token"), "ca_file": str(tmp_path / "ca.crt")}


def test_in_a_pod_it_can_begin(place):
    device_api_publisher(place).prepare()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("NODE_NAME", "Set NODE_NAME .*fieldRef: spec.nodeName"),
        ("KUBERNETES_SERVICE_HOST", "not in a pod .*option 'server'"),
        ("KUBERNETES_SERVICE_PORT", "not in a pod .*option 'server'"),
    ],
)
def test_what_the_environment_lacks_is_said_before_it_begins(place, missing, words, monkeypatch):
    monkeypatch.delenv(missing)
    with pytest.raises(InvalidOption, match=words):
        device_api_publisher(place).prepare()


@pytest.mark.parametrize("option", ["token_file", "ca_file"])
def test_a_missing_file_is_said_before_it_begins(place, option):
    place[option] += ".gone"
    with pytest.raises(InvalidOption, match=rf"there is no file .*\.gone: .*option '{option}'"):
        device_api_publisher(place).prepare()
