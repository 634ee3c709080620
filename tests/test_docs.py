"""What can be set, hooked or measured is documented. This replaces remembering."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from device_api_core.metrics import (
    PREFIX,
    Metrics,
    Observation,
    ProviderObservation,
    StateObservation,
)
from device_api_core.plugins import spec
from device_api_core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md")) + [ROOT / "README.md"]
EXAMPLES = [ROOT / "examples" / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def metric_names() -> set[str]:
    metrics = Metrics(CollectorRegistry(), version="1", node="n")
    provider = ProviderObservation("p", True, 0.0, 0, 0, True, 1.0, 1.0)
    state = StateObservation(0, 0, True)
    metrics.observe(lambda: Observation(0, 0, 0, 0, 0, 0, 0, 0, 0, state, True, (provider,)))
    names = set()
    for family in metrics.registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        names.add(family.name.removeprefix(PREFIX) + suffix)
    return names


@pytest.mark.parametrize("name", sorted(f.name for f in fields(Settings) if f.name != "providers"))
def test_every_setting_is_documented_by_its_flag(name):
    assert f"--{name.replace('_', '-')}`" in TEXT


@pytest.mark.parametrize("name", sorted(metric_names()))
def test_every_metric_is_documented(name):
    assert re.search(rf"`(device_api_server_)?{name}`", TEXT)


def test_every_hook_is_documented_where_providers_are_explained():
    hooks = {n for n in vars(spec) if n.startswith("device_api_")}
    assert hooks == {"device_api_provider", "device_api_commands"}
    assert all(spec.__dict__[hook].__doc__ for hook in hooks)


@pytest.mark.parametrize("page", PAGES + EXAMPLES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
