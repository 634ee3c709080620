"""What the pages tell people to type, and to put into their values, works."""

import re
import shlex
from pathlib import Path

import helm_python as helm
import pytest
import yaml
from rendering import CHART, render

ROOT = CHART.parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs/kubernetes.md",
    ROOT / "docs/operations/fleet.md",
    CHART / "README.md",
]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def helm_commands():
    for page in PAGES:
        for text in blocks(page, "bash"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:2] in (["helm", "install"], ["helm", "upgrade"]):
                    yield pytest.param(words[2:], id=f"{page.name}: {line.strip()[:70]}")


@pytest.mark.parametrize("words", list(helm_commands()))
def test_a_printed_helm_command_renders(words):
    name, chart, *flags = words
    assert (ROOT / chart).samefile(CHART)
    values = {}
    while flags:
        flag = flags.pop(0)
        if flag == "--set":
            helm_set(values, flags.pop(0))
        else:
            assert flag in ("--namespace", "--create-namespace", "--reuse-values")
            if flag == "--namespace":
                assert flags.pop(0) == "device-api"
    assert render(values, name=name).only("DaemonSet")["metadata"]["name"] == "device-api-server"


def helm_set(values, expression):
    """Merge `--set` into values, as far as different keys at each level go."""
    for key, value in helm.parse_set_string(expression).items():
        if isinstance(value, dict):
            values.setdefault(key, {}).update(value)
        else:
            values[key] = value


def test_the_quick_start_is_printed():
    commands = {" ".join(each.values[0]) for each in helm_commands()}
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
