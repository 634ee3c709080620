"""``device-api nvml``, and the hooks."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from device_api_nvml import plugin

from device_api_core.plugins import InvalidOption


def run(*arguments):
    return CliRunner().invoke(plugin.device_api_commands(), list(arguments))


def test_the_policy_is_printed_with_its_sources():
    result = run("xid-policy", "--ignored-xids", "79, 48")
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.output.splitlines()}
    assert lines["79"][1:3] == ["ignore", "settings"]
    assert lines["95"][1:4] == ["fatal", "COMPONENT_RESET", "catalog"]
    assert lines["13"][1:3] == ["ignore", "device-plugin"]
    assert lines["other"][1:4] == ["fatal", "CONTACT_SUPPORT", "default"]


def test_the_policy_is_printed_as_json():
    rows = json.loads(run("xid-policy", "-o", "json").output)
    assert len(rows) == 112
    assert next(row for row in rows if row["code"] == 79)["effect"] == "fatal"


@pytest.mark.parametrize("codes", ["a", "-1", "79.5"])
def test_codes_that_are_no_numbers_are_refused(codes):
    result = run("xid-policy", f"--fatal-xids={codes}")
    assert result.exit_code == 2


def test_contradicting_lists_are_refused():
    result = run("xid-policy", "--fatal-xids=1", "--ignored-xids=1")
    assert result.exit_code == 1
    assert "XID 1 is listed as ignore and as fatal" in result.output


def test_probe_shows_what_each_gpu_supports(bench):
    node = bench.node(gpus=2, model="t4")
    found = json.loads(run("probe", "--driver-root", str(node.root), "-o", "json").output)
    assert found["file"] == str(node.library)
    assert found["driver"]["value"] == node.driver_version
    calls = {call["call"]: call for call in found["gpus"][1]["calls"]}
    assert calls["uuid"]["value"] == node.gpu(1).uuid
    assert not calls["mig_mode"]["supported"]
    assert int(calls["supported_events"]["value"], 16) & 0x8
    assert calls["memory_bytes"]["milliseconds"] >= 0
    table = run("probe", "--driver-root", str(node.root)).output
    assert node.gpu(0).uuid in table


def test_probe_survives_a_lost_gpu(bench):
    node = bench.node(gpus=2)
    node.lose(0)
    result = run("probe", "--driver-root", str(node.root))
    assert result.exit_code == 0
    assert "NVML error 15" in result.output
    assert node.gpu(1).uuid in result.output


def test_probe_without_a_driver_says_why(bench):
    node = bench.node()
    node.calls.fail("nvmlInit", 9)
    result = run("probe", "--driver-root", str(node.root))
    assert result.exit_code == 1
    assert "NVML error 9" in result.output


def test_the_hook_gives_a_provider_with_its_options():
    provider = plugin.device_api_provider(
        {"driver_root": "/run/nvidia/driver", "poll_seconds": 2, "ignored_xids": [79]}, ""
    )
    assert (provider.name, provider.contract_version) == ("nvml", 1)
    assert provider.options.poll_seconds == 2.0
    assert provider.policy[79].effect == "ignore"


@pytest.mark.parametrize(
    "options",
    [{"pol_seconds": 2}, {"poll_seconds": 0}, {"fatal_xids": [0]}, {"driver_root": 1}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(InvalidOption):
        plugin.device_api_provider(options, "")
