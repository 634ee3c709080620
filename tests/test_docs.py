"""What can be set, hooked or measured is documented. This replaces remembering."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from device_api_kubernetes.options import KubernetesOptions

from device_api_core.cli.publish import publish
from device_api_core.plugins import publishing, spec
from device_api_core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md")) + [ROOT / "README.md"]
EXAMPLES = [ROOT / "examples" / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
SHOWN = re.compile(r"`test_|`make |`\.ci/run`|the tests above")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("name", sorted(f.name for f in fields(Settings) if f.name != "providers"))
def test_every_setting_is_documented_by_its_flag(name):
    assert f"--{name.replace('_', '-')}`" in TEXT


def test_the_metrics_page_is_what_the_code_says():
    tool = runpy.run_path(str(ROOT / "tools" / "metrics_page.py"))
    assert tool["PAGE"].read_text(encoding="utf-8") == tool["page"](), "run `make fix`"


def test_the_api_reference_is_what_the_protos_say():
    tool = runpy.run_path(str(ROOT / "tools" / "api_reference.py"))
    written = {path.name: path.read_text(encoding="utf-8") for path in tool["FOLDER"].iterdir()}
    pages = tool["Reference"](tool["read_api"]()).pages()
    assert written == {name: f"{text.rstrip()}\n" for name, text in pages.items()}, "make code-gen"


def test_every_hook_is_documented_where_providers_are_explained():
    hooks = {n for n in vars(spec) if n.startswith("device_api_")}
    assert hooks == {"device_api_provider", "device_api_commands"}
    assert all(spec.__dict__[hook].__doc__ for hook in hooks)


def test_the_hook_the_options_and_the_metrics_of_publishers_are_documented():
    text = (ROOT / "docs" / "publishers.md").read_text(encoding="utf-8")
    hooks = {n for n in vars(publishing) if n.startswith("device_api_")}
    assert hooks == {"device_api_publisher"}
    options = {f.name for f in fields(KubernetesOptions)}
    flags = {option for p in publish.params for option in p.opts if option.startswith("--")}
    for name in (*hooks, *options, *flags - {"--verbosity"}):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("page", PAGES + EXAMPLES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("*/*/tests/test_*.py")]
    defined = {
        name
        for file in files
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert named - defined == set()


def test_every_claim_of_the_threat_model_names_a_test():
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    claims = re.findall(r"^- (?!\*\*).*?(?=^- |^\S|\Z)", page, re.MULTILINE | re.DOTALL)
    assert claims
    assert [claim for claim in claims if "`test_" not in claim] == []


def test_every_row_of_reliability_says_what_shows_it():
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)+)", page, re.MULTILINE))
    promised = ("Leases", "Memory", "Who may write", "Limits", "Faults", "Storms", "Supply chain")
    assert [title for title in promised if title not in sections] == []
    for title in promised:
        head, *rows = re.findall(
            r"^\| (?!---).*", sections[title].partition("\n### ")[0], re.MULTILINE
        )
        assert head.endswith("| Figure |")
        assert rows
        assert [row for row in rows if not SHOWN.search(row)] == []
