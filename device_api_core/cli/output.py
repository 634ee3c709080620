"""Printing: the ``-o`` option, JSON and YAML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., None])


def without_equals(value: str) -> str:
    """The value of ``-o=json``, which kubectl takes and click would take for ``=json``."""
    return value.removeprefix("=")


class _Words(click.Choice[str]):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(without_equals(value), param, ctx)


def output_option(*formats: str) -> Callable[[Command], Command]:
    """``-o FORMAT``; the first format is the default."""
    return click.option(
        "-o",
        "--output",
        type=_Words(formats),
        default=formats[0],
        show_default=True,
        help="How to print it.",
    )


def print_lines(lines: Iterable[str]) -> None:
    """Each line to standard output."""
    for line in lines:
        click.echo(line)


def print_data(data: object, output: str) -> None:
    """A value as JSON or YAML."""
    click.echo(as_yaml(data) if output == "yaml" else as_json(data))


def as_json(data: object) -> str:
    """Indented JSON."""
    return json.dumps(data, indent=2, ensure_ascii=False)


def as_json_line(data: object) -> str:
    """JSON without a line break."""
    return json.dumps(data, ensure_ascii=False)


def as_yaml(data: Any) -> str:
    """YAML in block style."""
    # Most invocations print no YAML and need not wait for the import.
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")
