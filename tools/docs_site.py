"""What mkdocs.yml hooks into the build: pages of the whole repository, and links between them.

Pages are written for a reader on GitHub, so that they link to each other, and to source files, by
their paths in the repository. Here a link to a page leads to that page of the site, and one to any
other file to the repository. Nothing is fetched: links to elsewhere are listed beside the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
EXTERNAL_LINKS = "external-links.txt"

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)([^)]*\))")
_FENCE = re.compile(r"^( *```.*?^ *```)$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"'](?:https?:)?//"
)
_CANONICAL = re.compile(r"<link rel=\"canonical\"[^>]*>")
_HREF = re.compile(r"<a\b[^>]*?\bhref=[\"'](https?://[^\"']+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let an entry of the navigation name a folder."""
    config.extra["pages"] |= {
        "examples/README.md": "examples/README.md",
        **{
            f"examples/{path.parent.name}.md": str(path.relative_to(ROOT))
            for path in sorted(ROOT.glob("examples/*/README.md"))
        },
    }
    config.nav = [_expanded(entry, config) for entry in config.nav or []]
    return config


def _expanded(entry: Any, config: MkDocsConfig) -> Any:
    if isinstance(entry, str):
        return entry
    [(title, content)] = entry.items()
    if isinstance(content, list):
        return {title: [_expanded(each, config) for each in content]}
    if not content.endswith("/"):
        return entry
    inside = sorted({page for page in _pages(config) if page.startswith(content)})
    if not inside:
        raise PluginError(f"mkdocs.yml: no page is in {content}")
    first = [page for page in inside if page.endswith("/README.md")]
    return {title: first + [page for page in inside if page not in first]}


def _pages(config: MkDocsConfig) -> Iterator[str]:
    docs = Path(config.docs_dir)
    yield from (path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    yield from config.extra["pages"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/."""
    for page, source in config.extra["pages"].items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn paths of the repository into links of the site."""
    places = {source: place for place, source in config.extra["pages"].items()}
    here = config.extra["pages"].get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def replaced(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        if "://" in target:
            return link[0]
        return before + _resolved(target, here, page.file.src_uri, places, config) + after

    parts = _FENCE.split(_COMMENT.sub("", markdown))
    return "".join(part if i % 2 else _LINK.sub(replaced, part) for i, part in enumerate(parts))


def _resolved(
    target: str, here: str, place: str, places: dict[str, str], config: MkDocsConfig
) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    if not (ROOT / path).exists() or path.startswith(".."):
        raise PluginError(f"{here} links to {target}, which does not exist")
    if f"{path}/README.md" in places:
        path = f"{path}/README.md"
    found = places.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if found is None or (ROOT / path).is_dir():
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{config.extra['source']}/{kind}/main/{path}"
    return posixpath.relpath(found, posixpath.dirname(place) or ".")


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse what a browser would load from elsewhere, and list what readers may follow there."""
    site = Path(config.site_dir)
    external = set()
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        if loaded := _LOADED.search(_CANONICAL.sub("", text)):
            raise PluginError(f"{path.relative_to(site)} loads from elsewhere: {loaded[0]}")
        external |= set(_HREF.findall(text))
    (site / EXTERNAL_LINKS).write_text("".join(f"{link}\n" for link in sorted(external)))
