"""The rules are well-formed, each alert can fire and can be silent, and each has its runbook."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

from device_api_core.exposition.publishing import registry_of_publisher
from device_api_core.published import Published

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RULES = ROOT / "charts" / "device-api-server" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
URL = "https://github.com/NVIDIA/device-api/blob/main/docs/runbooks/"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def rules_of(name):
    groups = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def cases():
    return yaml.safe_load((HERE / "alerts.yaml").read_text(encoding="utf-8"))["tests"]


ALERTS = rules_of("alerts.yaml")
NAMES = sorted({rule["alert"] for rule in ALERTS})


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in RULES.iterdir()))
def test_the_rules_are_well_formed(promtool, name):
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(RULES / name))


def test_the_sample_for_a_fleet_is_well_formed(promtool):
    run(promtool, "check", "config", str(ROOT / "contrib" / "prometheus" / "federation.yaml"))


@pytest.mark.parametrize("name", ["alerts.yaml", "recording.yaml"])
def test_the_rules_do_what_their_cases_say(promtool, name):
    run(promtool, "test", "rules", str(HERE / name))


@pytest.mark.parametrize("alert", NAMES)
def test_each_alert_has_a_case_that_fires_it_and_one_that_keeps_it_silent(alert):
    fires = {True: 0, False: 0}
    for case in cases():
        [expected] = case["promql_expr_test"]
        if f'"{alert}"' in expected["expr"]:
            assert case["name"].split()[0] == alert
            assert ("fires" in case["name"]) is bool(expected["exp_samples"])
            fires[bool(expected["exp_samples"])] += 1
    assert all(fires.values())


@pytest.mark.parametrize("alert", NAMES)
def test_what_an_alert_says_is_made_of_labels_that_it_has(alert):
    [labels, *_] = [
        set(re.findall(r"(\w+)=", sample["labels"]))
        for case in cases()
        for expected in case["promql_expr_test"]
        for sample in expected["exp_samples"]
        if f'"{alert}"' in sample["labels"]
    ]
    for rule in ALERTS:
        if rule["alert"] == alert:
            texts = " ".join(rule["annotations"].values())
            assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels
            assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
            assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("alert", NAMES)
def test_each_alert_has_a_runbook(alert):
    page = RUNBOOKS / f"{alert}.md"
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^#+ (.+)", text, re.M) == [alert, *SECTIONS]
    assert "```" in text.split("## Diagnosis")[1].split("## Mitigation")[0]
    assert f"[{alert}]({alert}.md)" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    urls = {r["annotations"]["runbook_url"] for r in ALERTS if r["alert"] == alert}
    assert urls == {f"{URL}{page.name}"}


def test_no_runbook_is_left_over():
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md")) == sorted([*NAMES, "README"])


def test_rules_and_runbooks_name_only_metrics_that_exist():
    tool = runpy.run_path(str(ROOT / "tools" / "metrics_page.py"))
    registries = (tool["registry"](), registry_of_publisher(Published("kubernetes")))
    known = {tool["name_of"](family) for each in registries for family in each.collect()}
    known |= {rule["record"] for rule in rules_of("recording.yaml")}
    sources = [*RULES.iterdir(), *RUNBOOKS.iterdir()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    used = set(re.findall(r"(?<!:)\b(?:device_api_(?:server|publisher)|grpc_server)_\w+", text))
    assert any(name.startswith("device_api_publisher_") for name in used)
    assert not {n for n in used - known if re.sub(r"_(bucket|sum|count)$", "", n) not in known}
