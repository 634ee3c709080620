#!/usr/bin/env python3
"""Write the chart's README: its head is kept, the table of values is made from values.yaml.

`make code-gen` runs it. A value's documentation is the comment right above it. A mapping that has a
comment and no comments inside is one value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[1] / "charts" / "device-api-server"
MARK = "<!-- Below this line the file is generated from values.yaml: make code-gen -->"


def rows(node: yaml.MappingNode, lines: list[str], above: str = "") -> Iterator[tuple[str, ...]]:
    """Path, default and documentation of every value, in the file's order."""
    for key, value in node.value:
        path = f"{above}.{key.value}" if above else key.value
        text = comment(lines, key.start_mark.line)
        if (
            isinstance(value, yaml.MappingNode)
            and value.value
            and not (text and plain(value, lines))
        ):
            yield from rows(value, lines, path)
        else:
            default = json.dumps(yaml.SafeLoader("").construct_document(value), ensure_ascii=False)
            yield path, f"`{default}`", text


def plain(node: yaml.MappingNode, lines: list[str]) -> bool:
    """Whether nothing in a mapping has a comment."""
    inside = lines[node.start_mark.line : node.end_mark.line]
    return not any(line.startswith("  ") and line.lstrip().startswith("#") for line in inside)


def comment(lines: list[str], line: int) -> str:
    """The comment right above a line, as one line."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(text.strip().removeprefix("#").strip() for text in lines[first:line])


def readme(head: str, values: str) -> str:
    """The whole file."""
    table = ["", "## Values", "", "| Value | Default | |", "| --- | --- | --- |"]
    for path, default, text in rows(yaml.compose(values), values.splitlines()):
        cells = (f"`{path}`", default, text)
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([head.partition(MARK)[0] + MARK, *table]) + "\n"


def main() -> int:
    path = CHART / "README.md"
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    path.write_text(readme(path.read_text(encoding="utf-8"), values), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
