"""What the pages tell people to type, and to put into their values, works."""

import re
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate
from printed import blocks, helm_commands
from rendering import CHART, render

ROOT = CHART.parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs/kubernetes.md",
    ROOT / "docs/operations/fleet.md",
    CHART / "README.md",
]
COMMANDS = [(page, command) for page in PAGES for command in helm_commands(page)]


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, id=f"{page.name}: {str(command)[:70]}") for page, command in COMMANDS],
)
def test_a_printed_helm_command_renders(command):
    assert (ROOT / command.chart).samefile(CHART)
    assert command.namespace in ("", "device-api")
    rendered = render(command.values, name=command.name)
    assert rendered.only("DaemonSet")["metadata"]["name"] == "device-api-server"


def test_the_quick_start_is_printed():
    commands = {str(command) for _, command in COMMANDS}
    plain = "device-api-server ./charts/device-api-server --namespace device-api --create-namespace"
    assert {plain, f"{plain} --set nvml.enabled=true"} <= commands


VALUES = set(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))
EXAMPLES = [
    values
    for text in blocks(ROOT / "docs/kubernetes.md", "yaml")
    if (values := yaml.safe_load(text)).keys() <= VALUES
]


def test_there_are_examples_of_values():
    assert len(EXAMPLES) >= 1


@pytest.mark.parametrize("values", EXAMPLES)
def test_an_example_of_values_renders(values):
    render(values)


@pytest.mark.parametrize("kubernetes", ["1.30", "1.37"])
def test_the_policy_for_the_publisher_is_one_and_is_about_the_charts_account(kubernetes):
    (text,) = blocks(ROOT / "docs/security.md", "yaml")
    policy, binding = yaml.safe_load_all(text)
    for each in (policy, binding):
        validate(each, kubernetes, strict=True)
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    account = render({"kubernetesPublisher": {"enabled": True}}).only("ServiceAccount")["metadata"]
    (condition,) = policy["spec"]["matchConditions"]
    named = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert condition["expression"] == f"request.userInfo.username == '{named}'"


@pytest.mark.parametrize("page", [ROOT / "docs/kubernetes.md"], ids=lambda page: page.name)
def test_values_that_a_page_names_exist(page):
    known = (CHART / "README.md").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    roots = "|".join(sorted(VALUES, key=len, reverse=True))
    for name in re.findall(rf"`((?:{roots})\.[A-Za-z.]+)\b", text):
        top = name.split(".")[0]
        nested = {"podSecurityContext", "providers", "securityContext"}
        assert f"`{name}`" in known or top in nested or name.endswith(".labels.release"), name


def test_paths_that_the_page_names_are_the_charts():
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    rendered = render({"nvsentinelBridge": {"enabled": True}})
    shared = {v["hostPath"]["path"] for v in rendered.pod["volumes"] if "hostPath" in v}
    named = set(re.findall(r"^\| `(/var/[\w/-]+)` \|", text, re.MULTILINE))
    assert named == shared
    assert Path(rendered.config["unix_socket"]).parent.as_posix() in named
